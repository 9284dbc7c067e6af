package wire

import (
	"encoding/binary"

	"corfu/layout"
)

// Control messages, on connections that carry nothing else (internal/messages). Each asker has one request of a kind
// outstanding. All are at most 64 bytes: they go inline, from no registered memory.
//
//	Seal       48: type, wants, 0×2, request:4, log id:16, epoch, base, base's id  layout leader → unit, sequencer
//	Sealed     48: type, status, 0×2, request:4, promise, intact, watermark, end, trimmed below
//	SealedStore 64: type, 0×3, request:4, store:16, start, reconciled's id, active's id, epochs 5 + 5, changes:6
//	GetLayout  24: type, 0×3, request:4, known epoch, offset:4, 0×4              client → unit
//	LayoutPart 64: type, status, n, 0, request:4, epoch, total:4, offset:4, 40 bytes, the first n of the encoded layout
const (
	msgSeal = iota + msgReply + 1
	msgSealed
	msgGetLayout
	msgLayoutPart
	msgSealedStore
	msgReadRun // of sessions, as those that follow: message.go
	msgSubscribe
	msgProgress
	msgEnd // the first type that is none

	sealSize       = 48
	getLayoutSize  = 24
	layoutPartSize = 64

	sealedStoreSize = 64
)

// PartBytes is how much of a layout one LayoutPart carries, in bytes.
const PartBytes = 40

// PartsAtOnce is how many parts a GetLayout is answered with at most: as many receive buffers the asker needs for it.
const PartsAtOnce = 8

// Seal is pb.SealRequest as a message: promise to serve no epoch below Epoch (rules R14, R15). Who may send it is decided where the
// connection was asked for.
type Seal struct {
	Request     RequestID
	Log         layout.LogID
	Epoch, Base layout.Epoch
	BaseID      layout.RecordID
	Store       bool // a SealedStore is wanted before the Sealed; a unit of the release before sends none
}

// Sealed answers a Seal. It is all of the snapshot that a seal is answered with: what stands above the watermark is asked for
// by pb.UnitService.Entries. A sequencer answers with zeros.
type Sealed struct {
	Request RequestID
	Status  Status       // StatusOK, StatusPromised, StatusOtherLog, StatusIO, StatusBadQuery
	Promise layout.Epoch // with StatusPromised: the epoch to go beyond

	Intact                       layout.Epoch
	Watermark, End, TrimmedBelow layout.Address
}

// SealedStore goes before a Sealed that says StatusOK, where the Seal wants it: what the unit says of its store (rules R21 to R25). The
// client id of a StoreState does not travel, and whether there are entries the Sealed says.
type SealedStore struct {
	Request RequestID
	Store   layout.StoreState
}

// maxChanges is the most that a SealedStore can say: 48 bits.
const maxChanges = 1<<48 - 1

// GetLayout asks for the layout of the newest epoch that the unit knows to be ACTIVE, from byte Offset on, if it is above Known.
type GetLayout struct {
	Request RequestID
	Known   layout.Epoch
	Offset  uint32
}

// LayoutPart answers a GetLayout: bytes Offset to Offset+N-1 of the Total that layout.Encode gives of the layout of Epoch. With
// StatusNotNewer there are none: Epoch is what the unit knows, 0 for nothing.
type LayoutPart struct {
	Request       RequestID
	Status        Status // StatusOK, StatusNotNewer, StatusBadQuery
	Epoch         layout.Epoch
	Total, Offset uint32
	N             uint8
	Data          [PartBytes]byte
}

func (Seal) isMessage()        {}
func (Sealed) isMessage()      {}
func (SealedStore) isMessage() {}
func (GetLayout) isMessage()   {}
func (LayoutPart) isMessage()  {}

// Append encodes the message behind b.
func (m Seal) Append(b []byte) []byte {
	le := binary.LittleEndian
	var wants byte
	if m.Store {
		wants = 1
	}
	b = le.AppendUint32(append(b, msgSeal, wants, 0, 0), uint32(m.Request))
	b = le.AppendUint64(append(b, m.Log[:]...), uint64(m.Epoch))
	return le.AppendUint64(le.AppendUint64(b, uint64(m.Base)), uint64(m.BaseID))
}

// Append encodes the message behind b.
func (m SealedStore) Append(b []byte) []byte {
	le, x := binary.LittleEndian, m.Store
	b = le.AppendUint32(append(b, msgSealedStore, 0, 0, 0), uint32(m.Request))
	b = le.AppendUint64(append(b, x.Store[:]...), uint64(x.Start))
	b = le.AppendUint64(le.AppendUint64(b, uint64(x.Reconciled.ID)), uint64(x.Active.ID))
	for _, e := range [...]layout.Epoch{x.Reconciled.Epoch, x.Active.Epoch} {
		b = append(le.AppendUint32(b, uint32(e)), byte(e>>32))
	}
	n := min(x.Changes, maxChanges)
	return le.AppendUint16(le.AppendUint32(b, uint32(n)), uint16(n>>32))
}

// Append encodes the message behind b.
func (m Sealed) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(append(b, msgSealed, byte(m.Status), 0, 0), uint32(m.Request))
	for _, x := range [...]uint64{uint64(m.Promise), uint64(m.Intact), uint64(m.Watermark), uint64(m.End), uint64(m.TrimmedBelow)} {
		b = le.AppendUint64(b, x)
	}
	return b
}

// Append encodes the message behind b.
func (m GetLayout) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(append(b, msgGetLayout, 0, 0, 0), uint32(m.Request))
	return append(le.AppendUint32(le.AppendUint64(b, uint64(m.Known)), m.Offset), 0, 0, 0, 0)
}

// Append encodes the message behind b.
func (m LayoutPart) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(append(b, msgLayoutPart, byte(m.Status), m.N, 0), uint32(m.Request))
	b = le.AppendUint32(le.AppendUint64(b, uint64(m.Epoch)), m.Total)
	return append(le.AppendUint32(b, m.Offset), m.Data[:]...)
}

// controlSize is the size of a control message of the type; 0 if it is none.
func controlSize(typ byte) int {
	switch typ {
	case msgSeal, msgSealed:
		return sealSize
	case msgGetLayout:
		return getLayoutSize
	case msgLayoutPart:
		return layoutPartSize
	case msgSealedStore:
		return sealedStoreSize
	}
	return 0
}

// decodeControl decodes b, whose size is right; nil if it makes no sense.
func decodeControl(b []byte, req RequestID) Message {
	le := binary.LittleEndian
	word := func(i int) uint64 { return le.Uint64(b[i:]) }
	switch b[0] {
	case msgSeal:
		return Seal{Request: req, Log: layout.LogID(b[8:24]), Epoch: layout.Epoch(word(24)), Base: layout.Epoch(word(32)),
			BaseID: layout.RecordID(word(40)), Store: b[1]&1 != 0}
	case msgSealedStore:
		epoch := func(i int) layout.Epoch { return layout.Epoch(le.Uint32(b[i:])) | layout.Epoch(b[i+4])<<32 }
		return SealedStore{Request: req, Store: layout.StoreState{Store: layout.StoreID(b[8:24]), Start: layout.StartID(word(24)),
			Reconciled: layout.RecordRef{Epoch: epoch(48), ID: layout.RecordID(word(32))},
			Active:     layout.RecordRef{Epoch: epoch(53), ID: layout.RecordID(word(40))},
			Changes:    uint64(le.Uint32(b[58:])) | uint64(le.Uint16(b[62:]))<<32}}
	case msgSealed:
		return Sealed{Request: req, Status: Status(b[1]), Promise: layout.Epoch(word(8)), Intact: layout.Epoch(word(16)),
			Watermark: layout.Address(word(24)), End: layout.Address(word(32)), TrimmedBelow: layout.Address(word(40))}
	case msgGetLayout:
		return GetLayout{Request: req, Known: layout.Epoch(word(8)), Offset: le.Uint32(b[16:])}
	case msgLayoutPart:
		if b[2] > PartBytes {
			return nil
		}
		return LayoutPart{Request: req, Status: Status(b[1]), N: b[2], Epoch: layout.Epoch(word(8)),
			Total: le.Uint32(b[16:]), Offset: le.Uint32(b[20:]), Data: [PartBytes]byte(b[24:])}
	}
	return nil
}
