package server

import (
	"crypto/rand"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

// fakeStore is what a fake keeps by rules R21 to R25. Another one is another volume.
type fakeStore struct {
	id         layout.StoreID
	reconciled layout.RecordRef
	active     layout.RecordRef
	entries    map[uint64]*pb.Entry
	changes    uint64 // single trims
}

func newStore() fakeStore {
	s := fakeStore{entries: map[uint64]*pb.Entry{}}
	_, _ = rand.Read(s.id[:]) // it never fails (crypto/rand)
	return s
}

// past is what the unit says of its store. mu is held.
func (u *fakeUnit) past() *pb.StoreState {
	return pbconv.StoreState(layout.StoreState{Store: u.store.id, Start: u.begun, Reconciled: u.store.reconciled, Active: u.store.active,
		Changes: uint64(len(u.entries)) + u.store.changes, Entries: len(u.entries) > 0})
}

// checkStart refuses orders that do not name this start (rule R24).
func (u *fakeUnit) checkStart(start uint64) error {
	if layout.StartID(start) != u.begun {
		return refuse("start %d, not %d", u.begun, start)
	}
	return nil
}

// sealedOver notes the record of the base (rule R25). mu is held.
func (u *fakeUnit) sealedOver(epoch, id uint64) {
	if base := (layout.RecordRef{Epoch: layout.Epoch(epoch), ID: layout.RecordID(id)}); base.Epoch > u.store.active.Epoch {
		u.store.active = base
	}
}

// copied is a copy of the store as it is.
func (u *fakeUnit) copied() fakeStore {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.store
	s.entries = map[uint64]*pb.Entry{}
	for a, e := range u.entries {
		s.entries[a] = e
	}
	return s
}

// crashed ends the unit and starts it on another store.
func (u *fakeUnit) crashed(on fakeStore) {
	u.die()
	u.mu.Lock()
	u.store, u.entries = on, on.entries
	u.mu.Unlock()
	u.restart()
}

// watched is how often the unit was wiped, and what it holds.
func (u *fakeUnit) watched() (wipes, entries int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.wipes, len(u.entries)
}

var errRefusedOnce = status.Error(codes.Internal, "once")
