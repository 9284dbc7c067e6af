package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
	"corfu/unit/flash"
)

// entries are what ReadRange yields, as text.
func entries(t *testing.T, l *client.Log, from, to layout.Position) (list []string) {
	t.Helper()
	for e, err := range l.ReadRange(within(t), from, to) {
		if err != nil {
			t.Fatalf("ReadRange(%d, %d) after %d entries: %v", from, to, len(list), err)
		}
		list = append(list, fmt.Sprintf("%d: %d bytes %.20q", e.Position, len(e.Payload), e.Payload))
	}
	return list
}

// singly are the same entries, each read by itself.
func singly(t *testing.T, l *client.Log, from, to layout.Position) (list []string) {
	t.Helper()
	var inside *client.FragmentError
	for p := from; p < to; p++ {
		b, err := l.Read(within(t), p)
		switch {
		case errors.As(err, &inside), errors.Is(err, client.ErrJunk), errors.Is(err, client.ErrTrimmed):
		case err != nil:
			t.Fatalf("Read(%d): %v", p, err)
		default:
			list = append(list, fmt.Sprintf("%d: %d bytes %.20q", p, len(b), b))
		}
	}
	return list
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("%s: %d entries, want %d; the first that differ: %q, want %q", what, len(got), len(want), got[i:min(i+1, len(got))], want[i:min(i+1, len(want))])
		}
	}
}

// A range that is read in runs has what single reads find: entries of all sizes, larger ones, junk,
// positions that were trimmed; in the window and below; over several chains and over epochs; with
// a window that wraps around inside a run.
func TestRunsFindWhatSingleReadsFind(t *testing.T) {
	durabilities(t, func(t *testing.T, d layout.Durability) {
		c := start(t, devcluster.Options{Chains: 3, Durability: d, Geometry: layout.Geometry{PageSize: 4096, Window: 64, SessionSlots: 16, MaxSessions: 8}})
		l := c.open(client.Options{})
		ctx := within(t)
		write := func(from, to int) {
			for i := from; i < to; i++ {
				payload := bytes.Repeat([]byte{byte('a' + i%26)}, i*37%l.PagePayload())
				if i%50 == 49 {
					payload = bytes.Repeat([]byte{'L'}, 3*l.PagePayload()-i)
				}
				if _, err := l.Append(ctx, payload); err != nil {
					t.Fatal(err)
				}
			}
		}
		write(0, 400)
		if _, err := c.Reconfigure(ctx); err != nil {
			t.Fatal(err)
		}
		write(400, 600)
		for _, p := range []layout.Position{5, 77, 130, 131, 132, 500} {
			if err := l.Trim(ctx, p); err != nil {
				t.Fatal(err)
			}
		}
		tail, err := l.Tail(ctx)
		if err != nil {
			t.Fatal(err)
		}
		want := singly(t, l, 0, tail)
		if len(want) < 590 {
			t.Fatalf("%d entries by single reads; want nearly 600", len(want))
		}
		for _, from := range []layout.Position{0, 1, tail - 150, tail - 1} {
			r := c.open(client.Options{})
			for round := range 2 { // the first learns what has left the window, the second knows
				got := entries(t, r, from, tail)
				from := from
				i := 0
				for i < len(want) && positionOf(want[i]) < from {
					i++
				}
				same(t, fmt.Sprintf("from %d, round %d", from, round), got, want[i:])
			}
		}
	})
}

func positionOf(s string) (p layout.Position) {
	_, _ = fmt.Sscanf(s, "%d:", &p)
	return p
}

// A range costs a list for each block and chain, not one for each position, in the window and below.
func TestARangeIsReadByFewLists(t *testing.T) {
	c := start(t, devcluster.Options{Chains: 2, Geometry: layout.Geometry{PageSize: 4096, Window: 256, SessionSlots: 16, MaxSessions: 8}})
	l := c.open(client.Options{})
	fillLog(t, l, 1500)
	tail, err := l.Tail(within(t))
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	r := c.open(client.Options{Registerer: reg})
	for range 2 { // sessions, and what has left the window, are known the second time
		for _, span := range [][2]layout.Position{{0, 500}, {tail - 200, tail}} {
			was, n := counterOf(t, reg, "corfu_client_read_runs_total"), span[1]-span[0]
			if got := len(entries(t, r, span[0], span[1])); got != int(n) {
				t.Fatalf("%d entries of %d", got, n)
			}
			if lists := counterOf(t, reg, "corfu_client_read_runs_total") - was; lists < 1 || lists > float64(n)/16 {
				t.Errorf("positions %v were read by %v lists; want at most one for 16 positions", span, lists)
			}
		}
	}
	if cold := counterOf(t, reg, "corfu_client_cold_reads_total"); cold < 1000 || cold > 1300 {
		t.Errorf("%v pages came from flash; want the 2 × 500 that had left the window", cold)
	}
}

func counterOf(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			return f.Metric[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// Copies of the tail that do not verify, and a disk that cannot be read: a run leaves them to
// another replica, and yields what was written.
func TestRunsOverADamagedTail(t *testing.T) {
	c, l, d := sickCluster(t, 2)
	n := 2 * smallGeometry.Window
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("%d: %d bytes %.20q", i, len(payloadOf(i)), payloadOf(i)))
	}
	for _, a := range []int{0, 7, 8, 63, 64, 130} {
		c.spoil(2, a)
	}
	same(t, "with flipped bits", entries(t, c.open(client.Options{}), 0, layout.Position(n)), want)
	if !client.InLab() {
		d.read.Store(true)
		same(t, "with a disk that cannot be read", entries(t, l, 0, layout.Position(n)), want)
		d.read.Store(false)
	}
}

// A unit of the release before knows no runs by message: what has left the window is read singly.
func TestRunsOfUnitsThatKnowNone(t *testing.T) {
	client.NotInLab(t, "what a unit does not offer")
	c := start(t, devcluster.Options{Chains: 2, Flash: flash.Options{SegmentPages: 64}})
	l := c.open(client.Options{})
	fillLog(t, l, 2000)
	entries(t, l, 0, 10) // opens the sessions
	client.ForgetReadRun(l)
	if got := len(entries(t, l, 0, 2000)); got != 2000 {
		t.Errorf("%d entries of 2000", got)
	}
}

// A reader that stops early, and one whose context ends, leave nothing behind: memory that a unit
// may still write to is not used again before.
func TestRunsThatAreBrokenOff(t *testing.T) {
	c := start(t, devcluster.Options{Chains: 2})
	l := c.open(client.Options{})
	const all = 600
	fillLog(t, l, all)
	for i := range 20 {
		n := 0
		ctx, cancel := context.WithCancel(within(t))
		for _, err := range l.ReadRange(ctx, 0, all) {
			if n++; err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if n == i {
				cancel()
			}
			if n == 2*i {
				break
			}
		}
		cancel()
	}
	if got := len(entries(t, l, 0, all)); got != all {
		t.Errorf("%d entries of %d", got, all)
	}
}
