package flash

import (
	"fmt"

	"golang.org/x/sys/unix"

	"corfu/layout"
)

// Buffer gives n bytes of memory that pages are read into without another copy.
func Buffer(n int) []byte { return alignedBytes(n) }

// ReadRun fills dst, which is a Buffer, with the pages of consecutive addresses from a on: as many whole ones as it has
// room for and as stand in one segment, by one I/O. It tells how many, also where that I/O failed. Like ReadPage it may see what Write is
// writing; pages never written are zero, and it waits for a turn.
func (s *Store) ReadRun(a layout.Address, dst []byte) (n int, err error) {
	x := s.shape.Load()
	if x.pageSize == 0 || len(dst) < x.pageSize || !aligned(dst) {
		return 0, fmt.Errorf("flash: read into %d bytes: %w", len(dst), unix.EINVAL)
	}
	n = min(len(dst)/x.pageSize, x.perFile-int(uint64(a)%uint64(x.perFile)))
	s.turns.take()
	defer s.turns.give()
	return n, s.read(x, a, dst[:n*x.pageSize])
}
