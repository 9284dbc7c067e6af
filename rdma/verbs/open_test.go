package verbs

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

// A device that this process may not open is one that is not available: provider auto goes on with
// tcp. Any other error is not passed over.
func TestDeviceThatMayNotBeOpened(t *testing.T) {
	for errno, want := range map[syscall.Errno]bool{
		syscall.EACCES: true, syscall.EPERM: true, syscall.ENODEV: true, syscall.ENOENT: true, syscall.ENOMEM: true,
		syscall.EINVAL: false, syscall.EIO: false, syscall.EMFILE: false,
	} {
		cause := &ib.Error{Verb: "rdma_create_event_channel", Errno: errno}
		err := openError("mlx5_0", cause)
		if got := errors.Is(err, rdma.ErrUnavailable); got != want {
			t.Errorf("%v: not available %v; want %v", err, got, want)
		}
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), "open mlx5_0: rdma_create_event_channel") {
			t.Errorf("%v; want the device, the call and the errno", err)
		}
	}
}
