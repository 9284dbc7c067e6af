package verbs

import (
	"errors"
	"fmt"
	"syscall"
)

// ErrUnavailable: the libraries cannot be used; the message says what to install.
var ErrUnavailable = errors.New("libibverbs is not available")

// ErrInterrupted: a wait on a channel ended because Interrupt was called.
var ErrInterrupted = errors.New("interrupted")

// Error is a verb that failed.
type Error struct {
	Verb  string
	Errno syscall.Errno
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %v", e.Verb, e.Errno)
	if h := hint(e.Verb, e.Errno); h != "" {
		s += " (" + h + ")"
	}
	return s
}

// Unwrap gives the errno, so that errors.Is(err, syscall.ENOMEM) works.
func (e *Error) Unwrap() error { return e.Errno }

// hint tells what an errno usually means for a verb; the sources are the verbs'
// manual pages and what the kernel's drivers return.
func hint(verb string, errno syscall.Errno) string {
	switch {
	case errno == syscall.EAGAIN && charged(verb):
		return cgroupHint()
	case errno == syscall.ENOMEM && (verb == "ibv_reg_mr" || verb == "ibv_create_cq" || verb == "rdma_create_qp"):
		return "RLIMIT_MEMLOCK too low? systemd: LimitMEMLOCK=infinity; shell: ulimit -l unlimited"
	case errno == syscall.EINVAL && verb == "ibv_reg_mr":
		return "not mapped, not writable, or a length of zero"
	case errno == syscall.EFAULT && verb == "ibv_reg_mr":
		return "a part of the range is not mapped"
	case errno == syscall.EINVAL && verb == "rdma_create_qp":
		return "more work requests, inline data or entries than the device has"
	case errno == syscall.EINVAL && verb == "ibv_post_send":
		return "queue pair in a wrong state, or a bad work request"
	case errno == syscall.EINVAL && (verb == "rdma_connect" || verb == "rdma_accept"):
		return "private data too long, or more READs and atomics than the device answers"
	case errno == syscall.ENODEV && (verb == "rdma_bind_addr" || verb == "rdma_resolve_addr"):
		return "no RDMA device has this address"
	case (errno == syscall.ENODEV || errno == syscall.ENOENT) && verb == "rdma_create_event_channel":
		// librdmacm says ENOENT where it may not open the device, too (measured in the lab).
		return "may this process open /dev/infiniband/rdma_cm? Is the module rdma_ucm loaded?"
	case errno == syscall.EADDRNOTAVAIL && verb == "rdma_bind_addr":
		return "this machine does not have the address"
	case errno == syscall.EACCES || errno == syscall.EPERM:
		return "rights on /dev/infiniband/*?"
	}
	return ""
}

func verbError(verb string, errno int) error {
	if errno == 0 {
		return nil
	}
	return &Error{Verb: verb, Errno: syscall.Errno(errno)}
}

// verbErr makes an error of what a two-valued cgo call gave for a NULL pointer.
func verbErr(verb string, err error) error {
	var e syscall.Errno
	if errors.As(err, &e) && e != 0 {
		return &Error{Verb: verb, Errno: e}
	}
	return &Error{Verb: verb, Errno: syscall.EIO}
}
