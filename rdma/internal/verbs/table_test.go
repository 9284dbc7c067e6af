//go:build cgo

package verbs

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

func posted(t *Table, slot, gen, n uint32, spinning bool) *Call {
	c := NewCall()
	c.Slot, c.Gen, c.N = slot, gen, n
	t.Open(c, spinning)
	return c
}

// What one thread that reaps sees: order, first error, generations, strays.
func TestTableComplete(t *testing.T) {
	type cqe struct {
		slot, op, gen uint32
		s             Status
	}
	for _, c := range []struct {
		name  string
		cqes  []cqe
		woken []uint32
		slot  Slot // of slot 1, generation 7, 4 operations
		stray uint64
	}{
		{"the last operation ends the batch", []cqe{{1, 3, 7, 0}}, []uint32{1}, Slot{State: 7<<2 | 3, Last: 3}, 0},
		{"an earlier one does not", []cqe{{1, 1, 7, 0}}, nil, Slot{State: 7<<2 | 1, Last: 3}, 0},
		{"the first error counts", []cqe{{1, 1, 7, StatusRemAccess}, {1, 2, 7, StatusWRFlush}, {1, 3, 7, StatusWRFlush}}, []uint32{1},
			Slot{State: 7<<2 | 3, Last: 3, ErrOp: 1, Status: StatusRemAccess, VendorErr: 5}, 0},
		{"an error alone ends nothing", []cqe{{1, 0, 7, StatusRetryExc}}, nil,
			Slot{State: 7<<2 | 1, Last: 3, Status: StatusRetryExc, VendorErr: 5}, 0},
		{"of another generation", []cqe{{1, 3, 6, 0}, {1, 3, 8, 0}}, nil, Slot{State: 7<<2 | 1, Last: 3}, 2},
		{"after the end", []cqe{{1, 3, 7, 0}, {1, 3, 7, 0}}, []uint32{1}, Slot{State: 7<<2 | 3, Last: 3}, 1},
		{"of no slot", []cqe{{9, 0, 0, 0}, {0, 0, 0, 0}}, nil, Slot{State: 7<<2 | 1, Last: 3}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			tb := NewTable(4)
			defer tb.Free()
			defer posted(tb, 1, 7, 4, false).Free()
			r := NewCall()
			defer r.Free()
			for _, e := range c.cqes {
				tb.Complete(r, WRID(e.slot, e.op, e.gen), e.s, 5*uint32(min(e.s, 1)))
			}
			got := r.Woken[:r.NWoken]
			if len(got) != len(c.woken) || len(got) > 0 && got[0] != c.woken[0] {
				t.Errorf("woken %v, want %v", got, c.woken)
			}
			if s := tb.Slots()[1]; s != c.slot {
				t.Errorf("slot %+v, want %+v", s, c.slot)
			}
			if tb.Stray() != c.stray {
				t.Errorf("%d strays, want %d", tb.Stray(), c.stray)
			}
		})
	}
}

// A spinner's batch is the spinner's to finish, not the reaper's.
func TestTableSpinner(t *testing.T) {
	tb := NewTable(1)
	defer tb.Free()
	c := posted(tb, 0, 1, 1, true)
	defer c.Free()
	r := NewCall()
	defer r.Free()
	tb.Complete(r, WRID(0, 0, 1), 0, 0)
	if r.NWoken != 0 || !tb.Done(c) || tb.Unspin(c) || tb.Spin(c) {
		t.Errorf("woken %d, done %v", r.NWoken, tb.Done(c))
	}
}

// Whatever the interleaving of a spinner that comes and goes and a reaper, each
// batch is finished by exactly one of them.
func TestTableFinishedOnce(t *testing.T) {
	const rounds = 20000
	tb := NewTable(2)
	defer tb.Free()
	var finished [rounds + 1]atomic.Int32
	gens := make(chan uint32, 1)
	var wg sync.WaitGroup
	wg.Go(func() { // reaps
		r := NewCall()
		defer r.Free()
		for gen := range gens {
			r.NWoken = 0
			tb.Complete(r, WRID(1, 0, gen), 0, 0)
			for range r.NWoken {
				finished[gen].Add(1)
			}
		}
	})
	rnd := rand.New(rand.NewPCG(1, 2))
	c := NewCall()
	defer c.Free()
	for gen := uint32(1); gen <= rounds; gen++ {
		c.Slot, c.Gen, c.N = 1, gen, 1
		spinning := rnd.IntN(2) == 0
		tb.Open(c, spinning)
		gens <- gen
		for finished[gen].Load() == 0 {
			if !spinning {
				spinning = tb.Spin(c)
				continue
			}
			if !tb.Done(c) {
				if rnd.IntN(3) > 0 {
					continue
				}
				if spinning = !tb.Unspin(c); !spinning {
					continue
				}
			}
			finished[gen].Add(1)
			spinning = false
		}
	}
	close(gens)
	wg.Wait()
	for gen := range finished {
		if n := finished[gen].Load(); gen > 0 && n != 1 {
			t.Fatalf("batch %d was finished %d times", gen, n)
		}
	}
}

// Children are destroyed before their parents, whatever the order of Close.
func TestObjectOrder(t *testing.T) {
	var log []string
	var parent, child object
	parent = live(func() error { log = append(log, "parent"); return nil })
	child = live(func() error { log = append(log, "child"); return nil }, &parent)
	for range 2 {
		if err := parent.Close(); err != nil || len(log) != 0 {
			t.Fatalf("%v, destroyed %v", err, log)
		}
	}
	for range 2 {
		if err := child.Close(); err != nil || len(log) != 2 || log[0] != "child" || log[1] != "parent" {
			t.Fatalf("%v, destroyed %v", err, log)
		}
	}
	// What cannot be destroyed keeps its parents.
	log = nil
	parent = live(func() error { log = append(log, "parent"); return nil })
	child = live(func() error { return errors.New("busy") }, &parent)
	if err := errors.Join(parent.Close(), child.Close()); err == nil || len(log) != 0 {
		t.Errorf("%v, destroyed %v", err, log)
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		Status(10).String():     "IBV_WC_REM_ACCESS_ERR",
		Status(21).String():     "IBV_WC_GENERAL_ERR",
		Status(99).String():     "ibv_wc_status(99)",
		Disconnected.String():   "RDMA_CM_EVENT_DISCONNECTED",
		EventType(-3).String():  "rdma_cm_event_type(-3)",
		EventType(200).String(): "rdma_cm_event_type(200)",
		GIDType(7).String():     "ibv_gid_type(7)",
		verbError("ibv_reg_mr", int(syscall.ENOMEM)).Error(): "ibv_reg_mr: cannot allocate memory (" +
			"RLIMIT_MEMLOCK too low? systemd: LimitMEMLOCK=infinity; shell: ulimit -l unlimited)",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if err := verbError("x", int(syscall.ENODEV)); !errors.Is(err, syscall.ENODEV) {
		t.Error("the errno is lost")
	}
}
