package server_test

import (
	"bytes"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma"
	"corfu/rdma/tcp"
	"corfu/unit/server"
)

func TestAppendReadAndColdRead(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m := r.session(1)
	const n = 200 // three times around the window
	for a := range layout.Address(n) {
		m.put(a)
	}
	last := layout.Address(n - 1)
	if w := m.look(last); w.State() != wire.Durable || w.Generation() != testGeometry.Generation(last) {
		t.Fatalf("word of %d is %v", last, w)
	}
	verify(t, m.ring(last), last)
	for i, a := range []layout.Address{0, 31, 32, 100, last} {
		reply, page := m.cold(wire.RequestID(i+1), a)
		if reply != (wire.Reply{Request: wire.RequestID(i + 1), State: wire.Durable}) {
			t.Fatalf("cold read of %d: %+v", a, reply)
		}
		verify(t, page, a)
	}
	if reply, _ := m.cold(50, n+1); reply.Status != wire.StatusTooNew {
		t.Fatalf("cold read of an empty address: %+v", reply)
	}
	m.send(m.append, wire.MaxAddr{Request: 60}.Append(nil))
	if reply := m.reply(60); reply.Value != n {
		t.Fatalf("max address: %+v", reply)
	}
	must(t, r.unit.Health())
}

// A run of addresses is answered with pages and states: below the window, in it, trimmed, junk,
// above all entries.
func TestReadRun(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m := r.session(1)
	const n = 200
	for a := range layout.Address(n) {
		if a == 33 || a == n-2 {
			m.junk(a)
		} else {
			m.put(a)
		}
	}
	m.send(m.append, wire.Trim{Request: 1, Address: 35}.Append(nil))
	if got := m.reply(1); got.Status != wire.StatusOK {
		t.Fatalf("trim: %+v", got)
	}
	if m.s.ReadRun != 64 {
		t.Fatalf("the session offers runs of %d; want 64", m.s.ReadRun)
	}
	const page = 4096
	mem, err := r.dev.Alloc(64 * (page + 8))
	must(t, err)
	defer func() { must(t, mem.Close()) }()
	reg, err := r.dev.Register(mem, 0, mem.Len(), rdma.RemoteWrite)
	must(t, err)
	defer func() { must(t, reg.Close()) }()
	for i, run := range []struct{ a, n layout.Address }{{0, 64}, {30, 10}, {n - 40, 60}, {n - 1, 1}, {n + 5, 2}} {
		for k := range mem.Bytes() {
			mem.Bytes()[k] = 0xee
		}
		id, to := wire.RequestID(10+i), reg.Remote(0)
		m.send(m.read, wire.ReadRun{Request: id, Count: int(run.n), Address: run.a, States: reg.Remote(64 * page).Addr,
			Pages: wire.Buffer{Addr: to.Addr, Key: uint32(to.Key)}}.Append(nil))
		reply := m.reply(id)
		if reply.Status != wire.StatusOK || reply.Value < uint64(n-testGeometry.Window) || reply.Value > n {
			t.Fatalf("run from %d on: %+v; want OK and the window's base", run.a, reply)
		}
		for k := range run.n {
			a, want := run.a+k, wire.Durable
			switch {
			case a >= n:
				want = wire.Empty
			case a == 33, a == n-2:
				want = wire.DurableJunk
			case a == 35:
				want = wire.Trimmed
			}
			got := mem.Bytes()[k*page : (k+1)*page]
			if state := wire.State(mem.Load(int(64*page + 8*k))); state != want {
				t.Errorf("run from %d on: address %d is %v; want %v", run.a, a, state, want)
			} else if want == wire.Durable {
				verify(t, got, a)
			} else if !bytes.Equal(got, make([]byte, page)) {
				t.Errorf("address %d is %v, and its page is not zero", a, want)
			}
		}
		if left := mem.Bytes()[run.n*page : 64*page]; !bytes.Equal(left, bytes.Repeat([]byte{0xee}, len(left))) {
			t.Errorf("run of %d wrote behind its pages", run.n)
		}
	}
	must(t, r.unit.Health())
}

// A run of no addresses, or of more than the unit offered, ends the session: it is a bug or an attack.
func TestReadRunOfBadLength(t *testing.T) {
	for _, n := range []int{0, 65, 65535} {
		r := newRig(t, tcp.Options{})
		r.open(1, true)
		m := r.session(1)
		to := m.region.Remote(0)
		m.send(m.read, wire.ReadRun{Request: 1, Count: n, Pages: wire.Buffer{Addr: to.Addr, Key: uint32(to.Key)}, States: to.Addr}.Append(nil))
		m.await(fmt.Sprintf("the end of a session that asked for %d addresses", n), func() bool { return m.ended })
		must(t, r.unit.Health())
	}
}

// Words without a doorbell are found; a session that did not ring gets its credit all the same.
func TestScanFindsWordsWithoutDoorbell(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m := r.session(1)
	use, _, err := m.write(0, 1, false)
	must(t, err)
	if got := m.ack(0); got != (wire.Ack{Address: 0, Use: use, State: wire.Durable}) {
		t.Fatalf("ack is %+v", got)
	}
}

func TestJunkAndTrim(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m := r.session(1)
	m.put(0)
	junk := wire.MakeWord(wire.Junk, 0, wire.Use{Slot: wire.StagingSlot(m.s.FirstSlot), Count: 5}.Tag())
	if old, err := m.cas(1, wire.EmptyWord(0, 1), junk, true); err != nil || old != wire.EmptyWord(0, 1) {
		t.Fatal(old, err)
	}
	if got := m.ack(1); got.State != wire.DurableJunk {
		t.Fatalf("ack is %+v", got)
	}
	m.put(2)
	trim := func(id wire.RequestID, a layout.Address, prefix bool) wire.Reply {
		m.send(m.read, wire.Trim{Request: id, Prefix: prefix, Address: a}.Append(nil))
		return m.reply(id)
	}
	if got := trim(1, 3, false); got.Status != wire.StatusTooNew {
		t.Fatalf("trim of an empty address: %+v", got)
	}
	for id := wire.RequestID(2); id < 4; id++ { // twice
		if got := trim(id, 2, false); got != (wire.Reply{Request: id, State: wire.Trimmed}) {
			t.Fatalf("trim: %+v", got)
		}
	}
	if w := m.look(2); w.State() != wire.Trimmed {
		t.Fatalf("word is %v", w)
	}
	if got := trim(5, 4, true); got.Status != wire.StatusTooNew {
		t.Fatalf("trim of a prefix beyond the end: %+v", got)
	}
	if got := trim(6, 2, true); got != (wire.Reply{Request: 6, State: wire.Trimmed}) {
		t.Fatalf("trim of a prefix: %+v", got)
	}
	m.put(3)
	r.restart()
	snap, err := r.seal(2, 1)
	must(t, err)
	if snap.TrimmedBelow != 2 || snap.Watermark != 4 || snap.End != 4 {
		t.Fatalf("snapshot after a restart: %v", snap)
	}
	var states []wire.State
	for _, e := range r.entries(2) {
		states = append(states, wire.State(e.State))
	}
	want := []wire.State{wire.Trimmed, wire.Trimmed, wire.Trimmed, wire.Durable}
	if len(states) != 4 || [4]wire.State(states) != [4]wire.State(want) {
		t.Fatalf("entries are %v, want %v", states, want)
	}
}

func TestTokenIsGoodOnce(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m := r.session(1)
	if _, err := r.dev.Dial(timeout(t), m.s.Fabric, m.s.AppendToken, connOptions); err == nil {
		t.Fatal("a used token opened a connection")
	}
	if _, err := r.dev.Dial(timeout(t), m.s.Fabric, nil, connOptions); err == nil {
		t.Fatal("no token opened a connection")
	}
	m.put(0)
}

func TestBadMessageEndsTheSession(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m, other := r.session(1), r.session(1)
	b := rdma.NewBatch(1)
	b.SendInline([]byte("this is not a message"))
	_ = m.append.Do(t.Context(), b) // the unit may close the connection before it has answered
	m.await("the end of the session", func() bool { return m.ended })
	other.put(0)
}

func TestSessionsAreBoundedAndComeBack(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	var all []*mini
	for range server.Capacity(testGeometry) {
		all = append(all, r.session(1))
	}
	_, err := r.trySession(1)
	wantCode(t, err, codes.ResourceExhausted)
	_ = all[0].append.Close()
	eventually(t, "a free session", func() bool {
		m, err := r.trySession(1)
		if err == nil {
			m.put(0)
		}
		return err == nil
	})
	all[1].put(1)
}

// A client opens one session at a time: what it did not connect to is not kept for it, and what it did connect to is, as are others'.
func TestSessionNotConnectedToIsReplaced(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m := r.session(1)
	m.put(0)
	q := &pb.OpenSessionRequest{Log: logID[:], Epoch: 1, Client: 1000}
	other, err := r.ctl.OpenSession(t.Context(), &pb.OpenSessionRequest{Log: logID[:], Epoch: 1, Client: 1001})
	must(t, err)
	for range 3 * server.Capacity(testGeometry) {
		_, err := r.ctl.OpenSession(t.Context(), q)
		must(t, err)
	}
	c, err := r.dev.Dial(timeout(t), other.Fabric, other.AppendToken, connOptions)
	must(t, err)
	must(t, c.Close())
	m.put(1)
}
