package verbs

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

func mapped(t *testing.T, size int, lkey uint32) *rdma.Memory {
	m, err := rdma.MapMemory(size, false)
	if err != nil {
		t.Fatal(err)
	}
	m.Bind(lkey, func() error { return nil })
	t.Cleanup(func() { m.Close() })
	return m
}

// The whole of what a list becomes.
func TestFill(t *testing.T) {
	m, own := mapped(t, 8192, 11), mapped(t, 4096, 22)
	w := &words{mem: own, off: 64, base: own.Base() + 64, key: own.LKey(), free: []uint16{1, 3, 9}}
	b := rdma.NewBatch(5)
	b.Write(m.Slice(16, 4096), rdma.Remote{Addr: 0x1000, Key: 1})
	b.Read(m.Slice(32, 8), rdma.Remote{Addr: 0x2000, Key: 2})
	b.CompareSwap(rdma.Remote{Addr: 0x3000, Key: 3}, 5, 6)
	b.FetchAdd(rdma.Remote{Addr: 0x4000, Key: 4}, 7)
	b.Send(m.Slice(0, 5))
	b.SendInline([]byte("doorbell"))
	call := ib.NewCall()
	defer call.Free()
	if got := w.fill(call, b.Ops, []uint16{7}); !slices.Equal(got, []uint16{7, 9, 3}) || !slices.Equal(w.free, []uint16{1}) {
		t.Errorf("words taken %v, free %v", got, w.free)
	}
	want := []ib.WR{
		{Op: 1, Local: m.Base() + 16, Length: 4096, LKey: 11, Remote: 0x1000, RKey: 1},
		{Op: 2, Local: m.Base() + 32, Length: 8, LKey: 11, Remote: 0x2000, RKey: 2},
		{Op: 3, Local: own.Base() + 64 + 72, Length: 8, LKey: 22, Remote: 0x3000, RKey: 3, Compare: 5, Swap: 6},
		{Op: 4, Local: own.Base() + 64 + 24, Length: 8, LKey: 22, Remote: 0x4000, RKey: 4, Compare: 7},
		{Op: 5, Local: m.Base(), Length: 5, LKey: 11},
		{Op: 5, Inline: 1, Length: 8},
	}
	if int(call.N) != len(want) {
		t.Fatalf("%d work requests", call.N)
	}
	for i := range want {
		if call.WR[i] != want[i] {
			t.Errorf("%d: %+v, want %+v", i, call.WR[i], want[i])
		}
	}
	if got := string(call.Message[5][:8]); got != "doorbell" {
		t.Errorf("inline message %q", got)
	}
}

func TestCheck(t *testing.T) {
	m := mapped(t, 4096, 1)
	good := rdma.Op{Kind: rdma.OpWrite, Local: m.Slice(0, 8)}
	many := make([]rdma.Op, rdma.MaxBatch+1)
	for i := range many {
		many[i] = good
	}
	for _, c := range []struct {
		why string // "" if good
		ops []rdma.Op
	}{
		{"", []rdma.Op{good}},
		{"", many[:rdma.MaxBatch]},
		{"65 operations", many},
		{"0 operations", nil},
		{"unknown operation", []rdma.Op{good, {Kind: 17}}},
		{"no local memory", []rdma.Op{{Kind: rdma.OpRead}}},
		{"length 0", []rdma.Op{{Kind: rdma.OpSend, Local: m.Slice(0, 0)}}},
		{"outside", []rdma.Op{{Kind: rdma.OpWrite, Local: rdma.Local{Mem: m, Off: 4090, Len: 8}}}},
		{"outside", []rdma.Op{{Kind: rdma.OpWrite, Local: rdma.Local{Mem: m, Off: -8, Len: 8}}}},
		{"aligned", []rdma.Op{{Kind: rdma.OpFetchAdd, Remote: rdma.Remote{Addr: 4}}}},
		{"inline message", []rdma.Op{{Kind: rdma.OpSend, Inline: rdma.MaxInline + 1}}},
	} {
		err := check(c.ops, 256)
		if c.why == "" && err != nil || c.why != "" && (!errors.Is(err, rdma.ErrInvalid) || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%q: %v", c.why, err)
		}
	}
	if err := check(many[:8], 7); !errors.Is(err, rdma.ErrInvalid) {
		t.Errorf("longer than the queue: %v", err)
	}
}

// Only a refusal by the peer says that the operation had no effect.
func TestOpError(t *testing.T) {
	ops := []rdma.Op{{Kind: rdma.OpWrite}, {Kind: rdma.OpCompareSwap}}
	for s := range ib.Status(40) {
		want := rdma.ErrBroken
		switch s {
		case ib.StatusRemAccess, ib.StatusRemInvReq, ib.StatusRemOp:
			want = rdma.ErrRemoteAccess
		}
		e := opError(ops, 1, s, 0)
		if !errors.Is(e, want) || e.Index != 1 || e.Kind != rdma.OpCompareSwap || e.Detail != s.String() {
			t.Errorf("%v: %+v, want %v", s, e, want)
		}
	}
}

func TestAckTimeout(t *testing.T) {
	for d, want := range map[time.Duration]uint8{
		0: 1, 4096: 1, 8192: 1, 8193: 2, 16384: 2, 67 * time.Millisecond: 14, 68 * time.Millisecond: 15,
		time.Second: 18, time.Hour: 30, 100 * time.Hour: 31,
	} {
		if got := ackTimeout(d); got != want {
			t.Errorf("%v: code %d, want %d", d, got, want)
		}
		if want > 1 && want < 31 && (4096<<want < d || 4096<<(want-1) >= d) {
			t.Errorf("%v: the table is wrong", d)
		}
	}
}

// rdma_cm pads private data with zeros.
func TestPrivate(t *testing.T) {
	for _, s := range []string{"", "x", strings.Repeat("y", rdma.MaxPrivate), "ends with\x00\x00"} {
		padded := append(packPrivate([]byte(s)), make([]byte, 7)...)
		if got, ok := unpackPrivate(padded); !ok || string(got) != s {
			t.Errorf("%q came back as %q, %v", s, got, ok)
		}
	}
	for _, bad := range [][]byte{nil, {1}, {5, 1, 2}} {
		if _, ok := unpackPrivate(bad); ok {
			t.Errorf("took %v", bad)
		}
	}
}

func TestGate(t *testing.T) {
	g := newGate()
	for range 2 {
		if !g.enter() {
			t.Fatal("an open gate keeps one out")
		}
	}
	g.shut()
	g.leave()
	if g.enter() {
		t.Error("a shut gate lets one in")
	}
	select {
	case <-g.idle:
		t.Fatal("idle with one inside")
	default:
	}
	g.leave()
	<-g.idle
	if g.enter() {
		t.Error("a shut gate lets one in")
	}
	g.shut()
	empty := newGate()
	empty.shut()
	<-empty.idle
}
