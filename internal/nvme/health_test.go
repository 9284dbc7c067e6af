package nvme

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A daemon that may not ask a disk goes by what the service left of it, as long as that is fresh.
func TestHealthIsWhatTheServiceLeft(t *testing.T) {
	sys, dir, now := t.TempDir(), t.TempDir(), time.Now()
	for _, name := range []string{"nvme7n1", "nvme8n1", "nvme9n1", "nvme9c0n1", "sda"} {
		if err := os.MkdirAll(filepath.Join(sys, "block", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(sys, "block", "nvme9c0n1", "hidden"), []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := Smart{CriticalWarning: 4, PercentUsed: 112, SparePercent: 97, SpareThreshold: 10, Kelvin: 310, WrittenBytes: 1e19, MediaErrors: 3}
	var asked []string
	broken := errors.New("does not answer")
	answers := map[string]error{"nvme8n1": broken}
	read := func(name string) (Smart, error) {
		asked = append(asked, name)
		return want, answers[name]
	}
	if err := leave(sys, dir, read); !errors.Is(err, broken) {
		t.Errorf("a disk that does not answer: %v", err)
	}
	if got := strings.Join(asked, " "); got != "nvme7n1 nvme8n1 nvme9n1" {
		t.Errorf("asked %s", got)
	}
	for _, name := range []string{"nvme7n1", "nvme9n1"} {
		if got, err := Health(dir, name, now); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
	if _, err := Health(dir, "nvme8n1", now); !errors.Is(err, ErrUnreadable) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a disk that does not answer: %v", err)
	}
	if got, err := Health(dir, "nvme7n1", now.Add(time.Hour)); !errors.Is(err, ErrUnreadable) || got != (Smart{}) {
		t.Errorf("what is an hour old: %+v, %v", got, err)
	}
	answers["nvme7n1"] = broken
	_ = leave(sys, dir, read)
	if got, err := Health(dir, "nvme7n1", now); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a disk that answers no longer: %+v, %v", got, err)
	}
}
