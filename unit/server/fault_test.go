package server_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma"
	"corfu/rdma/tcp"
	"corfu/unit/flash"
)

// faulty is a segment file that can be told to fail, or to wait.
type faulty struct {
	flash.File
	broken *atomic.Bool
	gate   *atomic.Pointer[chan struct{}] // writes wait until it is closed
}

func (f faulty) Write(bufs [][]byte, off int64, sync bool) error {
	if g := f.gate.Load(); g != nil {
		<-*g
	}
	if f.broken.Load() {
		return errors.New("flash is broken")
	}
	return f.File.Write(bufs, off, sync)
}

func newFaultyRig(t *testing.T) (r *rig, broken *atomic.Bool, gate *atomic.Pointer[chan struct{}]) {
	broken, gate = new(atomic.Bool), new(atomic.Pointer[chan struct{}])
	r = newRig(t, tcp.Options{})
	r.stop()
	r.cfg.Flash.Wrap = func(_ string, f flash.File) flash.File { return faulty{f, broken, gate} }
	r.start()
	r.open(1, true)
	return r, broken, gate
}

// The state says for how long flash does not take the page at the watermark, whether it refuses it or does not answer, and that it took it in the end.
func TestStateTellsThatFlashIsStuck(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		t.Run(fmt.Sprint("hangs ", hangs), func(t *testing.T) {
			r, broken, gate := newFaultyRig(t)
			m := r.session(1)
			m.put(0)
			free := make(chan struct{})
			if hangs {
				gate.Store(&free)
			} else {
				broken.Store(true)
			}
			_, _, err := m.write(1, wire.MakeAttempt(9, 2), true)
			must(t, err)
			eventually(t, "stuck", func() bool { return r.state().StuckMs >= 30 })
			if why := r.state().Stuck; strings.Contains(why, "flash is broken") == hangs {
				t.Errorf("it says %q", why)
			}
			broken.Store(false)
			gate.Store(nil)
			close(free)
			eventually(t, "not stuck", func() bool { return r.state().StuckMs == 0 && r.state().Watermark == 2 })
			if _, _, err := m.write(3, wire.MakeAttempt(9, 3), true); err != nil { // behind a hole: that is no fault of the disk
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
			for range 2 {
				if x := r.state(); x.StuckMs != 0 {
					t.Errorf("a hole is called stuck for %d ms", x.StuckMs)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
}

// choosy is a segment file that refuses one page for as long as it is told to, and notes in what order it was asked for that and for others.
type choosy struct {
	flash.File
	page   []byte // part of it
	refuse *atomic.Bool
	note   func(refused bool)
}

func (f choosy) Write(bufs [][]byte, off int64, sync bool) error {
	refused := f.refuse.Load() && slices.ContainsFunc(bufs, func(b []byte) bool { return bytes.Contains(b, f.page) })
	f.note(refused)
	if refused {
		return errors.New("this page is refused")
	}
	return f.File.Write(bufs, off, sync)
}

// A page that flash refuses does not hold up the others: they are not in its batches, nor do they wait until it is tried again.
func TestARefusedPageDelaysNoOther(t *testing.T) {
	attempt := wire.MakeAttempt(9, 77)
	var refuse atomic.Bool
	var mu sync.Mutex
	var tries, between, most int // of the page that is refused; other writes since the last of them; the most of those
	r := newRig(t, tcp.Options{})
	r.stop()
	r.cfg.Flash.Wrap = func(_ string, f flash.File) flash.File {
		return choosy{f, payload(0, attempt), &refuse, func(refused bool) {
			mu.Lock()
			defer mu.Unlock()
			if refused {
				tries, between = tries+1, 0
			} else if tries > 0 {
				between++
				most = max(most, between)
			}
		}}
	}
	r.start()
	r.open(1, true)
	m := r.session(1)
	refuse.Store(true)
	_, _, err := m.write(0, attempt, true)
	must(t, err)
	tried := func() int {
		mu.Lock()
		defer mu.Unlock()
		return tries
	}
	eventually(t, "a refused page", func() bool { return tried() > 0 })
	for a := layout.Address(1); a < 20; a++ {
		m.put(a)
	}
	mu.Lock()
	if most < 2 {
		t.Errorf("at most %d other pages went to flash between two tries of the one that is refused: they wait for it", most)
	}
	mu.Unlock()
	if w := m.look(0); w.State() != wire.Written {
		t.Errorf("the word of the page that is refused is %v", w)
	}
	again := tried()
	eventually(t, "another try", func() bool { return tried() > again })
	refuse.Store(false)
	m.ack(0)
}

// R3, R15: while flash takes no pages nothing is acknowledged, and a seal fails rather than leave out what was published.
func TestR3BrokenFlashAcknowledgesNothing(t *testing.T) {
	r, broken, _ := newFaultyRig(t)
	m := r.session(1)
	m.put(0)
	broken.Store(true)
	use, _, err := m.write(1, wire.MakeAttempt(9, 2), true)
	must(t, err)
	eventually(t, "an unhealthy unit", func() bool { return r.unit.Health() != nil })
	if live, ready := r.unit.Live(), r.unit.Ready(); live != nil || ready == nil {
		t.Errorf("alive: %v, ready: %v; want alive, since a new start does not mend a disk, and not ready", live, ready)
	}
	if w := m.look(1); w.State() != wire.Written {
		t.Fatalf("word is %v", w)
	}
	_, err = r.seal(2, 1)
	wantCode(t, err, codes.Internal)
	if got := r.state(); got.State != "closed" || got.Promise != 2 {
		t.Fatalf("state %v", got)
	}
	for _, a := range m.acks {
		if a.Address == 1 {
			t.Fatalf("acknowledged: %+v with %v", a, use)
		}
	}
	broken.Store(false)
	snap, err := r.seal(2, 1) // the same again
	must(t, err)
	if snap.End != 2 || snap.Watermark != 2 {
		t.Fatalf("snapshot: %v", snap)
	}
}

// R3: no ack and no durable word while the write is on its way; what comes meanwhile goes as one batch.
func TestR3NothingDurableDuringTheFlush(t *testing.T) {
	r, _, gate := newFaultyRig(t)
	m := r.session(1)
	closed := make(chan struct{})
	gate.Store(&closed)
	for a := range layout.Address(5) {
		_, _, err := m.write(a, wire.Attempt(a)+1, true)
		must(t, err)
	}
	// Everything behind the doorbells was looked at when this answer comes.
	m.send(m.append, wire.MaxAddr{Request: 1}.Append(nil))
	m.reply(1)
	for a := range layout.Address(5) {
		if w := m.look(a); w.State() != wire.Written {
			t.Fatalf("word of %d is %v", a, w)
		}
		if reply, _ := m.cold(wire.RequestID(a+10), a); reply.Status != wire.StatusTooNew {
			t.Fatalf("cold read of %d: %+v", a, reply)
		}
	}
	m.mu.Lock()
	n := len(m.acks)
	m.mu.Unlock()
	if n != 0 {
		t.Fatalf("%d acks", n)
	}
	gate.Store(nil)
	close(closed)
	for a := range layout.Address(5) {
		m.ack(a)
	}
}

// R5: a client that goes on writing to a published slot gets CORRUPT or one of the pages that were whole, and what
// flash and ring have is the same.
func TestR5SlotWrittenDuringIngest(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m, evil := r.session(1), r.session(1)
	var stop atomic.Bool
	done := make(chan struct{})
	// evil has m's key, and writes whole pages and halves of them to all of m's slots.
	go func() {
		defer close(done)
		b := rdma.NewBatch(16)
		for i := 0; !stop.Load(); i++ {
			n := evil.page(layout.Address(i%40), wire.MakeAttempt(3, uint32(i)))
			b.Reset()
			for slot := range int(m.s.Slots) {
				b.Write(evil.mem.Slice(0, n), remote(m.s.StagingWrite, slot*4096))
				b.Write(evil.mem.Slice(32, 16), remote(m.s.StagingWrite, slot*4096+32))
			}
			if evil.append.Do(t.Context(), b) != nil {
				return
			}
		}
	}()
	for a := range layout.Address(40) {
		_, _, err := m.write(a, wire.MakeAttempt(9, uint32(a)), true)
		must(t, err)
		switch got := m.ack(a); got.State {
		case wire.Durable:
			verify(t, m.ring(a), a)
			_, page := m.cold(wire.RequestID(a), a)
			verify(t, page, a)
		case wire.Corrupt:
		default:
			t.Fatalf("ack %+v", got)
		}
	}
	stop.Store(true)
	<-done
}

// A client that takes no acks is cut off; the others go on.
func TestSlowClientIsCutOff(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	good := r.session(1)
	good.put(0)
	s, err := r.ctl.OpenSession(t.Context(), &pb.OpenSessionRequest{Log: logID[:], Epoch: 1, Client: 10})
	must(t, err)
	// It never calls Receive, and has room for one message.
	slow, err := r.dev.Dial(timeout(t), s.Fabric, s.AppendToken, rdma.ConnOptions{RecvDepth: 1})
	must(t, err)
	defer slow.Close()
	reader, err := r.dev.Dial(timeout(t), s.Fabric, s.ReadToken, rdma.ConnOptions{})
	must(t, err)
	defer reader.Close()
	b := rdma.NewBatch(rdma.MaxBatch)
	go func() {
		for {
			b.Reset()
			for range rdma.MaxBatch {
				b.SendInline(wire.Doorbell{Address: 0}.Append(nil))
			}
			if slow.Do(t.Context(), b) != nil {
				return
			}
		}
	}()
	select {
	case <-slow.Broken():
	case <-time.After(wait):
		t.Fatal("the slow client is still there")
	}
	good.put(1)
}

// inFlight counts the addresses from … to−1 without an ack. One address may be acknowledged
// twice: to the owner of its slot, and to a doorbell that came later. mu is held.
func (m *mini) inFlight(from, to layout.Address) int {
	acked := map[layout.Address]bool{}
	for _, x := range m.acks {
		acked[x.Address] = true
	}
	n := 0
	for a := from; a < to; a++ {
		if !acked[a] {
			n++
		}
	}
	return n
}

// R6, R15: seals and sessions that come and go under load lose nothing that was acknowledged.
func TestSealsUnderLoad(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	next := layout.Address(0)
	for e := layout.Epoch(1); e < 6; e++ {
		m := r.session(e)
		started := make(chan struct{})
		done := make(chan layout.Address)
		go func() {
			a := next
			for ; ; a++ {
				if a == next+5 {
					close(started)
				}
				// A staging slot is used again once its credit came back.
				m.await("credit", func() bool { return m.ended || m.inFlight(next, a) < int(m.s.Slots) })
				if _, old, err := m.write(a, wire.MakeAttempt(9, uint32(a)), true); err != nil || old.State() != wire.Empty {
					break
				}
			}
			done <- a
		}()
		<-started
		snap := r.open(e+1, false)
		<-done
		m.mu.Lock()
		for _, a := range m.acks {
			if a.Address >= layout.Address(snap.Watermark) || a.State != wire.Durable {
				t.Errorf("epoch %d: ack %+v, snapshot %v", e, a, snap)
			}
		}
		m.mu.Unlock()
		next = layout.Address(snap.End)
	}
	m := r.session(6)
	m.put(next)
}
