package pbconv

import (
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// StoreState returns the message for x.
func StoreState(x layout.StoreState) *pb.StoreState {
	return &pb.StoreState{Store: append([]byte(nil), x.Store[:]...), Start: uint64(x.Start), Reconciled: RecordRef(x.Reconciled),
		Active: RecordRef(x.Active), Changes: x.Changes, Client: uint32(x.Client), Entries: x.Entries, Singles: x.Singles,
		Kept: uint64(x.Kept)}
}

// ToStoreState returns what m describes; the zero StoreState for nil, as a unit of the release
// before answers.
func ToStoreState(m *pb.StoreState) layout.StoreState {
	x := layout.StoreState{Start: layout.StartID(m.GetStart()), Reconciled: ToRecordRef(m.GetReconciled()), Active: ToRecordRef(m.GetActive()),
		Changes: m.GetChanges(), Client: layout.ClientID(m.GetClient()), Entries: m.GetEntries(), Singles: m.GetSingles(),
		Kept: layout.Address(m.GetKept())}
	copy(x.Store[:], m.GetStore())
	return x
}

// RecordRef returns the message for r.
func RecordRef(r layout.RecordRef) *pb.RecordRef {
	return &pb.RecordRef{Epoch: uint64(r.Epoch), Id: uint64(r.ID)}
}

// ToRecordRef returns what m describes; the zero RecordRef for nil.
func ToRecordRef(m *pb.RecordRef) layout.RecordRef {
	return layout.RecordRef{Epoch: layout.Epoch(m.GetEpoch()), ID: layout.RecordID(m.GetId())}
}
