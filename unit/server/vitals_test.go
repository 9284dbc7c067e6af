package server_test

import (
	"context"
	"testing"
	"time"

	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma/tcp"
)

// TestVitalsCountWhatClientsDid: pages and cold reads, of the unit and of each client, and room; only for those who ask.
func TestVitalsCountWhatClientsDid(t *testing.T) {
	r := newRig(t, tcp.Options{})
	r.open(1, true)
	m := r.session(1)
	const n = 200 // beyond the window of 64
	for a := layout.Address(0); a < n; a++ {
		m.put(a)
	}
	m.cold(1, 0)
	m.cold(2, 1)
	// A doorbell that comes when its page was found already is answered once more.
	acked := func(c []*pb.ClientVitals) bool { return len(c) == 1 && c[0].Pages >= n && c[0].Pages <= 2*n }
	state := func(clients uint32) *pb.UnitStateReply {
		s, err := r.ctl.State(context.Background(), &pb.UnitStateRequest{Vitals: clients})
		must(t, err)
		return s
	}
	var got *pb.UnitVitals
	for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		// A read is counted once its answer is out, and a page is flushed before it is counted as settled.
		if got = state(10).Vitals; got.ColdReads == 2 && got.Waiting == 0 && len(got.Clients) == 1 && got.Clients[0].ColdReads == 2 {
			break
		}
	}
	if got.Pages != n || got.ColdReads != 2 || got.Waiting != 0 || got.Tampered != 0 || got.Full || got.UsedBytes == 0 || got.FreeBytes == 0 ||
		!acked(got.Clients) || got.Clients[0].ColdReads != 2 {
		t.Errorf("vitals are %v", got)
	}
	if s := state(0); s.Vitals != nil {
		t.Errorf("nobody asked for %v", s.Vitals)
	}
	m2 := r.session(1)
	if got := state(1).Vitals.Clients; !acked(got) {
		t.Errorf("the busiest client is %v", got)
	}
	m2.close()
}
