package flash

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A directory's meta has a twin, meta.tmp, of the same size. A new meta is written over the twin, synced, and the two change their names: at
// no moment is there not one that is whole, and nothing is taken from the disk. So a unit can promise (rule R14), and thereby let the
// log go on without some other unit, on a disk that is full.
//
// Both are longer than what they say: spaces behind it, which the sum covers, keep room for a layout that grows.
const (
	twinName = metaName + ".tmp"

	metaRoom    = 16 << 10 // bytes, at least
	maxMetaRoom = 16 << 20 // a twin that is larger is none
)

// roomFor is how large the file of a meta of n bytes is to be.
func roomFor(n int) int {
	room := metaRoom
	for room < 2*n {
		room *= 2
	}
	return room
}

// padded is the same meta in n bytes, or as it is if it is longer.
func padded(b []byte, n int) []byte {
	line, body, found := bytes.Cut(b, []byte{'\n'})
	if !found || len(b) >= n {
		return b
	}
	body = append(bytes.Clone(body), bytes.Repeat([]byte{' '}, n-len(b)-1)...)
	body = append(body, '\n')
	return append(fmt.Appendf(nil, metaFormat, versionOfMeta(line), crc32.Checksum(body, castagnoli)), body...)
}

func (v *directory) saveMeta(b []byte) error {
	if err := v.putMeta(b); err != nil {
		return fmt.Errorf("flash: meta: %w", err)
	}
	return nil
}

func (v *directory) putMeta(b []byte) error {
	meta, twin := filepath.Join(v.dir, metaName), filepath.Join(v.dir, twinName)
	if !v.named {
		// A crash may have come between the change of names and its sync: the file that is the twin now may be the meta after a power cut.
		if err := v.sync(); err != nil {
			return err
		}
		v.named = true
	}
	size := int64(roomFor(len(b)))
	if st, err := os.Stat(twin); err == nil && st.Size() >= int64(len(b)) && st.Size() <= maxMetaRoom {
		size = st.Size()
	}
	if err := writeOver(twin, padded(b, int(size)), !v.how.nosync); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, twin, unix.AT_FDCWD, meta, unix.RENAME_EXCHANGE)
	if err != nil {
		// There is no meta yet, or the file system cannot: then the next one needs room on the disk.
		if err = os.Rename(twin, meta); err != nil {
			return err
		}
	}
	if err := v.sync(); err != nil {
		v.named = false
		return err
	}
	if _, err := os.Stat(twin); errors.Is(err, os.ErrNotExist) {
		// Where there is no room for a twin there is none, until the next save finds some.
		if writeOver(twin, padded(b, int(size)), false) != nil {
			_ = os.Remove(twin)
		}
	}
	return nil
}

// writeOver makes the file hold b, in the blocks that it has as far as they go.
func writeOver(path string, b []byte, sync bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Truncate(int64(len(b)))
	}
	if err == nil && sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
