package verbs

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// waiter parks a goroutine on the fd of a channel through the runtime's poller, so
// that waiting costs no thread.
type waiter struct {
	f    *os.File // a duplicate: the library closes the original itself
	raw  syscall.RawConn
	try  func() bool // takes what is there; false: nothing was
	step func(uintptr) bool
}

// newWaiter takes an fd that is O_NONBLOCK.
func newWaiter(fd int, name string, try func() bool) (*waiter, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("verbs: duplicate the fd of a %s: %w", name, err)
	}
	w := &waiter{f: os.NewFile(uintptr(dup), name), try: try}
	w.step = func(uintptr) bool { return w.try() }
	if w.raw, err = w.f.SyscallConn(); err != nil {
		w.f.Close()
		return nil, fmt.Errorf("verbs: wait on a %s: %w", name, err)
	}
	// A file that the poller does not know has no deadlines: Interrupt would not work.
	if err := w.f.SetReadDeadline(time.Time{}); err != nil {
		w.f.Close()
		return nil, fmt.Errorf("verbs: wait on a %s: %w", name, err)
	}
	return w, nil
}

// wait returns nil once try took something, ErrInterrupted after interrupt.
func (w *waiter) wait() error {
	err := w.raw.Read(w.step)
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
		return ErrInterrupted
	}
	return err
}

// interrupt ends the wait under way and all later ones.
func (w *waiter) interrupt() { _ = w.f.SetReadDeadline(time.Unix(1, 0)) }

// resume takes interrupt back.
func (w *waiter) resume() { _ = w.f.SetReadDeadline(time.Time{}) }

func (w *waiter) close() { _ = w.f.Close() }
