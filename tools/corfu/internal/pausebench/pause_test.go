package pausebench

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"corfu/rdma/tcp"
)

func TestMeasure(t *testing.T) {
	dev, err := tcp.Open(tcp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("CORFU_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for _, kind := range Kinds(dev) {
		steps := 0
		o := Options{Device: dev, Dir: t.TempDir(), Rounds: 1, Planned: 3, Payload: 4000, Logger: log, Step: func(string) { steps++ }}
		r, err := Measure(ctx, o, kind)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(r.Name, r.Pauses, r.Phases, r.Bar, r.Met())
		if r.Median() <= 0 || r.Phases["seal"] <= 0 || r.Phases["activate"] <= 0 {
			t.Errorf("%+v", r)
		}
		// A death cannot be got over before it is noticed: without an answer for fail_after, the last of which is up to one heartbeat old.
		if kind != Planned && r.Median() < failAfter-2*heartbeat {
			t.Errorf("%s took %v only: nothing died", kind, r.Median())
		}
		if len(r.Pauses) != o.Steps(kind) || steps != o.Steps(kind) {
			t.Errorf("%s: %d pauses, %d steps", kind, len(r.Pauses), steps)
		}
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
}

func TestMeasureRebuild(t *testing.T) {
	dev, err := tcp.Open(tcp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	steps := 0
	o := Options{Device: dev, Dir: t.TempDir(), Payload: 4000, Logger: slog.New(slog.DiscardHandler), Step: func(string) { steps++ }}
	b := RebuildOptions{Pages: 600, Rate: 2 << 20, PerSec: 200, Duration: 500 * time.Millisecond}
	r, err := MeasureRebuild(ctx, o, b)
	if err != nil {
		t.Fatal(err)
	}
	if r.Before.Count() != 100 || r.After.Count() != 100 || r.During.Count() == 0 || steps != 4 || r.Pages != 600 {
		t.Errorf("%d appends before, %d beside, %d after, %d steps: %+v", r.Before.Count(), r.During.Count(), r.After.Count(), steps, r)
	}
	// 600 pages of 4 KiB at 2 MiB a second: the rate is kept, or nothing was copied.
	if least := 500 * time.Millisecond; r.Copied < least {
		t.Errorf("copied after %v", r.Copied)
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
}
