package flash

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openBlock opens a block device for this process alone (open(2), O_EXCL: the kernel refuses one that is mounted, or that
// another process has opened so), or a regular file, under a lock. It tells its size. It fails with ErrLocked.
func openBlock(path string, how access) (f *osFile, size int64, err error) {
	flags := os.O_RDWR
	if how.readonly {
		flags = os.O_RDONLY
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, 0, fmt.Errorf("flash: %w", err)
	}
	block := st.Mode()&os.ModeDevice != 0
	if block {
		flags |= unix.O_EXCL
	}
	f, err = openFile(path, flags, how.nosync)
	if errors.Is(err, unix.EBUSY) {
		return nil, 0, fmt.Errorf("flash: %s: mounted, or %w", path, ErrLocked)
	}
	if err != nil {
		return nil, 0, err
	}
	if block {
		size, err = sizeOfBlock(f)
	} else {
		size = st.Size()
		if unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
			err = ErrLocked
		}
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("flash: %s: %w", path, err), f.Close())
	}
	return f, size, nil
}

// sizeOfBlock tells the bytes of a block device (BLKGETSIZE64), and fails if its blocks are larger than what the store writes at least.
func sizeOfBlock(f *osFile) (int64, error) {
	sector, err := unix.IoctlGetInt(f.fd, unix.BLKSSZGET)
	if err != nil {
		return 0, fmt.Errorf("size of a block: %w", err)
	}
	if sector > align {
		return 0, fmt.Errorf("blocks of %d bytes: must be %d or less", sector, align)
	}
	var size uint64
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size))); e != 0 {
		return 0, fmt.Errorf("size: %w", e)
	}
	return int64(size), nil
}

// blockRange is an ioctl on n bytes from off on (linux/fs.h: BLKZEROOUT, BLKDISCARD).
func blockRange(f *osFile, request uintptr, off, n int64) error {
	r := [2]uint64{uint64(off), uint64(n)}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), request, uintptr(unsafe.Pointer(&r))); e != 0 {
		return e
	}
	return nil
}

// zeroPiece is how much is zeroed at once, so that others get their turn in between.
const zeroPiece = 8 << 20

// zeroBlocks makes n bytes from off on zero, durably. The drive, or the file system under a file, may have a way to do so without being
// sent the zeros; else the kernel sends them, or this does.
func zeroBlocks(f *osFile, off, n int64) error {
	var zeros []byte
	for end := off + n; off < end; off += zeroPiece {
		piece := min(zeroPiece, end-off)
		if zeros == nil {
			if blockRange(f, unix.BLKZEROOUT, off, piece) == nil || f.fallocate(unix.FALLOC_FL_ZERO_RANGE, off, piece) == nil {
				continue
			}
			zeros = alignedBytes(int(min(zeroPiece, n)))
		}
		if err := f.Write([][]byte{zeros[:piece]}, off, false); err != nil {
			return err
		}
	}
	return f.Sync()
}

// discardBlocks tells the drive that n bytes from off on are of no use any more.
func discardBlocks(f *osFile, off, n int64) {
	_ = blockRange(f, unix.BLKDISCARD, off, n)
}

// osFileOf returns the file of the operating system under f, or nil.
func osFileOf(f File) *osFile {
	switch x := f.(type) {
	case *osFile:
		return x
	case *section:
		return x.f
	}
	return nil
}

// buffered reports whether f goes through the page cache.
func buffered(f File) bool {
	o := osFileOf(f)
	return o != nil && !o.direct
}

// signatures are what other owners of a device write to it.
var signatures = []struct {
	at    int64
	bytes string
	what  string
}{
	{1080, "\x53\xef", "an ext2, ext3 or ext4 file system"},
	{align, magicMeta, "what is left of a unit's store without its superblock"},
	{0, "XFSB", "an xfs file system"},
	{65600, "_BHRfS_M", "a btrfs file system"},
	{1024, "\x10\x20\xf5\xf2", "an f2fs file system"},
	{512, "LABELONE", "an LVM volume"},
	{0, "LUKS\xba\xbe", "a LUKS volume"},
	{4086, "SWAPSPACE2", "swap space"},
	{4096, "\xfc\x4e\x2b\xa9", "a member of an md array"},
	{0, "\xfc\x4e\x2b\xa9", "a member of an md array"},
	{0, "bluestore block device", "a Ceph OSD"},
	{512, "EFI PART", "a partition table"},
	{4096, "EFI PART", "a partition table"},
	{510, "\x55\xaa", "a partition table, or a boot sector"},
}

const (
	lookFirst = 4 << 20 // of a device's beginning
	lookLast  = 1 << 20 // and of its end, where some put their mark
)

// foreign tells what a device holds that has no superblock of ours; "": nothing. It looks at the beginning and the end.
func foreign(f *osFile, size int64) (string, error) {
	first := alignedBytes(int(min(lookFirst, size/align*align)))
	if err := f.Read(first, 0); err != nil {
		return "", err
	}
	for _, s := range signatures {
		if end := s.at + int64(len(s.bytes)); end <= int64(len(first)) && string(first[s.at:end]) == s.bytes {
			return s.what, nil
		}
	}
	if !zeroBytesOnly(first) {
		return "data in its first blocks", nil
	}
	last := alignedBytes(int(min(lookLast, size/align*align)))
	if err := f.Read(last, size/align*align-int64(len(last))); err != nil {
		return "", err
	}
	if !zeroBytesOnly(last) {
		return "data in its last blocks", nil
	}
	return "", nil
}
