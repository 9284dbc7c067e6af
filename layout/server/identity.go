package server

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"corfu/layout"
)

// clusterID names a group of layout servers. It is drawn once, when they agree that all of them are
// empty; a group that an older release founded has none.
type clusterID [16]byte

func (c clusterID) String() string { return hex.EncodeToString(c[:]) }

func newClusterID() (c clusterID) {
	_, _ = rand.Read(c[:]) // it never fails (crypto/rand)
	return c
}

// standing says what a store may do in Raft. A store begins empty, and whatever it held before,
// such as a vote or an entry that this server confirmed, is forgotten. So it has no say until the
// others have taken its vote away, brought it up to date and given the vote back.
type standing string

const (
	standsEmpty    standing = "empty"    // nothing was ever written: it answers nothing, and waits
	standsLearning standing = "learning" // the leader fills it, as a server without a vote
	standsMember   standing = "member"   // it votes
)

// identity is what a store says of itself. It stands in the same file as Raft's log, so that it is
// lost only with the log.
type identity struct {
	Incarnation string       `json:"incarnation"` // drawn when the store was made: a store that was lost comes back as another
	Standing    standing     `json:"standing"`
	Cluster     clusterID    `json:"cluster"` // zero: not known, or of an older release
	Log         layout.LogID `json:"log"`     // zero: not known yet
	Without     uint64       `json:"without"` // index of the configuration in which a learning server has no vote
}

// identityKey is where the identity stands in Raft's stable store.
var identityKey = []byte("corfu/identity")

// register holds the identity, in memory and durably.
type register struct {
	store raft.StableStore

	mu      sync.Mutex // held while it is changed, which a disk may take long for
	now     atomic.Pointer[identity]
	changed func(identity) // called with mu held, after each change
}

// readIdentity reads what stands in the store, or makes it: a store that holds anything of an older
// release is a member's.
func readIdentity(store raft.StableStore, holds bool, log layout.LogID) (*register, error) {
	r := &register{store: store, changed: func(identity) {}}
	r.now.Store(&identity{})
	b, err := store.Get(identityKey)
	if err == nil && len(b) > 0 {
		var id identity
		if err := json.Unmarshal(b, &id); err != nil {
			return nil, fmt.Errorf("its identity cannot be read: %w", err)
		}
		r.now.Store(&id)
		return r, nil
	}
	if err != nil && err.Error() != errNotFound {
		return nil, err
	}
	id := identity{Incarnation: rand.Text(), Standing: standsEmpty, Log: log}
	if holds {
		id.Standing = standsMember
	}
	return r, r.set(func(i *identity) { *i = id })
}

// errNotFound is the text of the error with which a raft.StableStore says that it has no such key:
// hashicorp/raft compares it, too.
const errNotFound = "not found"

func (r *register) get() identity { return *r.now.Load() }

// set changes the identity, durably before anybody sees it.
func (r *register) set(change func(*identity)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.get()
	change(&id)
	if id == r.get() {
		return nil
	}
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	if err := r.store.Set(identityKey, b); err != nil {
		return fmt.Errorf("note who this layout server is: %w", err)
	}
	r.now.Store(&id)
	r.changed(id)
	return nil
}

// member reports whether this server has a vote.
func (i identity) member() bool { return i.Standing == standsMember }
