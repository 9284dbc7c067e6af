package unit

import (
	"errors"
	"slices"
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
)

var (
	testLog = layout.LogID{0xc0}
	testGeo = layout.Geometry{PageSize: 4096, Window: 64, SessionSlots: 8, MaxSessions: 2}
)

func testLayout(e layout.Epoch) *layout.Layout {
	return &layout.Layout{Log: testLog, Epoch: e, Geometry: testGeo,
		Sequencer: layout.Sequencer{ID: 1, Control: "s"}, Units: []layout.Unit{{ID: 1, Control: "u"}},
		Segments: []layout.Segment{{Chains: []layout.Chain{{Units: []layout.UnitID{1}}}}}}
}

// plain is memory without a fabric. It watches rule R1.
type plain struct {
	t          *testing.T
	epoch      layout.Epoch
	opened     layout.Epoch // what the unit itself stored last
	words      []wire.Word
	ring, slot []byte
	registered bool
}

func (m *plain) LoadWord(i int) wire.Word { return m.words[i] }

func (m *plain) StoreWord(i int, w wire.Word) {
	if m.registered && m.words[i].State() == wire.Empty {
		m.t.Errorf("R1: the CPU stores %v over %v while the index is registered", w, m.words[i])
	}
	m.words[i] = w
}

func (m *plain) LoadEpoch() layout.Epoch { return m.epoch }

func (m *plain) StoreEpoch(e layout.Epoch) {
	if m.registered && e != m.opened {
		m.t.Error("R18: the epoch word changes while the index is registered")
	}
	m.epoch, m.opened = e, e
}

func (m *plain) Ring() []byte { return m.ring }

func (m *plain) Staging(s wire.StagingSlot) []byte { return m.slot[int(s)*4096 : (int(s)+1)*4096] }

// disk is flash that is a map. What is written is durable at once.
type disk map[layout.Address][]byte

func (d disk) Scan(from, to layout.Address, fn func(layout.Address, []byte) error) error {
	var all []layout.Address
	for a := range d {
		if a >= from && a < to {
			all = append(all, a)
		}
	}
	slices.Sort(all)
	for _, a := range all {
		if err := fn(a, d[a]); err != nil {
			return err
		}
	}
	return nil
}

// trim makes address a read as its mark.
func (d disk) trim(a layout.Address) {
	page := make([]byte, 4096)
	Mark(page, wire.Trimmed, testLog, layout.Position(a), 1)
	d[a] = page
}

// bench is a unit on plain memory and a disk, with the orders of a server.
type bench struct {
	t       *testing.T
	u       *Unit
	m       *plain
	d       disk
	promise layout.Epoch // as the meta file has it
	settled layout.Address
	trimmed layout.Address
	acks    []Ack
	replies []Reply
	alarms  []Alarm
	freed   []Slice
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, d: disk{}}
	b.start()
	b.open(1)
	return b
}

// start makes the core anew, as after a crash: only flash and meta are left.
func (b *bench) start() {
	b.t.Helper()
	log := testLog
	if b.promise == 0 {
		log = layout.LogID{}
	}
	b.u = New(1, log, b.promise)
	b.m = &plain{t: b.t, words: make([]wire.Word, testGeo.Window), ring: make([]byte, testGeo.Window*4096), slot: make([]byte, 16*4096)}
	if b.promise != 0 {
		b.u.SetMemory(testLayout(b.promise), b.m)
		b.check(b.u.Load(b.d, b.settled, b.trimmed))
	}
}

func (b *bench) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) seal(n layout.Epoch) (Snapshot, error) {
	b.t.Helper()
	again, err := b.u.CheckSeal(testLog, n)
	if err != nil {
		return Snapshot{}, err
	}
	if !again {
		b.promise, b.settled = n, max(b.settled, b.u.View().Watermark)
		b.u.BeginSeal(testLog, n, n-1)
	}
	b.m.registered = false
	if b.u.mem != nil {
		b.u.ScanAll()
		b.flush()
	}
	return b.u.EndSeal(n)
}

// open brings the unit to epoch n with what it has.
func (b *bench) open(n layout.Epoch) Snapshot {
	b.t.Helper()
	snap, err := b.seal(n)
	b.check(err)
	b.u.SetMemory(testLayout(n), b.m)
	b.check(b.u.Load(b.d, b.settled, b.trimmed))
	b.check(b.u.Reconciled(n))
	_, err = b.u.Prepare(n)
	b.check(err)
	b.m.registered = true
	b.u.Activate(n)
	return snap
}

// flush writes everything, what was refused before, too, and takes the output.
func (b *bench) flush() {
	b.u.Retry()
	for x := b.u.NextBatch(); x != nil; x = b.u.NextBatch() {
		b.write(x)
		b.u.Flushed(x)
	}
	b.take()
}

func (b *bench) write(x *Batch) {
	for _, r := range x.Records {
		if r.Failed {
			continue
		}
		b.d[r.Address] = slices.Clone(r.Bytes)
	}
	for _, x := range x.Trims {
		if !x.Failed {
			b.d.trim(x.Address)
		}
	}
}

func (b *bench) take() {
	o := b.u.Output()
	b.acks = append(b.acks, o.Acks...)
	b.replies = append(b.replies, o.Replies...)
	b.alarms = append(b.alarms, o.Alarms...)
	b.freed = append(b.freed, o.Freed...)
	o.Reset()
}

// stage puts an entry of address a into a staging slot.
func (b *bench) stage(slot wire.StagingSlot, a layout.Address, attempt wire.Attempt) {
	page := b.m.Staging(slot)
	n := copy(page[wire.HeaderSize:], "entry")
	wire.SealPage(page, wire.Header{Flags: wire.FlagData, Length: n, Log: testLog, Position: layout.Position(a), Epoch: b.m.epoch, Attempt: attempt})
}

// cas is what a client's NIC does to the word of a. It tells what it found.
func (b *bench) cas(a layout.Address, to wire.Word) wire.Word {
	i := testGeo.Slot(a)
	old := b.m.words[i]
	if old == wire.EmptyWord(testGeo.Generation(a), b.m.epoch) {
		b.m.words[i] = to
	}
	return old
}

func written(a layout.Address, slot wire.StagingSlot, count uint16) wire.Word {
	return wire.MakeWord(wire.Written, testGeo.Generation(a), wire.Use{Slot: slot, Count: count}.Tag())
}

func junk(a layout.Address) wire.Word {
	return wire.MakeWord(wire.Junk, testGeo.Generation(a), wire.Use{Slot: 0, Count: 9}.Tag())
}

// publish writes an entry to a through slot 0.
func (b *bench) publish(a layout.Address) {
	b.t.Helper()
	b.stage(0, a, wire.Attempt(a)+1)
	if old := b.cas(a, written(a, 0, 3)); old != wire.EmptyWord(testGeo.Generation(a), b.m.epoch) {
		b.t.Fatalf("address %d holds %v", a, old)
	}
}

func (b *bench) word(a layout.Address) wire.Word { return b.m.words[testGeo.Slot(a)] }

func (b *bench) wantState(a layout.Address, s wire.State) {
	b.t.Helper()
	w := b.word(a)
	if w.State() != s || w.Generation() != testGeo.Generation(a) {
		b.t.Fatalf("word of %d is %v, want %v", a, w, s)
	}
}

func (b *bench) wantAcks(want ...Ack) {
	b.t.Helper()
	b.take()
	if !slices.Equal(b.acks, want) {
		b.t.Fatalf("acks are %v, want %v", b.acks, want)
	}
	b.acks = nil
}

func wantIs(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error is %v, want %v", err, target)
	}
}

// sliceOf is the slice of a session by the test's geometry.
func sliceOf(i int) Slice { return Slice{i * testGeo.SessionSlots, testGeo.SessionSlots} }
