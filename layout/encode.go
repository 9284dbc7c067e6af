package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Commands and snapshots as Raft carries and stores them. Little-endian; a string and a list stand behind their length (u32).
// The first byte is the format version, the second says what it is:
//
//	Found       1: layout
//	Propose     2: owner u64, base u64, layout
//	Decide      3: epoch u64, owner u64, verdict u8
//	AbortBelow  4: epoch u64
//	NewClient   5
//	alone       6: layout
//	Begin       8: epoch u64
//	Note        7: epoch u64, n × (unit u32, epoch u64, record u64, changes u64)
//	LeaseClients 9: count u32, above u32
//	Recover    10: layout, identity, n × (epoch u64, record u64, active u8), attempted u64, clients u32
//	snapshot   16: clients u32, latest u64, decided u64, founded u8 [layout], n u32, n × record, by ascending epochs, and what version 4 knows:
//	               n × (epoch u64, record u64, active u8), attempted u64, loss u64, n × (unit u32, epoch u64, record u64, changes u64),
//	               n × (unit u32, from u64, below u64, position u64, base epoch u64, identity, n × (unit u32, epoch u64, record u64, changes u64))
//	record         epoch u64, owner u64, base u64, verdict u8, proposed u8 [layout], and, in version 4, identity
//	identity       record u64, accepted loss u8, stores n × (unit u32, store [16]), left n × (unit u32, from u64, below u64)
//	layout         log [16], epoch u64, page size u32, window u32, slots u32, sessions u32, durability u8, start u64,
//	               sequencer u32 string, units n × (u32 string), segments n × (start u64, chains n × (base u64, units n × u32)),
//	               spares n × (u32 string), standbys n × (u32 string), leaving n × (u32 u32); version 1 ends with the segments,
//	               version 2 with the standbys
//
// Version 4 knows record and store ids: Propose ends with an identity. What names none is written as version 3, so that a layout
// server of the release before reads it (docs/upgrade.md). Version 5 is version 4 with a layout of which max sessions is not the founding
// layout's: a release before would refuse the record, and so have another state than the others.
const (
	formatVersion = 5
	formatStores  = 4
	formatPlain   = 3
)

const (
	codeFound = iota + 1
	codePropose
	codeDecide
	codeAbortBelow
	codeNewClient
	codeAlone
	codeNote
	codeBegin
	codeLeaseClients
	codeRecover
	codeSnapshot = 16
)

// ErrFormat: the bytes are no command or snapshot that this build can read.
var ErrFormat = errors.New("not a valid command or snapshot of the layout store")

var le = binary.LittleEndian

// EncodeCommand gives the bytes that DecodeCommand reads.
func EncodeCommand(c Command) []byte { return c.appendTo([]byte{versionOf(c)}) }

// versionOf returns the lowest version that has all that the command says.
func versionOf(c Command) byte {
	switch c := c.(type) {
	case Propose:
		switch {
		case c.Resized:
			return formatVersion
		case c.ID != 0:
			return formatStores
		}
	case Note, Begin, Recover:
		return formatStores
	}
	return formatPlain
}

// Encode gives the bytes that Decode reads: one layout, as it travels in messages.
func Encode(l *Layout) []byte { return appendLayout([]byte{formatPlain, codeAlone}, l) }

// Decode fails with ErrFormat, and with what Validate finds.
func Decode(b []byte) (*Layout, error) {
	d := &decoder{b: b}
	if d.start() != codeAlone {
		return nil, ErrFormat
	}
	l := d.layout()
	if err := d.end(); err != nil {
		return nil, err
	}
	if err := l.Validate(); err != nil {
		return nil, err
	}
	return l, nil
}

func (c Found) appendTo(b []byte) []byte { return appendLayout(append(b, codeFound), c.Layout) }

func (c Propose) appendTo(b []byte) []byte {
	b = le.AppendUint64(append(b, codePropose), uint64(c.Owner))
	b = appendLayout(le.AppendUint64(b, uint64(c.Base)), c.Layout)
	if c.ID != 0 {
		b = appendIdentity(b, c.ID, c.AcceptedLoss, c.Stores, c.Left)
	}
	return b
}

func (c Begin) appendTo(b []byte) []byte {
	return le.AppendUint64(append(b, codeBegin), uint64(c.Epoch))
}

func (c Recover) appendTo(b []byte) []byte {
	b = appendIdentity(appendLayout(append(b, codeRecover), c.Layout), c.ID, c.AcceptedLoss, c.Stores, nil)
	b = appendWritten(b, c.Written)
	return le.AppendUint32(le.AppendUint64(b, uint64(c.Attempted)), uint32(c.Clients))
}

func appendWritten(b []byte, list []WrittenRecord) []byte {
	b = le.AppendUint32(b, uint32(len(list)))
	for _, w := range list {
		b = appendBool(le.AppendUint64(le.AppendUint64(b, uint64(w.Ref.Epoch)), uint64(w.Ref.ID)), w.Active)
	}
	return b
}

func (c Note) appendTo(b []byte) []byte {
	return appendNotes(le.AppendUint64(append(b, codeNote), uint64(c.Epoch)), c.Members)
}

func appendIdentity(b []byte, id RecordID, loss bool, stores []MemberStore, left []Settled) []byte {
	b = appendBool(le.AppendUint64(b, uint64(id)), loss)
	b = le.AppendUint32(b, uint32(len(stores)))
	for _, m := range stores {
		b = append(le.AppendUint32(b, uint32(m.Unit)), m.Store[:]...)
	}
	b = le.AppendUint32(b, uint32(len(left)))
	for _, x := range left {
		b = appendSettled(b, x)
	}
	return b
}

func appendSettled(b []byte, x Settled) []byte {
	return le.AppendUint64(le.AppendUint64(le.AppendUint32(b, uint32(x.Unit)), uint64(x.From)), uint64(x.Below))
}

func appendNotes(b []byte, notes []MemberNote) []byte {
	b = le.AppendUint32(b, uint32(len(notes)))
	for _, n := range notes {
		b = le.AppendUint64(le.AppendUint32(b, uint32(n.Unit)), uint64(n.Reconciled.Epoch))
		b = le.AppendUint64(le.AppendUint64(b, uint64(n.Reconciled.ID)), n.Changes)
	}
	return b
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func (c Decide) appendTo(b []byte) []byte {
	b = le.AppendUint64(append(b, codeDecide), uint64(c.Epoch))
	return append(le.AppendUint64(b, uint64(c.Owner)), byte(c.Verdict))
}

func (c AbortBelow) appendTo(b []byte) []byte {
	return le.AppendUint64(append(b, codeAbortBelow), uint64(c.Epoch))
}

func (NewClient) appendTo(b []byte) []byte { return append(b, codeNewClient) }

// DecodeCommand reads what EncodeCommand wrote. It fails with ErrFormat.
func DecodeCommand(b []byte) (Command, error) {
	d := decoder{b: b}
	var c Command
	switch d.start() {
	case codeFound:
		c = Found{Layout: d.layout()}
	case codePropose:
		p := Propose{Owner: Owner(d.u64()), Base: Epoch(d.u64()), Layout: d.layout()}
		if d.version >= formatStores {
			p.ID, p.AcceptedLoss, p.Stores, p.Left = d.identity()
			d.bad = d.bad || p.ID == 0 // that is written as the version before
			p.Resized = d.version >= formatVersion
		}
		c = p
	case codeDecide:
		c = Decide{Epoch: Epoch(d.u64()), Owner: Owner(d.u64()), Verdict: Verdict(d.u8())}
	case codeAbortBelow:
		c = AbortBelow{Epoch: Epoch(d.u64())}
	case codeNewClient:
		c = NewClient{}
	case codeNote:
		c = Note{Epoch: Epoch(d.u64()), Members: d.notes()}
		d.bad = d.bad || d.version < formatStores
	case codeBegin:
		c = Begin{Epoch: Epoch(d.u64())}
		d.bad = d.bad || d.version < formatStores
	case codeLeaseClients:
		c = LeaseClients{Count: d.u32(), Above: ClientID(d.u32())}
	case codeRecover:
		r := Recover{Layout: d.layout()}
		var left []Settled
		r.ID, r.AcceptedLoss, r.Stores, left = d.identity()
		r.Written, r.Attempted, r.Clients = d.written(), Epoch(d.u64()), ClientID(d.u32())
		d.bad, c = d.bad || d.version < formatStores || len(left) > 0, r
	default:
		d.bad = true
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	return c, nil
}

// Snapshot gives the bytes that Restore reads. Equal states give equal bytes.
func (s *State) Snapshot() []byte {
	version := byte(formatPlain)
	switch {
	case s.resized():
		version = formatVersion
	case s.KnowsStores():
		version = formatStores
	}
	b := le.AppendUint32([]byte{version, codeSnapshot}, uint32(s.clients))
	b = le.AppendUint64(b, uint64(s.latest))
	b = appendOptional(le.AppendUint64(b, uint64(s.decided)), s.founding)
	b = le.AppendUint32(b, uint32(len(s.records)))
	for _, e := range slices.Sorted(maps.Keys(s.records)) {
		r := s.records[e]
		b = le.AppendUint64(b, uint64(r.Epoch))
		b = le.AppendUint64(b, uint64(r.Owner))
		b = le.AppendUint64(b, uint64(r.Base))
		b = appendOptional(append(b, byte(r.Verdict)), r.Layout)
		if version >= formatStores {
			b = appendIdentity(b, r.ID, r.AcceptedLoss, r.Stores, r.Left)
		}
	}
	if version < formatStores {
		return b
	}
	b = appendWritten(b, s.writtenRecords)
	b = le.AppendUint64(le.AppendUint64(b, uint64(s.attempted)), uint64(s.loss))
	b = le.AppendUint32(appendNotes(b, s.notes), uint32(len(s.left)))
	for _, l := range s.left {
		b = le.AppendUint64(appendSettled(b, l.Settled), uint64(l.At))
		b = appendIdentity(le.AppendUint64(b, uint64(l.Base.Epoch)), l.Base.ID, l.Base.AcceptedLoss, l.Base.Stores, nil)
		b = appendNotes(b, l.Noted)
	}
	return b
}

// resized reports whether a record has another geometry than the founding layout.
func (s *State) resized() bool {
	for _, r := range s.records {
		if r.Layout != nil && s.founding != nil && r.Layout.Geometry != s.founding.Geometry {
			return true
		}
	}
	return false
}

// Restore gives the state that Snapshot wrote. It fails with ErrFormat.
func Restore(b []byte) (*State, error) {
	d := decoder{b: b}
	if d.start() != codeSnapshot {
		d.bad = true
	}
	s := NewState()
	s.clients, s.latest, s.decided = ClientID(d.u32()), Epoch(d.u64()), Epoch(d.u64())
	s.founding = d.optional()
	for range d.count() {
		r := Record{Epoch: Epoch(d.u64()), Owner: Owner(d.u64()), Base: Epoch(d.u64()), Verdict: Verdict(d.u8())}
		r.Layout = d.optional()
		if d.version >= formatStores {
			r.ID, r.AcceptedLoss, r.Stores, r.Left = d.identity()
		}
		s.records[r.Epoch] = r
	}
	if d.version >= formatStores {
		s.writtenRecords = d.written()
		s.attempted, s.loss, s.notes = Epoch(d.u64()), Epoch(d.u64()), d.notes()
		for range d.count() {
			l := LeftMember{Settled: d.settled(), At: Position(d.u64()), Base: Record{Epoch: Epoch(d.u64()), Verdict: Active}}
			l.Base.ID, l.Base.AcceptedLoss, l.Base.Stores, _ = d.identity()
			l.Noted = d.notes()
			s.left = append(s.left, l)
		}
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	if (s.latest != 0 && s.Active() == nil) || s.latest > s.decided || s.decided > MaxEpoch {
		return nil, fmt.Errorf("epochs %d and %d without their records: %w", s.latest, s.decided, ErrFormat)
	}
	return s, nil
}

func appendString(b []byte, s string) []byte {
	return append(le.AppendUint32(b, uint32(len(s))), s...)
}

func appendOptional(b []byte, l *Layout) []byte {
	if l == nil {
		return append(b, 0)
	}
	return appendLayout(append(b, 1), l)
}

func appendLayout(b []byte, l *Layout) []byte {
	b = le.AppendUint64(append(b, l.Log[:]...), uint64(l.Epoch))
	for _, n := range [...]int{l.Geometry.PageSize, l.Geometry.Window, l.Geometry.SessionSlots, l.Geometry.MaxSessions} {
		b = le.AppendUint32(b, uint32(n))
	}
	b = le.AppendUint64(append(b, byte(l.Durability)), uint64(l.Start))
	b = appendString(le.AppendUint32(b, uint32(l.Sequencer.ID)), l.Sequencer.Control)
	b = le.AppendUint32(b, uint32(len(l.Units)))
	for _, u := range l.Units {
		b = appendString(le.AppendUint32(b, uint32(u.ID)), u.Control)
	}
	b = le.AppendUint32(b, uint32(len(l.Segments)))
	for _, s := range l.Segments {
		b = le.AppendUint32(le.AppendUint64(b, uint64(s.Start)), uint32(len(s.Chains)))
		for _, c := range s.Chains {
			b = le.AppendUint32(le.AppendUint64(b, uint64(c.Base)), uint32(len(c.Units)))
			for _, u := range c.Units {
				b = le.AppendUint32(b, uint32(u))
			}
		}
	}
	b = le.AppendUint32(b, uint32(len(l.Spares)))
	for _, u := range l.Spares {
		b = appendString(le.AppendUint32(b, uint32(u.ID)), u.Control)
	}
	b = le.AppendUint32(b, uint32(len(l.Standbys)))
	for _, s := range l.Standbys {
		b = appendString(le.AppendUint32(b, uint32(s.ID)), s.Control)
	}
	b = le.AppendUint32(b, uint32(len(l.Leaving)))
	for _, x := range l.Leaving {
		b = le.AppendUint32(le.AppendUint32(b, uint32(x.Unit)), uint32(x.By))
	}
	return b
}

// decoder takes fields off b. Once something is missing it gives zeros, and end says so.
type decoder struct {
	b       []byte
	version byte
	bad     bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return make([]byte, min(n, 16)) // no field but a string is longer, and string checks first
	}
	f := d.b[:n]
	d.b = d.b[n:]
	return f
}

func (d *decoder) u8() byte    { return d.take(1)[0] }
func (d *decoder) u32() uint32 { return le.Uint32(d.take(4)) }
func (d *decoder) u64() uint64 { return le.Uint64(d.take(8)) }

// count is a length that the rest can hold: a made-up one must not make the decoder allocate or loop for long.
func (d *decoder) count() int {
	n := int(d.u32())
	if n > len(d.b) {
		d.bad = true
		return 0
	}
	return n
}

func (d *decoder) string() string {
	n := d.count()
	if d.bad {
		return ""
	}
	return string(d.take(n))
}

func (d *decoder) start() byte {
	if d.version = d.u8(); d.version < 1 || d.version > formatVersion {
		d.bad = true
	}
	return d.u8()
}

func (d *decoder) end() error {
	if d.version > formatVersion {
		return fmt.Errorf("%w: it is of format %d, and this release knows 1 to %d: start the layout server with the release that wrote it", ErrFormat, d.version, formatVersion)
	}
	if d.bad || len(d.b) != 0 {
		return ErrFormat
	}
	return nil
}

func (d *decoder) bool() bool {
	v := d.u8()
	d.bad = d.bad || v > 1
	return v == 1
}

func (d *decoder) identity() (id RecordID, loss bool, stores []MemberStore, left []Settled) {
	id, loss = RecordID(d.u64()), d.bool()
	for range d.count() {
		stores = append(stores, MemberStore{UnitID(d.u32()), StoreID(d.take(16))})
	}
	for range d.count() {
		left = append(left, d.settled())
	}
	return id, loss, stores, left
}

func (d *decoder) settled() Settled {
	return Settled{UnitID(d.u32()), Address(d.u64()), Address(d.u64())}
}

func (d *decoder) written() (list []WrittenRecord) {
	for range d.count() {
		list = append(list, WrittenRecord{RecordRef{Epoch(d.u64()), RecordID(d.u64())}, d.bool()})
	}
	return list
}

func (d *decoder) notes() (list []MemberNote) {
	for range d.count() {
		list = append(list, MemberNote{UnitID(d.u32()), RecordRef{Epoch(d.u64()), RecordID(d.u64())}, d.u64()})
	}
	return list
}

func (d *decoder) optional() *Layout {
	switch d.u8() {
	case 0:
		return nil
	case 1:
		return d.layout()
	}
	d.bad = true
	return nil
}

func (d *decoder) layout() *Layout {
	l := &Layout{Log: LogID(d.take(16)), Epoch: Epoch(d.u64())}
	for _, n := range [...]*int{&l.Geometry.PageSize, &l.Geometry.Window, &l.Geometry.SessionSlots, &l.Geometry.MaxSessions} {
		*n = int(d.u32())
	}
	l.Durability, l.Start = Durability(d.u8()), Position(d.u64())
	l.Sequencer = Sequencer{ID: SequencerID(d.u32()), Control: d.string()}
	for range d.count() {
		l.Units = append(l.Units, Unit{ID: UnitID(d.u32()), Control: d.string()})
	}
	for range d.count() {
		s := Segment{Start: Position(d.u64())}
		for range d.count() {
			c := Chain{Base: Address(d.u64())}
			for range d.count() {
				c.Units = append(c.Units, UnitID(d.u32()))
			}
			s.Chains = append(s.Chains, c)
		}
		l.Segments = append(l.Segments, s)
	}
	if d.version < 2 {
		return l
	}
	for range d.count() {
		l.Spares = append(l.Spares, Unit{ID: UnitID(d.u32()), Control: d.string()})
	}
	for range d.count() {
		l.Standbys = append(l.Standbys, Sequencer{ID: SequencerID(d.u32()), Control: d.string()})
	}
	if d.version < 3 {
		return l
	}
	for range d.count() {
		l.Leaving = append(l.Leaving, Leaving{Unit: UnitID(d.u32()), By: UnitID(d.u32())})
	}
	return l
}
