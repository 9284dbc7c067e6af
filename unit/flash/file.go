package flash

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// File is one open segment. Tests put faults in front of it with Options.Wrap.
type File interface {
	// Write writes bufs one behind the other at off. With sync all of it is on stable storage when it returns.
	Write(bufs [][]byte, off int64, sync bool) error
	// Sync brings everything written before to stable storage.
	Sync() error
	// Read fills b from off; what lies beyond the end of the file is zero.
	Read(b []byte, off int64) error
	// Punch gives the space of n bytes from off back, where the volume can; what they hold then does not matter.
	Punch(off, n int64) error
	// Used is what the file takes of the volume, in bytes.
	Used() (int64, error)
	Close() error
}

// align is what O_DIRECT asks of addresses and offsets, in bytes: more than any device's sector.
const align = 4096

// osFile is a File of the operating system.
type osFile struct {
	f      *os.File
	fd     int
	direct bool
	nosync bool // test control: nothing is brought to stable storage

	// plain: the kernel, its file system or a filter of system calls refuses RWF_DSYNC or pwritev2. Writes go without it, then.
	plain atomic.Bool

	turn sync.Mutex // of writes and syncs where fdatasync makes writes durable
}

// openFile opens path with flags.
func openFile(path string, flags int, nosync bool) (f *osFile, err error) {
	f = &osFile{direct: true, nosync: nosync}
	f.f, err = os.OpenFile(path, flags|unix.O_DIRECT, 0o600)
	if errors.Is(err, unix.EINVAL) {
		// tmpfs and others know no O_DIRECT.
		f.direct = false
		f.f, err = os.OpenFile(path, flags, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("flash: %w", err)
	}
	f.fd = int(f.f.Fd())
	return f, nil
}

// allocate gives the file its size, with blocks behind it where the file system can: no write needs new ones.
func (f *osFile) allocate(size int64) error {
	err := f.fallocate(0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		err = f.f.Truncate(size)
	}
	if err != nil {
		return fmt.Errorf("allocate %d bytes: %w", size, err)
	}
	if f.nosync {
		return nil
	}
	return f.f.Sync()
}

func (f *osFile) Write(bufs [][]byte, off int64, durable bool) error {
	if !f.plain.Load() {
		wrote, err := f.writeFlagged(bufs, off, durable)
		if wrote > 0 || !refusesFlags(err) {
			return err
		}
	}
	err := f.writePlain(bufs, off)
	if err == nil { // else the write itself is refused, and not the way that it went
		f.plain.Store(true)
	}
	return err
}

// writeFlagged writes with pwritev2, and makes it durable by RWF_DSYNC where there is O_DIRECT.
func (f *osFile) writeFlagged(bufs [][]byte, off int64, durable bool) (wrote int, err error) {
	flags := 0
	switch {
	case f.nosync:
	case !f.direct:
		// An error of the page cache is reported to the next sync of the file, whichever write that belongs to, and once: no write
		// may lie there unsynced while another one's sync can come (rule R3).
		f.turn.Lock()
		defer f.turn.Unlock()
	case durable:
		flags = unix.RWF_DSYNC
	}
	wrote, err = f.writeAll(bufs, off, func(part [][]byte, off int64) (int, error) { return pwritev2(f.fd, part, off, flags) })
	if err == nil && !f.direct {
		err = f.sync()
	}
	return wrote, err
}

// flagged reports whether durable writes go with RWF_DSYNC, and need no turn.
func (f *osFile) flagged() bool { return f.direct && !f.plain.Load() }

// refusesFlags reports whether err is how pwritev2 refuses RWF_DSYNC, or the whole call (pwritev2(2), ERRORS): EOPNOTSUPP by the file system,
// ENOSYS by a kernel or a sandbox that does not know it, EPERM by a seccomp filter (seccomp(2), SECCOMP_RET_ERRNO), EINVAL by a kernel
// that knows the call and not the flag. A write that is wrong in itself fails without the flag as well.
func refusesFlags(err error) bool {
	for _, e := range []error{unix.EOPNOTSUPP, unix.ENOSYS, unix.EPERM, unix.EINVAL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// writePlain writes with pwritev, and makes every write durable with fdatasync, as where there is no O_DIRECT.
func (f *osFile) writePlain(bufs [][]byte, off int64) error {
	f.turn.Lock()
	defer f.turn.Unlock()
	_, err := f.writeAll(bufs, off, func(part [][]byte, off int64) (int, error) { return pwritev(f.fd, part, off) })
	if err == nil {
		err = f.sync()
	}
	return err
}

// writeAll writes bufs one behind the other at off, in as many calls as that takes, and returns how many bytes were written.
func (f *osFile) writeAll(bufs [][]byte, off int64, call func([][]byte, int64) (int, error)) (wrote int, err error) {
	for len(bufs) > 0 {
		n, err := call(bufs[:min(len(bufs), maxIOV)], off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return wrote, fmt.Errorf("flash: write %s at %d: %w", f.f.Name(), off, err)
		}
		// A short write is taken up where it ended; O_DIRECT wants whole blocks.
		if n -= n % align; n == 0 {
			return wrote, fmt.Errorf("flash: write %s at %d: %w", f.f.Name(), off, io.ErrShortWrite)
		}
		off += int64(n)
		wrote += n
		bufs = skip(bufs, n)
	}
	return wrote, nil
}

// fallocate goes on after a signal (fallocate(2), EINTR), such as those with which Go's runtime stops its threads: or it would look as if the disk
// were full.
func (f *osFile) fallocate(mode uint32, off, n int64) error {
	for {
		if err := fallocate(f.fd, mode, off, n); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// settle sees to it that what can be read of a file that was there before is on the disk, before anybody takes it for durable (rule R3). A process
// that was killed between a write and its sync leaves pages in the page cache, or in the drive's. And pages that could not be written stand in the
// page cache as if they had been (fsync(2), NOTES): what remains there is dropped (posix_fadvise(2), POSIX_FADV_DONTNEED).
func (f *osFile) settle() error {
	err := f.Sync()
	if !f.direct && !f.nosync {
		err = errors.Join(err, fadvise(f.fd, 0, 0, unix.FADV_DONTNEED))
	}
	if err != nil {
		return fmt.Errorf("flash: %s: %w", f.f.Name(), err)
	}
	return nil
}

// System calls; tests put others in their place.
var (
	pwritev   = unix.Pwritev
	pwritev2  = unix.Pwritev2
	fdatasync = unix.Fdatasync
	fallocate = unix.Fallocate
	fadvise   = unix.Fadvise
)

// maxIOV is IOV_MAX of Linux, the longest list that one call takes.
const maxIOV = 1024

// skip drops the first n bytes of bufs.
func skip(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

func (f *osFile) Sync() error {
	if !f.flagged() {
		f.turn.Lock()
		defer f.turn.Unlock()
	}
	return f.sync()
}

func (f *osFile) sync() error {
	if f.nosync {
		return nil
	}
	for {
		err := fdatasync(f.fd)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("flash: sync %s: %w", f.f.Name(), err)
		}
		return nil
	}
}

func (f *osFile) Read(b []byte, off int64) error {
	n, err := f.f.ReadAt(b, off)
	if err == io.EOF {
		clear(b[n:])
		err = nil
	}
	if err != nil {
		return fmt.Errorf("flash: %w", err)
	}
	return nil
}

// Punch implements File.
func (f *osFile) Punch(off, n int64) error {
	if err := f.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n); err != nil {
		return fmt.Errorf("flash: give back %d bytes of %s at %d: %w", n, f.f.Name(), off, err)
	}
	return nil
}

// Used implements File.
func (f *osFile) Used() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, fmt.Errorf("flash: %s: %w", f.f.Name(), err)
	}
	return st.Blocks * statBlock, nil
}

func (f *osFile) Close() error { return f.f.Close() }
