package verbs

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

// TestWaitAtTheEnd: a Wait that meets the end of the queue pair between its first look and its crossing into C has no answer from C.
// It must not take what the last user of its Call left there, which mostly says "done": the batch would end twice, once
// with success that nobody saw.
func TestWaitAtTheEnd(t *testing.T) {
	b := rdma.NewBatch(1)
	b.FetchAdd(rdma.Remote{Addr: 8, Key: 1}, 1)
	b.Begin()
	used := ib.NewCall()
	defer used.Free()
	used.Done = 1 // as the fast path leaves it
	c := &conn{users: newGate(), calls: newGate(), slots: []slot{{b: b, n: 1}}, inflight: 1, idle: []*ib.Call{used}}
	<-c.shut(&c.calls) // what destroy does first

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Wait(ctx, b); !errors.Is(err, context.DeadlineExceeded) || !b.InFlight() {
		t.Fatalf("Wait: %v, in flight: %v; want the context's error, and the batch in flight", err, b.InFlight())
	}

	c.mu.Lock() // what it does once the queue pair is gone
	c.vacate(0)
	b.Complete(opError(b.Ops, 0, ib.StatusNotCompleted, 0))
	c.mu.Unlock()
	if err := c.Wait(t.Context(), b); !errors.Is(err, rdma.ErrBroken) {
		t.Errorf("Wait: %v, want ErrBroken", err)
	}
	if c.inflight != 0 || c.calls.n != 0 || c.users.n != 0 || len(b.Done()) != 0 {
		t.Errorf("%d batches in flight, %d in C, %d users, %d tokens; want none", c.inflight, c.calls.n, c.users.n, len(b.Done()))
	}
}

// TestPeerThatIsGone: a peer that vanished without a word, as with its machine, is found out on a connection on which nothing
// is posted, too. A queue pair in the error state answers nothing, as one that is not there. While it is there nothing happens.
func TestPeerThatIsGone(t *testing.T) {
	d := lab(t)
	for name, here := range map[string]int{"the one that dialled": 0, "the one that accepted": 1} {
		c, s := pair(t, d, rdma.ConnOptions{SendDepth: 1})
		near, far := []rdma.Conn{c, s}[here], []rdma.Conn{c, s}[1-here]
		select {
		case <-near.Broken():
			t.Fatalf("%s, and the peer is there: %v", name, near.Err())
		case <-far.Broken():
			t.Fatalf("the peer of %s: %v", name, far.Err())
		case <-time.After(2*probeEvery + time.Second):
		}
		gone := far.(*conn)
		<-gone.shut(&gone.calls) // nor does it look for us
		if err := gone.qp.Error(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-near.Broken():
			if !strings.Contains(near.Err().Error(), ib.StatusRetryExc.String()) {
				t.Errorf("%s: %v, want it to be found out", name, near.Err())
			}
		case <-time.After(2*probeEvery + 10*time.Second):
			t.Errorf("%s does not notice that its peer is gone", name)
		}
	}
}
