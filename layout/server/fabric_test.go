package server

import (
	"testing"
	"time"

	"corfu/rdma"
)

type namedDevice struct{ rdma.Device }

func (namedDevice) Info() rdma.Info { return rdma.Info{Provider: "test"} }

// TestFabricThatFailedSaysWhy: a link that failed shows an error, also after heartbeats that were
// missed, of which it learned nothing.
func TestFabricThatFailedSaysWhy(t *testing.T) {
	f := newFabricLink(namedDevice{}, nil, time.Second)
	f.busy = true // a try that takes for ever
	for range 3 {
		f.keep(time.Second, time.Second, time.Second, false)
	}
	if s := f.look(); !s.failed || s.err == nil {
		t.Errorf("after 3 s of silence: %+v; want that it failed, and why", s)
	}
	f.keep(time.Second, time.Second, time.Second, true)
	if s := f.look(); !s.failed || s.err == nil {
		t.Errorf("after a heartbeat that was missed: %+v; want that it failed, and why", s)
	}
}
