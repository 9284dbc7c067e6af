package flashbench

import (
	"context"
	"testing"
	"time"

	"corfu/tools/corfu/internal/scratch"
)

// The engine's own rows, small: everything written is acknowledged, everything read verifies, and a start finds it all.
func TestEngineWritesReadsAndStartsAgain(t *testing.T) {
	dir, remove, err := scratch.Dir("flashbench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = remove() })
	if err := Fill(dir, 5000, 1000); err != nil {
		t.Fatal(err)
	}
	e, err := OpenEngine(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := 50 * time.Millisecond
	got := together(
		func() measured { return as(e.Writes(context.Background(), 16, d)) },
		func() measured { return as(e.Reads(context.Background(), 5000, 4, d)) })
	alone := as(e.Writes(context.Background(), 1, d))
	for _, m := range append(got, alone) {
		if m.err != nil {
			t.Fatal(m.err)
		}
	}
	v := e.u.View()
	if v.Watermark != e.next || v.End != e.next || e.flying != 0 || len(e.free) != slots {
		t.Fatalf("watermark %d, end %d, %d batches in flight, %d slots free; want %d, %d, 0, %d", v.Watermark, v.End, e.flying, len(e.free), e.next, e.next, slots)
	}
	end := e.next
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e, err = OpenEngine(dir); err != nil {
		t.Fatal(err)
	}
	if e.next != end {
		t.Fatalf("starts with %d pages, want %d", e.next, end)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// A ratio is the median of the rounds' quotients, with the lowest and the highest.
func TestRatioOfRounds(t *testing.T) {
	got := divide("x", []float64{10, 30, 8, 5}, []float64{10, 10, 4, 0})
	if want := (Ratio{Name: "x", Ratio: 2, Min: 1, Max: 3, Met: true}); got != want {
		t.Fatalf("%+v, want %+v", got, want)
	}
}
