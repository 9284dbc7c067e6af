package rdma

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// Huge pages that cannot be touched, as under a cgroup that grants none, are given back, and
// ordinary pages take their place.
func TestHugePagesThatCannotBeTouchedAreReplaced(t *testing.T) {
	real, realPopulate := mmap, populate
	defer func() { mmap, populate = real, realPopulate }()
	mmap = func(n, flags int) ([]byte, error) { return real(n, flags&^unix.MAP_HUGETLB) } // as if some were reserved
	for _, refused := range []error{unix.EFAULT, unix.ENOMEM, unix.EINVAL} {
		var touched []byte
		populate = func(b []byte) error { touched = b; return refused }
		m, err := MapMemory(3*4096, true)
		if err != nil {
			t.Fatalf("%v: %v, want ordinary pages", refused, err)
		}
		if len(touched) != HugePageSize || m.Len() != 3*4096 {
			t.Errorf("%v: touched %d bytes, got %d bytes; want a huge page, then ordinary ones", refused, len(touched), m.Len())
		}
		if !errors.Is(m.NotHuge(), refused) {
			t.Errorf("NotHuge is %v, want %v", m.NotHuge(), refused)
		}
		clear(m.Bytes())
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	calls := 0
	populate = func(b []byte) error { // a signal came
		if calls++; calls == 1 {
			return unix.EINTR
		}
		return nil
	}
	m, err := MapMemory(1, true)
	if err != nil || m.NotHuge() != nil || m.Len() != HugePageSize || calls != 2 {
		t.Fatalf("after a signal: %d bytes, %v, %v, touched %d times; want a huge page", m.Len(), m.NotHuge(), err, calls)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
