package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDamageIsNamedAndNothingChanged: whatever is wrong with raft.db, the server ends with one line
// that names the file, and leaves the directory as it was.
func TestDamageIsNamedAndNothingChanged(t *testing.T) {
	c := newCluster(t)
	c.start().open(1)
	for range 3 {
		if _, err := c.reconfigure(); err != nil {
			t.Fatal(err)
		}
	}
	c.stop()
	good := t.TempDir()
	if err := os.CopyFS(good, os.DirFS(c.cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(good, raftFile))
	if err != nil {
		t.Fatal(err)
	}
	try := func(name string, raft []byte, mustFail bool) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, raftFile)
			if raft == nil {
				err = os.Remove(path)
			} else {
				err = os.WriteFile(path, raft, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			cfg := c.cfg
			cfg.Dir = dir
			s, err := Start(context.Background(), cfg)
			if err == nil {
				_ = s.Close()
				if mustFail {
					t.Fatal("it starts")
				}
				return
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") || errors.Is(err, ErrRunning) {
				t.Errorf("it says: %v", err)
			}
			if after, _ := os.ReadFile(path); string(after) != string(raft) {
				t.Error("the file was changed")
			}
		})
	}
	change := func(f func([]byte) []byte) []byte { return f(append([]byte(nil), b...)) }
	try("untouched", b, false)
	for page := range len(b) / 4096 {
		try(fmt.Sprintf("rubbish at page %d", page), change(func(b []byte) []byte {
			copy(b[page*4096:], "\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef\xde\xad\xbe\xef")
			return b
		}), false) // it may be a free page
	}
	try("both meta pages zero", change(func(b []byte) []byte { clear(b[:8192]); return b }), true)
	try("all but the meta pages zero", change(func(b []byte) []byte { clear(b[8192:]); return b }), true)
	try("cut off", b[:4*4096], true)
	try("length 0", []byte{}, true)
	try("missing beside snapshots", nil, true)
}

// TestLogThatCannotBeReadIsDamage: an entry within a file that holds together.
func TestLogThatCannotBeReadIsDamage(t *testing.T) {
	c := newCluster(t)
	c.start().open(1)
	c.stop()
	path := filepath.Join(c.cfg.Dir, raftFile)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(b), "\xa4Data") == 0 {
		t.Fatal("entries are not where the test looks for them")
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(b), "\xa4Data", "\xa4Lost")), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Start(context.Background(), c.cfg)
	if err == nil {
		_ = s.Close()
	}
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "cannot be understood") || strings.Contains(err.Error(), "\n") {
		t.Errorf("it says: %v", err)
	}
}

// TestSecondServerInOneDirectory: only then does it say that another one is running.
func TestSecondServerInOneDirectory(t *testing.T) {
	c := newCluster(t)
	c.start().open(1)
	cfg := c.cfg
	cfg.Control, cfg.ControlListener = "127.0.0.1:0", nil
	s, err := Start(context.Background(), cfg)
	if err == nil {
		_ = s.Close()
	}
	if !errors.Is(err, ErrRunning) || errors.Is(err, ErrDamaged) {
		t.Errorf("it says: %v", err)
	}
}
