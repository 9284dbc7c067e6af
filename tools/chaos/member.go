package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

type role string

const (
	roleLayout role = "layout"
	roleSeq    role = "seq"
	roleUnit   role = "unit"
	roleClient role = "client"
)

// member is a process of the cluster, or a client, and the machine that it is on.
type member struct {
	role role
	id   int
	addr string
	port int   // added to every port number
	host *host // nil: no machine of its own
	dir  string
	exe  string
	args []string
	logs string // directory

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	wanted bool // it should be up: an end is a fault of its own
	life   int
}

func (m *member) String() string { return fmt.Sprintf("%s %d", m.role, m.id) }

func (m *member) control() string { return fmt.Sprintf("%s:%d", m.addr, controlPort+m.port) }

func (m *member) logPath() string {
	return filepath.Join(m.logs, fmt.Sprintf("%s-%d.log", m.role, m.id))
}

// start starts the process, unless it is up.
func (m *member) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		return nil
	}
	log, err := os.OpenFile(m.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	m.life++
	args := m.args
	if m.role == roleClient { // each life has its own file and its own numbers
		args = append(args[:len(args):len(args)], "-id", fmt.Sprint(100*m.id+m.life), "-seed", fmt.Sprint(100*m.id+m.life), "-out", m.historyPath(m.life))
	}
	cmd := exec.Command(m.exe, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+m.logs)
	if m.host == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	if err := m.host.within(cmd.Start); err != nil {
		return fmt.Errorf("%v: %w", m, err)
	}
	exited := make(chan struct{})
	m.cmd, m.exited, m.wanted = cmd, exited, true
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	return nil
}

func (m *member) historyPath(life int) string {
	return filepath.Join(m.logs, fmt.Sprintf("history-%d-%d.jsonl", m.id, life))
}

// signal sends a signal to the process, if there is one.
func (m *member) signal(s syscall.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		_ = m.cmd.Process.Signal(s)
	}
}

// kill is kill -9, and returns when the process is gone.
func (m *member) kill() { m.end(syscall.SIGKILL, time.Minute) }

// end sends a signal and waits until the process is gone; after grace it is killed.
func (m *member) end(s syscall.Signal, grace time.Duration) {
	m.mu.Lock()
	cmd, exited := m.cmd, m.exited
	m.cmd, m.wanted = nil, false
	m.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(s)
	_ = cmd.Process.Signal(syscall.SIGCONT)
	select {
	case <-exited:
	case <-time.After(grace):
		_ = cmd.Process.Kill()
		<-exited
	}
}

// died tells whether the process ended though nobody ended it.
func (m *member) died() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd == nil || !m.wanted {
		return false
	}
	select {
	case <-m.exited:
		return true
	default:
		return false
	}
}
