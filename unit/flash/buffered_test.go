package flash

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// R3: Linux tells a failed write-back to the next fdatasync of an open file, and not again (errseq_t, Documentation/core-api/errseq.rst). So where there is no O_DIRECT
// the sync of another batch must not take the error of this one, which would then pass for durable.
func TestR3BufferedWritesDoNotTakeEachOthersErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "segment")
	must(t, os.WriteFile(path, make([]byte, 2*4096), 0o600))
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	f := &osFile{f: file, fd: int(file.Fd())} // as on a file system that knows no O_DIRECT
	defer func() { must(t, f.Close()) }()

	const lost = 0 // the page that the disk does not take
	var mu sync.Mutex
	dirty := map[int64]bool{}
	wrote, synced := make(chan struct{}), make(chan struct{})
	pwritev2 = func(fd int, iovs [][]byte, off int64, flags int) (int, error) {
		mu.Lock()
		dirty[off] = true
		mu.Unlock()
		if off == lost {
			close(wrote)
			select { // the other batch overtakes this one, if it may
			case <-synced:
			case <-time.After(100 * time.Millisecond):
			}
		}
		return unix.Pwritev2(fd, iovs, off, flags)
	}
	first := sync.OnceFunc(func() { close(synced) })
	fdatasync = func(int) error {
		mu.Lock()
		defer mu.Unlock()
		defer first()
		bad := dirty[lost]
		clear(dirty)
		if bad {
			return unix.EIO
		}
		return nil
	}
	defer func() { pwritev2, fdatasync = unix.Pwritev2, unix.Fdatasync }()

	other := make(chan error, 1)
	go func() {
		<-wrote
		other <- f.Write([][]byte{alignedBytes(4096)}, 4096, true)
	}()
	if err := f.Write([][]byte{alignedBytes(4096)}, lost, true); !errors.Is(err, unix.EIO) {
		t.Errorf("a page that is not on flash: %v; the other batch got %v", err, <-other)
		return
	}
	must(t, <-other)
}
