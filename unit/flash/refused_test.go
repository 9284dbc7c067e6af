package flash

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"corfu/layout"
)

// R3: where pwritev2 or its flag is refused, pages are written all the same, and each write is
// durable by fdatasync. The operator reads about it once.
func TestR3RefusedFlagsAreReplacedByASync(t *testing.T) {
	defer func() { pwritev2, fdatasync = unix.Pwritev2, unix.Fdatasync }()
	for _, refused := range []unix.Errno{unix.EOPNOTSUPP, unix.ENOSYS, unix.EPERM, unix.EINVAL} {
		for _, all := range []bool{false, true} { // the flag alone, as by a file system; or the call, as by a filter
			t.Run(fmt.Sprintf("%s, all calls %v", unix.ErrnoName(refused), all), func(t *testing.T) {
				overBoth(t, func(t *testing.T, path string) {
					pwritev2 = func(fd int, iovs [][]byte, off int64, flags int) (int, error) {
						if all || flags != 0 {
							return 0, refused
						}
						return unix.Pwritev2(fd, iovs, off, flags)
					}
					var syncs atomic.Int32
					fdatasync = func(fd int) error { syncs.Add(1); return unix.Fdatasync(fd) }
					var said strings.Builder
					s, err := Open(path, 1, Options{SegmentPages: 16}, slog.New(slog.NewTextHandler(&said, nil)))
					must(t, err)
					must(t, s.UpdateMeta(func(m *Meta) { m.Log, m.Layout = LogID(testLog), testLayout(4096) }))
					for a := range layout.Address(3) {
						before := syncs.Load()
						must(t, s.Write([]Page{page(a, 1)}))
						if syncs.Load() == before {
							t.Errorf("page %d was reported durable without a sync", a)
						}
						wantPage(t, s, page(a, 1))
					}
					fdatasync = func(int) error { return unix.EIO }
					if err := s.Write([]Page{page(5, 1)}); !errors.Is(err, unix.EIO) {
						t.Errorf("a write whose sync fails: %v, want EIO", err)
					}
					fdatasync = unix.Fdatasync
					want := 1
					if g := s.find(0).file.(metered); buffered(g.File) && !all {
						want = 0 // no flag is asked for without O_DIRECT
					}
					must(t, s.Close())
					if n := strings.Count(said.String(), "is refused"); n != want {
						t.Errorf("the refusal was logged %d times, want %d: %s", n, want, said.String())
					}
				})
			})
		}
	}
}

// What is wrong with a write itself stays an error, and is not taken for a refused flag.
func TestAWriteThatIsRefusedItselfFails(t *testing.T) {
	defer func() { pwritev2, pwritev = unix.Pwritev2, unix.Pwritev }()
	s := ready(t, Options{})
	must(t, s.Write([]Page{page(0, 1)}))
	pwritev2 = func(int, [][]byte, int64, int) (int, error) { return 0, unix.EPERM }
	pwritev = func(int, [][]byte, int64) (int, error) { return 0, unix.EPERM }
	if err := s.Write([]Page{page(1, 1)}); !errors.Is(err, unix.EPERM) {
		t.Fatalf("%v, want EPERM", err)
	}
	pwritev2 = unix.Pwritev2
	must(t, s.Write([]Page{page(2, 1)}))
	if osFileOf(s.find(0).file.(metered).File).plain.Load() {
		t.Error("one refused write switched RWF_DSYNC off")
	}
}
