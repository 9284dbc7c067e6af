package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// store returns the directory that holds what a unit or a layout server made durable.
func (m *member) store() string {
	if m.role == roleUnit {
		return filepath.Join(m.dir, "store")
	}
	return m.dir
}

// beside returns the path of a directory next to the member's store, on the same disk.
func (m *member) beside(what string) string { return m.store() + "." + what }

// putStore makes the directory the member's store. The process must not run. What the member had is
// removed.
func (m *member) putStore(dir string) error {
	if err := os.RemoveAll(m.store()); err != nil {
		return err
	}
	return os.Rename(dir, m.store())
}

// putAway moves the store of a member that does not run aside, and returns where it is.
func (m *member) putAway() (string, error) {
	to := m.beside("true")
	return to, os.Rename(m.store(), to)
}

// tryStart starts the process, which may end by itself: it may refuse the store that it finds.
func (m *member) tryStart() error {
	err := m.start()
	m.mu.Lock()
	m.wanted = false
	m.mu.Unlock()
	return err
}

// refused reports whether the process that tryStart started has ended.
func (m *member) refused() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd == nil {
		return false
	}
	select {
	case <-m.exited:
		return true
	default:
		return false
	}
}

// lastWords returns the last line of the member's log.
func (m *member) lastWords() string {
	b, _ := os.ReadFile(m.logPath())
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// logEnd returns how long the member's log is.
func (m *member) logEnd() int {
	b, _ := os.ReadFile(m.logPath())
	return len(b)
}

// loggedSince returns the first line behind a place in the member's log that has the words; "":
// there is none.
func (m *member) loggedSince(from int, words string) string {
	b, _ := os.ReadFile(m.logPath())
	for line := range strings.Lines(string(b[min(from, len(b)):])) {
		if strings.Contains(line, words) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// copyStore copies the store of a member to a directory. If the process is up, it is stopped
// meanwhile, so that the copy is what a snapshot of the disk is: everything as it was at one
// moment.
func (m *member) copyStore(ctx context.Context, to string) error {
	m.mu.Lock()
	cmd := m.cmd
	m.mu.Unlock()
	if cmd != nil {
		if err := freeze(ctx, cmd.Process.Pid); err != nil {
			return fmt.Errorf("%v: %w", m, err)
		}
		defer m.signal(syscall.SIGCONT)
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", "--sparse=always", m.store(), to).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the store of %v: %w: %s", m, err, out)
	}
	return nil
}

// freeze stops a process and returns when no thread of it runs.
func freeze(ctx context.Context, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for ; ; time.Sleep(time.Millisecond) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil {
			return err
		}
		still := 0
		for _, t := range threads {
			// "pid (name) state …"; the name may hold anything.
			b, _ := os.ReadFile(t)
			if _, state, ok := bytes.Cut(b[bytes.LastIndexByte(b, ')')+1:], []byte(" ")); !ok || len(state) == 0 || strings.IndexByte("TtZX", state[0]) >= 0 {
				still++
			}
		}
		if still == len(threads) {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}
