package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"corfu/internal/boltfile"
	"corfu/layout"
)

const (
	raftFile      = "raft.db"
	snapshotsDir  = "snapshots" // as hashicorp/raft names it
	lockPatience  = time.Second
	lockPollEvery = 20 * time.Millisecond
)

var (
	// ErrDamaged: what the layout server keeps in its directory cannot be used. Nothing was
	// changed. Damage is not emptiness: a server that began anew would have forgotten its votes and
	// what it confirmed.
	ErrDamaged = errors.New("damaged")
	// ErrRunning: another process has the store open.
	ErrRunning = errors.New("another process has it open: is another layout server running there?")
)

// damage says which file is damaged, and what the operator may do.
func damage(path, why string, alone bool) error {
	todo := "move the directory away and start this server with an empty one: the other layout servers fill it"
	if alone {
		todo = "put back a copy of the whole directory that was made while this server was stopped; docs/operations.md says what to do without one"
	}
	return fmt.Errorf("%s is %w: %s. Nothing was changed. To go on, %s", path, ErrDamaged, why, todo)
}

// inspect looks at what stands in the directory before anything opens it. fresh: nothing does.
func inspect(cfg Config) (fresh bool, err error) {
	path := filepath.Join(cfg.Dir, raftFile)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(cfg.Dir, snapshotsDir)); err == nil { // it is made after the file
			return false, damage(path, "it is missing, though the directory of the snapshots beside it is there", cfg.alone())
		}
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := lock(f); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	// One that was killed between a write and its sync leaves a vote or entries in a cache: they
	// count as stored from here on, and must not be gone after a power cut.
	if err := f.Sync(); err != nil {
		return false, err
	}
	if err := boltfile.Check(path); errors.Is(err, boltfile.ErrDamaged) {
		return false, damage(path, strings.TrimPrefix(err.Error(), boltfile.ErrDamaged.Error()+": "), cfg.alone())
	} else if err != nil {
		return false, err
	}
	return false, nil // closing gives the lock back, for bbolt to take
}

// lock takes the lock that bbolt takes, or fails with ErrRunning.
func lock(f *os.File) error {
	for end := time.Now().Add(lockPatience); ; time.Sleep(lockPollEvery) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("lock: %w", err)
		case time.Now().After(end):
			return ErrRunning
		}
	}
}

// contents is what was found in a store.
type contents struct {
	holds bool         // anything at all
	log   layout.LogID // of the log, if anything says so that cannot be taken back; zero: nothing does
}

// examine reads the whole store once: what cannot be read now would end the server later, in the
// middle of its work.
func examine(store logStore, snaps raft.SnapshotStore, path string, alone bool) (c contents, err error) {
	bad := func(format string, args ...any) error { return damage(path, fmt.Sprintf(format, args...), alone) }
	first, err := store.FirstIndex()
	if err != nil {
		return c, bad("%v", err)
	}
	last, err := store.LastIndex()
	if err != nil {
		return c, bad("%v", err)
	}
	term, err := store.GetUint64([]byte("CurrentTerm")) // hashicorp/raft's key
	if err != nil && err.Error() != errNotFound {
		return c, bad("%v", err)
	}
	_, unknown := store.Get(identityKey)
	snapshot, err := newestSnapshot(snaps)
	if err != nil {
		return c, err
	}
	c.holds = last > 0 || term > 0
	switch {
	case snapshot.found && !c.holds && unknown != nil:
		return c, bad("it holds nothing, though there are snapshots beside it")
	case snapshot.listed && !snapshot.found:
		return c, damage(filepath.Join(filepath.Dir(path), snapshotsDir), "no snapshot can be read", alone)
	case last > 0 && first > snapshot.index+1:
		return c, bad("it begins with entry %d, and the newest snapshot that can be read ends with %d", first, snapshot.index)
	}
	c.log = snapshot.log
	for i := first; i <= last && last > 0; i++ {
		var l raft.Log
		if err := store.GetLog(i, &l); errors.Is(err, raft.ErrLogNotFound) && i <= snapshot.index {
			continue // the snapshot came from another server, and took its place
		} else if err != nil {
			return c, bad("entry %d cannot be read: %v", i, err)
		}
		if l.Index != i {
			return c, bad("entry %d says that it is %d", i, l.Index)
		}
		if l.Type != raft.LogCommand {
			continue
		}
		command, err := layout.DecodeCommand(l.Data)
		if err != nil {
			return c, bad("entry %d cannot be understood, by this release at least: %v", i, err)
		}
		// A leader proposes an epoch only once the founding of the log was committed.
		if p, ok := command.(layout.Propose); ok && p.Layout != nil {
			c.log = p.Layout.Log
		}
	}
	return c, nil
}

// snapshotFound is the newest snapshot that can be read.
type snapshotFound struct {
	listed, found bool
	index         uint64
	log           layout.LogID
}

func newestSnapshot(snaps raft.SnapshotStore) (s snapshotFound, err error) {
	list, err := snaps.List()
	if err != nil {
		return s, err
	}
	for _, m := range list {
		s.listed = true
		f := newFSM()
		_, r, err := snaps.Open(m.ID) // it verifies the checksum
		if err != nil || f.Restore(r) != nil {
			continue
		}
		s.found, s.index = true, m.Index
		if l := f.state.Founding(); l != nil {
			s.log = l.Log
		}
		return s, nil
	}
	return s, nil
}
