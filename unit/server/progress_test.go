package server_test

import (
	"testing"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma"
	"corfu/rdma/tcp"
)

// follow asks for one Progress.
func (m *mini) follow(from layout.Address) {
	m.t.Helper()
	m.send(m.read, wire.Subscribe{From: from, Above: from}.Append(nil))
}

// heard waits until the session heard n Progress messages, and returns them.
func (m *mini) heard(n int) (list []wire.Progress) {
	m.t.Helper()
	m.await("Progress", func() bool {
		list = m.progress
		return len(m.progress) >= n
	})
	return list
}

// isFollowed reports what the last acks said.
func (m *mini) isFollowed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.followed
}

// settled returns once the unit took all that the session sent on its reading connection, and sent what
// that caused.
func (m *mini) settled(id wire.RequestID) []wire.Progress {
	m.t.Helper()
	m.send(m.read, wire.MaxAddr{Request: id}.Append(nil))
	m.reply(id)
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.progress
}

// A Subscribe is answered once: when there is something to say, with the newest. What comes then is
// said to the next one.
func TestProgressIsSaidOnceForEachSubscribe(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m, writer := r.session(1), r.session(1)
	if !m.s.Progress {
		t.Fatal("the session does not offer progress")
	}
	m.follow(0)
	if got := m.settled(1); len(got) != 0 {
		t.Fatalf("an empty unit says %v", got)
	}
	writer.put(0)
	if got := m.heard(1)[0]; got != (wire.Progress{Below: 1, Top: 1}) {
		t.Fatalf("after the first entry: %+v", got)
	}
	for a := range layout.Address(10) {
		writer.put(1 + a)
	}
	if got := m.settled(2); len(got) != 1 {
		t.Fatalf("%d messages to one Subscribe", len(got))
	}
	m.follow(1)
	if got := m.heard(2)[1]; got != (wire.Progress{Below: 11, Top: 11}) {
		t.Fatalf("after ten more: %+v", got)
	}
}

// A hole shows: something stands above what can be read. One who asks from behind it on is told of
// what follows.
func TestProgressShowsAHole(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m, behind, writer := r.session(1), r.session(1), r.session(1)
	writer.put(0)
	m.follow(1)
	behind.follow(2)
	m.settled(1)
	behind.settled(1)
	writer.put(2)
	if got := m.heard(1)[0]; got != (wire.Progress{Below: 1, Top: 3}) {
		t.Errorf("with a hole at 1: %+v", got)
	}
	if got := behind.heard(1)[0]; got != (wire.Progress{Below: 3, Top: 3}) {
		t.Errorf("from behind the hole on: %+v", got)
	}
	m.send(m.read, wire.Subscribe{From: 1, Above: testGeometry.MaxAddress() + 1}.Append(nil))
	writer.put(3)
	if got := m.settled(2); len(got) != 1 {
		t.Errorf("one that knows of the hole is told again: %+v", got)
	}
	writer.junk(1)
	if got := m.heard(2)[1]; got != (wire.Progress{Below: 4, Top: 4}) {
		t.Errorf("after the hole was filled: %+v", got)
	}
}

// Of many subscriptions of a connection the last one counts, and one message goes out.
func TestTheLastSubscriptionCounts(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m, writer := r.session(1), r.session(1)
	for a := range layout.Address(100) {
		m.follow(a)
	}
	m.follow(1)
	if got := m.settled(1); len(got) != 0 {
		t.Fatalf("an empty unit says %v", got)
	}
	writer.put(0)
	if got := m.settled(2); len(got) != 0 {
		t.Fatalf("from 1 on: %v, and there is nothing at 1", got)
	}
	writer.put(1)
	m.heard(1)
	writer.put(2)
	if got := m.settled(3); len(got) != 1 || got[0] != (wire.Progress{Below: 2, Top: 2}) {
		t.Fatalf("%v; want one message", got)
	}
}

// A client that floods the unit with subscriptions that are due at once, and takes no message, costs the unit one
// message that waits, and holds up nobody.
func TestFloodOfSubscriptionsHoldsUpNobody(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	good, writer := r.session(1), r.session(1)
	writer.put(0)
	s, err := r.ctl.OpenSession(t.Context(), &pb.OpenSessionRequest{Log: logID[:], Epoch: 1, Client: 10})
	must(t, err)
	a, err := r.dev.Dial(timeout(t), s.Fabric, s.AppendToken, rdma.ConnOptions{})
	must(t, err)
	defer a.Close()
	// It never calls Receive, and has room for one message.
	slow, err := r.dev.Dial(timeout(t), s.Fabric, s.ReadToken, rdma.ConnOptions{RecvDepth: 1})
	must(t, err)
	defer slow.Close()
	flooded := make(chan int)
	go func() {
		b := rdma.NewBatch(rdma.MaxBatch)
		n := 0
		for ; n < 200; n++ {
			b.Reset()
			for range rdma.MaxBatch {
				b.SendInline(wire.Subscribe{}.Append(nil))
			}
			if slow.Do(t.Context(), b) != nil {
				break // over verbs a peer without a buffer is cut off by the fabric
			}
		}
		flooded <- n
	}()
	for a := range layout.Address(20) {
		good.follow(1 + a)
		writer.put(1 + a)
		if got := good.heard(int(a) + 1)[a]; got.Below != a+2 {
			t.Fatalf("beside a flood: %+v after address %d", got, a+1)
		}
	}
	<-flooded
	must(t, r.unit.Health())
}

// Acknowledgements say whether somebody waits for entries.
func TestAcksSayThatSomebodyFollows(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m, writer := r.session(1), r.session(1)
	writer.put(0)
	if writer.isFollowed() {
		t.Error("nobody follows, and an ack says so")
	}
	m.follow(1)
	m.settled(1)
	writer.put(1)
	if !writer.isFollowed() {
		t.Error("somebody follows, and the ack does not say so")
	}
	_ = m.read.Close()
	a := layout.Address(2)
	eventually(t, "acks that say that nobody follows any more", func() bool {
		writer.put(a)
		a++
		return !writer.isFollowed()
	})
}

// A seal ends the session, and with it the subscription: nothing is said of the next epoch.
func TestSealEndsSubscriptions(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m := r.session(1)
	m.follow(0)
	m.settled(1)
	r.open(2, false)
	m.await("the end of the session", func() bool { return m.ended })
	next := r.session(2)
	next.follow(0)
	next.settled(1)
	next.put(0)
	if got := next.heard(1); len(got) != 1 || got[0] != (wire.Progress{Below: 1, Top: 1}) {
		t.Errorf("in the next epoch: %v", got)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.progress) != 0 {
		t.Errorf("a session that is over heard %v", m.progress)
	}
}

// A session that ends with a subscription leaves nothing behind at the unit, and others hear on.
func TestSessionThatEndsWithASubscription(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	writer := r.session(1)
	for i := range layout.Address(10) {
		m := r.session(1)
		m.follow(i)
		m.settled(1)
		_ = m.read.Close()
		eventually(t, "the end of a session", func() bool { return r.state().Sessions == 1 })
		other := r.session(1)
		other.follow(i)
		writer.put(i)
		if got := other.heard(1)[0]; got != (wire.Progress{Below: i + 1, Top: i + 1}) {
			t.Fatalf("%+v after address %d", got, i)
		}
		_ = other.read.Close()
		eventually(t, "the end of a session", func() bool { return r.state().Sessions == 1 })
	}
	must(t, r.unit.Health())
}
