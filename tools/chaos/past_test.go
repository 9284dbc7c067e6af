package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"corfu/internal/history"
	"corfu/layout"
)

// wentBack makes of what was told a log that went on at an old tail: what was acknowledged from a
// position on is gone, and other entries stand there, acknowledged as well.
func wentBack(from layout.Position) *testimony {
	t := &testimony{}
	var first, second []fact
	for p := range layout.Position(8) {
		n, at := int(p)+1, 100*int64(p+1)
		tag := fmt.Sprintf("1.%d/20", n)
		first = append(first, fact{Kind: factInvoke, N: n, At: at, Payload: tag, Pages: 1}, fact{Kind: factAck, N: n, At: at + 10, Position: p})
		final := fact{Kind: factRead, Position: p, Payload: tag, Since: 5000, At: 5001}
		if p >= from {
			final.Payload = fmt.Sprintf("2.%d/20", n)
			second = append(second, fact{Kind: factInvoke, N: n, At: 2000 + at, Payload: final.Payload, Pages: 1},
				fact{Kind: factAck, N: n, At: 2010 + at, Position: p})
		}
		t.final = append(t.final, final)
	}
	t.clients = [][]fact{first, second}
	return t
}

// TestJudgeFindsALogThatWentBack: a log that goes on at an old tail, healthy and with equal
// replicas, is found by what was acknowledged, whether other entries stand at the positions,
// nothing was written there again, or the positions were filled.
func TestJudgeFindsALogThatWentBack(t *testing.T) {
	if err := wentBack(8).judge(); err != nil {
		t.Fatalf("the control, a log that did not go back: %v", err)
	}
	for name, change := range map[string]func(x *testimony){
		"written again": func(*testimony) {},
		"a lower tail":  func(x *testimony) { x.clients, x.final = x.clients[:1], x.final[:5] },
		"filled": func(x *testimony) {
			x.clients = x.clients[:1]
			for i := range x.final[5:] {
				x.final[5+i].Payload = history.Junk
			}
		},
	} {
		x := wentBack(5)
		change(x)
		err := x.judge()
		for p := 5; p < 8; p++ {
			if want := fmt.Sprintf(`position %d: "1.%d/20" was acknowledged to client 0`, p, p+1); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v\nwant %q", name, err, want)
			}
		}
	}
}

// TestJudgeIsBrief: of thousands of lost entries the first are named, and how many more there are.
func TestJudgeIsBrief(t *testing.T) {
	x := &testimony{}
	for n := range 1000 {
		x.clients = append(x.clients, []fact{{Kind: factInvoke, N: n, Payload: "1.1/20", Pages: 1}, {Kind: factAck, N: n, Position: layout.Position(n)}})
	}
	err := x.judge()
	if err == nil || !strings.Contains(err.Error(), "and 990 more like the last one") || len(err.Error()) > 10000 {
		t.Errorf("%.2000v", err)
	}
}

// TestStoresAreReplaced: what the faults do to directories is what they say: each store is at one
// place only, and whole.
func TestStoresAreReplaced(t *testing.T) {
	m := &member{role: roleUnit, id: 1, dir: t.TempDir()}
	write := func(what string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(m.store(), "segments"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(m.store(), "segments", "0"), []byte(what), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	has := func(want string) {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(m.store(), "segments", "0"))
		if got := string(b); got != want || (err != nil) != (want == "") {
			t.Errorf("the store has %q, %v, want %q", got, err, want)
		}
	}
	write("old")
	if err := m.copyStore(t.Context(), m.beside("old")); err != nil {
		t.Fatal(err)
	}
	write("new")
	away, err := m.putAway()
	if err := errors.Join(err, empty(m)); err != nil {
		t.Fatal(err)
	}
	has("")
	if err := errors.Join(os.Remove(m.store()), old(m)); err != nil {
		t.Fatal(err)
	}
	has("old")
	if err := m.putStore(away); err != nil {
		t.Fatal(err)
	}
	has("new")
	if left, _ := filepath.Glob(m.store() + ".*"); len(left) > 0 {
		t.Errorf("left beside the store: %v", left)
	}
}

// TestFreezeStopsAllThreads: a copy of a running member's store is of one moment.
func TestFreezeStopsAllThreads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "count")
	cmd := exec.Command("sh", "-c", `n=0; while :; do n=$((n+1)); echo $n >"$0"; done`, path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	count := func() string { b, _ := os.ReadFile(path); return strings.TrimSpace(string(b)) }
	for count() == "" && t.Context().Err() == nil {
	}
	if err := freeze(t.Context(), cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	first := count()
	for range 1000 {
		if again := count(); again != first {
			t.Fatalf("the process wrote %q after %q, although it was stopped", again, first)
		}
	}
}
