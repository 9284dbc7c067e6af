package server_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma/tcp"
	"corfu/unit/flash"
)

// ailing is a segment file with what a repair meets: pages that cannot be read, writes that fail, get lost, or wait.
type ailing struct {
	flash.File
	*ailment
	first layout.Address // of the segment
}

type ailment struct {
	mu             sync.Mutex
	unreadable     map[layout.Address]bool // until they are written
	refuses, loses atomic.Bool
	gate           atomic.Pointer[chan struct{}] // writes wait until it is closed
	writing        atomic.Int64
	reads          atomic.Int64
}

func (f ailing) Read(b []byte, off int64) error {
	f.reads.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range len(b) / 4096 {
		if f.unreadable[f.first+layout.Address(off/4096)+layout.Address(i)] {
			return unix.EIO
		}
	}
	return f.File.Read(b, off)
}

func (f ailing) Write(bufs [][]byte, off int64, sync bool) error {
	f.writing.Add(1)
	defer f.writing.Add(-1)
	if g := f.gate.Load(); g != nil {
		<-*g
	}
	switch {
	case f.refuses.Load():
		return unix.EIO
	case f.loses.Load():
		return nil
	}
	f.mu.Lock()
	delete(f.unreadable, f.first+layout.Address(off/4096))
	f.mu.Unlock()
	return f.File.Write(bufs, off, sync)
}

// repairRig is a unit that serves epoch 1 with n entries on flash, its scrub at rest.
func repairRig(t *testing.T, n layout.Address) (*rig, *mini, *ailment) {
	x := &ailment{unreadable: map[layout.Address]bool{}}
	r := newRig(t, tcp.Options{})
	r.stop()
	r.cfg.ScrubRate = -1
	r.cfg.Flash.Wrap = func(path string, f flash.File) flash.File {
		var segment layout.Address
		for _, c := range filepath.Base(path)[4:] {
			segment = segment<<4 | layout.Address(c-'0') // below 10 segments here
		}
		return ailing{f, x, segment * 32}
	}
	r.start()
	r.open(1, true)
	m := r.session(1)
	for a := range n {
		m.put(a)
	}
	return r, m, x
}

// spoil flips a bit of the page of a on flash.
func (r *rig) spoil(a layout.Address) {
	r.t.Helper()
	f, err := os.OpenFile(filepath.Join(r.cfg.Dir, "seg-00000000000"+string(rune('0'+a/32))), os.O_RDWR, 0)
	must(r.t, err)
	defer f.Close()
	var b [1]byte
	off := int64(a%32)*4096 + 70
	_, err = f.ReadAt(b[:], off)
	must(r.t, err)
	_, err = f.WriteAt([]byte{b[0] ^ 4}, off)
	must(r.t, err)
	must(r.t, f.Sync())
}

// scrub makes a pass and returns how it ended.
func (r *rig) scrub(rate uint64) *pb.ScrubStatus {
	r.t.Helper()
	began, err := r.ctl.Scrub(r.t.Context(), &pb.ScrubRequest{Rate: rate})
	must(r.t, err)
	eventually(r.t, "the end of the scrub", func() bool { return !r.state().Scrub.Running })
	s := r.state().Scrub
	if s.Pass != began.Pass {
		r.t.Fatalf("pass %d ended, %d was asked for", s.Pass, began.Pass)
	}
	return s
}

func (r *rig) corrupt() []uint64 {
	r.t.Helper()
	list, err := r.ctl.Corrupt(r.t.Context(), &pb.CorruptRequest{Max: 100})
	must(r.t, err)
	return list.Addresses
}

// entry is what another member of the chain holds at a, as put writes it.
func (m *mini) entry(a layout.Address) *pb.Entry {
	attempt := wire.MakeAttempt(9, uint32(a)+1)
	n := m.page(a, attempt)
	return &pb.Entry{Address: uint64(a), State: uint32(wire.Durable), Attempt: uint64(attempt), Page: bytes.Clone(m.mem.Bytes()[:n])}
}

func (r *rig) repair(e *pb.Entry) error {
	_, err := r.ctl.Repair(r.t.Context(), &pb.RepairRequest{Log: logID[:], Epoch: 1, Entry: e})
	return err
}

// A scrub finds flipped bits, pages that the disk cannot read, and a segment that is gone, in the window and below it, and nothing
// else; what it found is not served.
func TestScrubFindsDamage(t *testing.T) {
	r, m, x := repairRig(t, 200)
	if s := r.scrub(0); s.Pages != 200 || s.Bytes != 200*4096 || s.Corrupt != 0 || s.Next != 200 || s.End != 200 {
		t.Fatalf("scrub of a sound unit: %v", s)
	}
	r.spoil(3)
	r.spoil(190)
	x.mu.Lock()
	x.unreadable[40], x.unreadable[199] = true, true
	x.mu.Unlock()
	want := []uint64{3, 40, 190, 199}
	if s := r.scrub(1 << 30); s.Pages != 200 || s.Corrupt != 4 {
		t.Fatalf("scrub: %v", s)
	}
	if got := r.corrupt(); !slices.Equal(got, want) || r.state().Corrupt != 4 {
		t.Fatalf("corrupt: %v, want %v", got, want)
	}
	for i, a := range []layout.Address{3, 40} {
		if reply, _ := m.cold(wire.RequestID(i+1), a); reply.State == wire.Durable {
			t.Fatalf("cold read of %d: %+v", a, reply)
		}
	}
	for _, a := range []layout.Address{190, 199} {
		if w := m.look(a); w.State() != wire.Corrupt {
			t.Fatalf("word of %d: %v", a, w)
		}
	}
	for _, a := range want {
		must(t, r.repair(m.entry(layout.Address(a))))
	}
	if s := r.scrub(1 << 30); s.Corrupt != 0 || len(r.corrupt()) != 0 {
		t.Fatalf("scrub after the repairs: %v", s)
	}
	for _, a := range []layout.Address{190, 199} {
		if w := m.look(a); w.State() != wire.Durable {
			t.Fatalf("word of %d: %v", a, w)
		}
		verify(t, m.ring(a), a)
	}
	for i, a := range []layout.Address{3, 40} {
		reply, page := m.cold(wire.RequestID(i+10), a)
		if reply.State != wire.Durable {
			t.Fatalf("cold read of %d: %+v", a, reply)
		}
		verify(t, page, a)
	}
}

// R3: a disk that refuses the page, or loses it and says that all is well, leaves the address CORRUPT, until it takes it.
func TestR3RepairIsReadBack(t *testing.T) {
	r, m, x := repairRig(t, 10)
	r.spoil(4)
	r.scrub(0)
	for _, fault := range []*atomic.Bool{&x.refuses, &x.loses} {
		fault.Store(true)
		wantCode(t, r.repair(m.entry(4)), codes.Internal)
		if w := m.look(4); w.State() != wire.Corrupt || !slices.Equal(r.corrupt(), []uint64{4}) {
			t.Fatalf("word %v, corrupt %v", w, r.corrupt())
		}
		fault.Store(false)
	}
	must(t, r.repair(m.entry(4)))
	wantCode(t, r.repair(m.entry(4)), codes.AlreadyExists)
	if w := m.look(4); w.State() != wire.Durable {
		t.Fatal(w)
	}
	verify(t, m.ring(4), 4)
}

// R10, R15, R17: a seal in the middle of a repair waits for it, and the snapshot has what it wrote; repairs of the epoch that is over are
// refused. Readers see CORRUPT until the repair has ended.
func TestSealDuringRepair(t *testing.T) {
	r, m, x := repairRig(t, 200)
	r.spoil(4)
	r.spoil(5)
	r.scrub(0)
	gate := make(chan struct{})
	x.gate.Store(&gate)
	repaired, sealed := make(chan error, 1), make(chan error, 1)
	e := m.entry(4)
	go func() { repaired <- r.repair(e) }()
	eventually(t, "the write", func() bool { return x.writing.Load() > 0 })
	wantCode(t, func() error { _, err := r.ctl.Fetch(t.Context(), fetch(1, 5)); return err }(), codes.OK)
	go func() {
		_, err := r.seal(2, 1)
		sealed <- err
	}()
	// While a seal waits no repair begins, and nothing ends.
	eventually(t, "a unit that changes its epoch", func() bool {
		_, err := r.ctl.Fetch(t.Context(), fetch(1, 6))
		return err != nil
	})
	select {
	case err := <-repaired:
		t.Fatal("repaired before flash had it", err)
	case err := <-sealed:
		t.Fatal("sealed in the middle of a repair", err)
	default:
	}
	x.gate.Store(nil)
	close(gate)
	must(t, <-repaired)
	must(t, <-sealed)
	wantCode(t, r.repair(m.entry(5)), codes.FailedPrecondition)
	var got []wire.State
	for _, e := range r.entries(2)[4:6] {
		got = append(got, wire.State(e.State))
	}
	if want := []wire.State{wire.Durable, wire.Corrupt}; !slices.Equal(got, want) {
		t.Fatalf("the snapshot has %v at 4 and 5, want %v", got, want)
	}
	must(t, r.reconcile(2, false))
	must(t, r.activate(2))
	if got := r.corrupt(); !slices.Equal(got, []uint64{5}) {
		t.Fatalf("corrupt in the next epoch: %v", got)
	}
	wantCode(t, r.repair(m.entry(5)), codes.FailedPrecondition) // of epoch 1
}

func fetch(n layout.Epoch, a layout.Address) *pb.FetchRequest {
	return &pb.FetchRequest{Log: logID[:], Epoch: uint64(n), Address: uint64(a)}
}

// Damage is found again after a restart, in the window by the start, below it by a scrub.
func TestDamageIsFoundAfterARestart(t *testing.T) {
	r, _, _ := repairRig(t, 200)
	r.spoil(4)
	r.spoil(190)
	r.restart()
	r.open(2, false)
	if got := r.corrupt(); !slices.Equal(got, []uint64{190}) {
		t.Fatalf("corrupt: %v", got)
	}
	r.scrub(1 << 30)
	if got := r.corrupt(); !slices.Equal(got, []uint64{4, 190}) {
		t.Fatalf("corrupt: %v", got)
	}
}

// Two repairs of one address at once: one is made, the other finds it sound.
func TestTwoRepairsAtOnce(t *testing.T) {
	r, m, _ := repairRig(t, 10)
	r.spoil(4)
	r.scrub(0)
	errs := make(chan error, 2)
	e := m.entry(4)
	for range 2 {
		go func() { errs <- r.repair(e) }()
	}
	a, b := <-errs, <-errs
	if a != nil {
		a, b = b, a
	}
	must(t, a)
	wantCode(t, b, codes.AlreadyExists)
}

// What a unit holds it gives to those alone who know its epoch and log, and says what it is.
func TestFetch(t *testing.T) {
	r, m, x := repairRig(t, 100)
	r.spoil(3)
	x.mu.Lock()
	x.unreadable[5] = true
	x.mu.Unlock()
	get := func(q *pb.FetchRequest) (wire.State, error) {
		e, err := r.ctl.Fetch(t.Context(), q)
		if err == nil && wire.State(e.State) == wire.Durable {
			want := m.entry(layout.Address(q.Address))
			if !bytes.Equal(e.Page, want.Page) || e.Attempt != want.Attempt {
				t.Errorf("address %d: %v", q.Address, e)
			}
		}
		return wire.State(e.GetState()), err
	}
	for a, want := range map[layout.Address]wire.State{2: wire.Durable, 3: wire.Corrupt, 5: wire.Corrupt, 99: wire.Durable, 100: wire.Empty} {
		if got, err := get(fetch(1, a)); got != want || err != nil {
			t.Errorf("address %d: %v, %v, want %v", a, got, err, want)
		}
	}
	// Asking found them.
	if got := r.corrupt(); !slices.Equal(got, []uint64{3, 5}) {
		t.Errorf("corrupt: %v", got)
	}
	_, err := get(fetch(2, 2))
	wantCode(t, err, codes.FailedPrecondition)
	_, err = get(&pb.FetchRequest{Log: make([]byte, 16), Epoch: 1, Address: 2})
	wantCode(t, err, codes.FailedPrecondition)
	_, err = get(&pb.FetchRequest{Log: []byte{1}, Epoch: 1, Address: 2})
	wantCode(t, err, codes.InvalidArgument)
	_, err = get(fetch(1, 1<<60))
	wantCode(t, err, codes.InvalidArgument)
	_, err = r.ctl.Repair(t.Context(), &pb.RepairRequest{Log: logID[:], Epoch: 1})
	wantCode(t, err, codes.InvalidArgument)
}

// The rate is kept to; a pass that a restart interrupts goes on where it was; an order begins a new one.
func TestScrubKeepsItsRateAndItsPlace(t *testing.T) {
	r, _, x := repairRig(t, 200)
	began, reads := time.Now(), x.reads.Load()
	_, err := r.ctl.Scrub(t.Context(), &pb.ScrubRequest{Rate: 100 << 10}) // eight seconds for all
	must(t, err)
	eventually(t, "progress", func() bool { return r.state().Scrub.Pages >= 32 })
	s := r.state().Scrub
	if bound := uint64(100<<10*time.Since(began).Seconds()) + 128<<10; !s.Running || s.Bytes > bound {
		t.Errorf("after %v: %v; at most %d bytes", time.Since(began), s, bound)
	}
	if n := x.reads.Load() - reads; n > int64(s.Pages) {
		t.Errorf("%d reads for %d pages", n, s.Pages)
	}
	r.stop()
	r.cfg.ScrubRate = 1 << 30
	r.start()
	r.open(2, false)
	eventually(t, "the end of the scrub", func() bool { s = r.state().Scrub; return s.Pass == 1 && !s.Running })
	if s.First < 32 || s.First > 200 || s.Pages != 200-s.First {
		t.Errorf("after the restart: %v", s)
	}
	// It is over: nothing begins by itself for a week, and an order begins at the beginning.
	r.restart()
	r.open(3, false)
	if s := r.state().Scrub; s.Pass != 0 {
		t.Errorf("a scrub before its time: %v", s)
	}
	if s := r.scrub(0); s.Pass != 1 || s.First != 0 || s.Pages != 200 {
		t.Errorf("by order: %v", s)
	}
	r.stop()
	r.change(func(m *flash.Meta) { m.Scrub.Ended -= 3600 })
	r.cfg.ScrubEvery = time.Hour
	r.start()
	r.open(4, false)
	eventually(t, "a scrub that is due", func() bool { return r.state().Scrub.Pages == 200 })
}

// R16: what a unit knows to be CORRUPT it knows after a crash, too, below the window as in it: else it would count for entries that it
// cannot supply. What was repaired meanwhile is not among it.
func TestR16CorruptCopiesAreRememberedOverARestart(t *testing.T) {
	r, m, _ := repairRig(t, 200)
	for _, a := range []layout.Address{3, 7, 40, 190} {
		r.spoil(a)
	}
	if s := r.scrub(1 << 30); s.Corrupt != 4 {
		t.Fatalf("scrub: %v", s)
	}
	must(t, r.repair(m.entry(7)))
	r.crash()
	if got, want := r.corrupt(), []uint64{3, 40, 190}; !slices.Equal(got, want) {
		t.Errorf("corrupt after a restart: %v, want %v", got, want)
	}
	r.restart()
	if got, want := r.corrupt(), []uint64{3, 40, 190}; !slices.Equal(got, want) {
		t.Errorf("and after a clean one: %v, want %v", got, want)
	}
}

// R16: that a life before found more CORRUPT copies than the meta names is known until a pass over everything found them again, and not only until
// that one is due: the seal comes before.
func TestR16MoreCorruptCopiesThanAreNamed(t *testing.T) {
	r, _, _ := repairRig(t, 200)
	const many = 10
	for a := range layout.Address(many) {
		r.spoil(a)
	}
	r.stop()
	r.change(func(m *flash.Meta) { m.Corrupt, m.MoreCorrupt = []layout.Address{0, 1}, true })
	r.cfg.ScrubRate = 1 << 30
	r.start()
	eventually(t, "a pass that waits for the unit to open", func() bool { return r.state().Scrub.Waiting != "" })
	if snap, err := r.seal(2, 1); err != nil || !snap.MoreCorrupt {
		t.Errorf("sealed: %v, %v", snap, err)
	}
	must(t, r.reconcile(2, false))
	must(t, r.activate(2))
	eventually(t, "a pass", func() bool { s := r.state().Scrub; return s.Pass > 0 && !s.Running })
	if snap, err := r.seal(3, 2); err != nil || snap.MoreCorrupt || len(snap.Corrupt) != many {
		t.Errorf("sealed after the pass: %v, %v", snap, err)
	}
}

// change changes the meta of a unit that does not run.
func (r *rig) change(change func(*flash.Meta)) {
	r.t.Helper()
	s, err := flash.Open(r.cfg.Dir, r.cfg.ID, flash.Options{}, r.cfg.Logger)
	must(r.t, err)
	must(r.t, s.UpdateMeta(change))
	must(r.t, s.Close())
}

// noted returns below which address everything is settled, as a start after a crash would find it.
func (r *rig) noted() layout.Address {
	r.t.Helper()
	image := r.t.TempDir()
	must(r.t, os.CopyFS(image, os.DirFS(r.cfg.Dir)))
	in, err := flash.OpenInspector(image)
	must(r.t, err)
	defer in.Close()
	return in.Meta().SettledBelow
}

// R17: what another member has at an address takes the place of a page that the disk cannot read. One bad block is no reason to leave the unit out.
func TestR17ReconcileOverAPageThatCannotBeRead(t *testing.T) {
	r, m, x := repairRig(t, 10)
	x.mu.Lock()
	x.unreadable[4] = true
	x.mu.Unlock()
	_, err := r.seal(2, 1)
	must(t, err)
	must(t, r.reconcile(2, false, m.entry(3), m.entry(4), m.entry(5)))
	must(t, r.activate(2))
	if got := r.corrupt(); len(got) != 0 {
		t.Errorf("corrupt: %v", got)
	}
	next := r.session(2)
	if reply, page := next.cold(1, 4); reply.State != wire.Durable {
		t.Errorf("%+v", reply)
	} else {
		verify(t, page, 4)
	}
}

// R16: a page that the disk cannot read may be the last entry that was acknowledged. A unit that finds one above all others after a crash says that it may
// lack something: alone, as the tail, it would have the entry taken for one that never was.
func TestR16UnreadablePageAboveTheLastEntry(t *testing.T) {
	r, m, x := repairRig(t, 1)
	eventually(t, "a note that the first one is settled", func() bool { return r.noted() == 1 }) // the next note comes a second later
	const last = 9
	for a := layout.Address(1); a <= last; a++ {
		m.put(a)
	}
	x.mu.Lock()
	x.unreadable[last] = true
	x.mu.Unlock()
	r.crash()
	snap, err := r.seal(2, 1)
	if must(t, err); !snap.MoreCorrupt && !slices.Contains(snap.Corrupt, last) {
		t.Errorf("sealed: %v", snap)
	}
	must(t, r.reconcile(2, false, m.entry(last)))
	must(t, r.activate(2))
	if snap, err = r.seal(3, 2); err != nil || snap.MoreCorrupt || len(snap.Corrupt) != 0 || snap.End != last+1 {
		t.Errorf("sealed when it had the entry again: %v, %v", snap, err)
	}
	r.stop() // before its directory goes
}

// An order for a scrub takes the place of one at a rate that was a mistake, at once.
func TestScrubIsReplacedWhileItWaits(t *testing.T) {
	r, _, _ := repairRig(t, 100)
	_, err := r.ctl.Scrub(t.Context(), &pb.ScrubRequest{Rate: 1}) // 18 hours for each run of pages
	must(t, err)
	eventually(t, "progress", func() bool { return r.state().Scrub.Pages > 0 })
	if s := r.scrub(1 << 30); s.Pages != 100 {
		t.Errorf("%v", s)
	}
}

// R17: a unit that left its chains gives what it has, of the position that is asked for alone, and to those that name its start (rule R24).
func TestR17UnitThatLeftGivesWhatItHas(t *testing.T) {
	r, m, _ := repairRig(t, 10)
	want := m.entry(3)
	start := r.past().Start
	_, err := r.seal(2, 1)
	must(t, err)
	fetch := func(start layout.StartID, a, p uint64) (*pb.Entry, error) {
		return r.ctl.Fetch(t.Context(), &pb.FetchRequest{Log: logID[:], Address: a, Start: uint64(start), Position: p})
	}
	got, err := fetch(start, 3, 3)
	must(t, err)
	if wire.State(got.State) != wire.Durable || got.Attempt != want.Attempt || !bytes.Equal(got.Page, want.Page) {
		t.Errorf("it gives %v", got)
	}
	_, err = fetch(start+1, 3, 3)
	wantCode(t, err, codes.FailedPrecondition)
	r.spoil(3)
	for _, x := range [][2]uint64{{4, 5}, {3, 3}, {100, 100}} {
		got, err := fetch(start, x[0], x[1])
		must(t, err)
		if wire.State(got.State) != wire.Empty || len(got.Page) > 0 {
			t.Errorf("position %d at address %d: %v", x[1], x[0], got)
		}
	}
}

// S5 (docs/model): what a unit has that left its chains is not taken where the address may have been trimmed since.
func TestR17CopyOfAUnitThatLeftIsTakenUnlessItMayBeTrimmed(t *testing.T) {
	r, m, _ := repairRig(t, 10)
	epoch := uint64(1)
	repair := func(since uint64) error {
		t.Helper()
		r.spoil(3)
		if s := r.scrub(1 << 30); s.Corrupt != 1 {
			t.Fatalf("scrub: %+v; want one corrupt page", s)
		}
		_, err := r.ctl.Repair(t.Context(), &pb.RepairRequest{Log: logID[:], Epoch: epoch, Entry: m.entry(3), Since: since})
		return err
	}
	must(t, repair(1)) // nothing was ever trimmed by itself
	m.send(m.read, wire.Trim{Request: 1, Address: 5}.Append(nil))
	if got := m.reply(1); got.State != wire.Trimmed {
		t.Fatalf("trim: %+v", got)
	}
	must(t, repair(1)) // another address
	r.crash()
	epoch = 2
	r.open(2, false)
	m = r.session(2)
	wantCode(t, repair(1), codes.OutOfRange) // it has forgotten which
}
