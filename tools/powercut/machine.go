package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machine is one boot of the lab on the disk, as the host sees it.
type machine struct {
	dir  string // of this boot alone
	disk *disk
	lab  *exec.Cmd
	out  *os.File // what the lab and the guest's program say

	facts string // the guest's file
	read  int64  // bytes of it that were taken
	rest  []byte // of a line that is not whole yet

	done chan struct{}
	err  error // of the lab; read after done
}

// bootLimit bounds one boot from start to end, in seconds: longer than anything that works.
const bootLimit = 420

// boot starts the disk, and the machine on it, which runs command.
func (h *host) boot(name, image string, leak float64, command []string) (*machine, error) {
	m := &machine{dir: filepath.Join(h.dir, name), done: make(chan struct{})}
	if err := os.MkdirAll(filepath.Join(m.dir, "results"), 0o700); err != nil {
		return nil, err
	}
	m.facts = filepath.Join(m.dir, "results", "facts")
	var err error
	if m.disk, err = startDisk(h.exe, m.dir, image, leak, h.random.Uint64()); err != nil {
		return nil, err
	}
	if m.out, err = os.Create(filepath.Join(m.dir, "output")); err != nil {
		m.disk.kill()
		return nil, err
	}
	m.lab = exec.Command(h.lab, shell(append([]string{h.exe}, command...)))
	m.lab.Env = append(os.Environ(),
		"LAB_DISK=nbd:unix:"+m.disk.socket, "LAB_RESULTS="+filepath.Join(m.dir, "results"),
		"LAB_QEMU_ARGS=-pidfile "+m.pidfile(), "LAB_MEM=2048", "LAB_TIMEOUT="+strconv.Itoa(bootLimit))
	m.lab.Stdout, m.lab.Stderr = m.out, m.out
	m.lab.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := m.lab.Start(); err != nil {
		m.disk.kill()
		return nil, err
	}
	go func() {
		m.err = m.lab.Wait()
		close(m.done)
	}()
	return m, nil
}

func (m *machine) pidfile() string { return filepath.Join(m.dir, "qemu.pid") }

// hear gives the lines that came in since the last call.
func (m *machine) hear() ([]line, error) {
	f, err := os.Open(m.facts)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := f.Seek(m.read, 0); err != nil {
		return nil, err
	}
	n, err := b.ReadFrom(f)
	m.read += n
	if err != nil {
		return nil, err
	}
	texts, rest := cutLines(append(m.rest, b.Bytes()...))
	m.rest = rest
	lines := make([]line, 0, len(texts))
	for _, s := range texts {
		l, err := parseLine(s)
		if err != nil {
			return lines, fmt.Errorf("%s: %w", m.facts, err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// way of a cut: which of the two dies first. Between them lie microseconds, or, on a busy host, milliseconds.
type way int

const (
	machineFirst way = iota
	diskFirst
	inFlush // the disk dies in the middle of its next flush, and the machine when that is noticed
	ways
)

func (w way) String() string { return [...]string{"machine first", "disk first", "within a flush"}[w] }

// flushPatience is how long a cut waits for a flush to die in.
const flushPatience = 2 * time.Second

// cut takes the power from machine and disk, and returns when both are gone, with the number of bytes that
// the disk had taken and not been told to keep.
func (m *machine) cut(how way) (lost uint64, err error) {
	b, err := os.ReadFile(m.pidfile())
	if err != nil {
		return 0, fmt.Errorf("which process is the machine: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("which process is the machine: %w", err)
	}
	switch how {
	case diskFirst:
		_ = m.disk.cmd.Process.Kill()
	case inFlush:
		m.disk.shared.armed.Store(1)
		select {
		case <-m.disk.done:
		case <-time.After(flushPatience):
		}
	}
	// A machine whose disk died may have ended by itself.
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && how == machineFirst {
		return 0, fmt.Errorf("the machine was gone before its cut: %w", err)
	}
	m.disk.kill()
	m.await()
	return m.disk.shared.Volatile.Load(), nil
}

// await returns when the lab has ended.
func (m *machine) await() {
	<-m.done
	_ = m.out.Close()
}

// stop ends machine and disk in whatever state they are. Idempotent.
func (m *machine) stop() {
	select {
	case <-m.done:
	default:
		// The lab hands it on to the machine.
		_ = m.lab.Process.Signal(syscall.SIGTERM)
		select {
		case <-m.done:
		case <-time.After(20 * time.Second):
			_ = m.lab.Process.Kill()
		}
	}
	m.disk.kill()
	_ = m.out.Close()
}

// tail gives the last lines that the lab and the guest's program said.
func (m *machine) tail() string {
	b, err := os.ReadFile(m.out.Name())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	const shown = 25
	return "  | " + strings.Join(lines[max(0, len(lines)-shown):], "\n  | ")
}

// shell quotes words for bash.
func shell(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}
