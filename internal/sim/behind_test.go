package sim

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"corfu/client"
)

// leftBehind cuts off a reader together with the tail of the only chain. The log goes on without them, and what is appended there
// the reader must not call unwritten. Chance hardly ever gets there: the reader has to be in no operation when the network breaks.
func leftBehind(t *testing.T) (h *History, read error) {
	dir, h := scratch(t), newHistory()
	synctest.Test(t, func(t *testing.T) {
		f := NewFabric(*seedFlag, Weird{Late: time.Microsecond, Disk: 10 * time.Microsecond})
		c, err := start(f, dir, Shape{Chains: 1, Replicas: 2, Layouts: 1, Heals: true}, 2*time.Millisecond, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			c.close()
			time.Sleep(time.Minute)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var logs []*client.Log
		for _, name := range []string{"reader", "writer"} {
			l, err := c.open(ctx, name, client.Options{HoleTimeout: time.Millisecond, OpTimeout: 100 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			logs = append(logs, l)
		}
		h.append(ctx, logs[1], 1, "before")
		if err := h.read(ctx, logs[0], 0, 0); err != nil {
			t.Fatal(err)
		}
		for _, here := range []string{"reader", unitName(2)} {
			for _, there := range []string{"writer", unitName(1), seqName(1), layoutName(1)} {
				f.Block(here, there, true)
				f.Block(there, here, true)
			}
		}
		h.append(ctx, logs[1], 1, "behind")
		if e := logs[1].Layout().Epoch; e < 2 {
			t.Fatalf("the append was in epoch %d", e)
		}
		ctx, cancel = context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		read = h.read(ctx, logs[0], 0, 1)
	})
	return h, read
}

// Rule R12: the reader says that it does not know.
func TestR12ReaderThatWasLeftBehindDoesNotAnswer(t *testing.T) {
	h, err := leftBehind(t)
	if !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	if err := h.known.Check(); err != nil {
		t.Error(err)
	}
}
