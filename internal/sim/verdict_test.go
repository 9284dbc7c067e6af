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

// lateVerdict has two reconfigurers, of which the log of commands takes both (Weird.Rivals). The first one leaves out unit 2, and its verdict of epoch 2
// is late. The second one reaches unit 2, aborts epoch 2 and makes epoch 3 ACTIVE, in which an append is acknowledged. Then the late verdict
// arrives, and unit 1 is gone. Were epoch 2 the base now, its tail would count (rule R16): unit 3, which never heard of the append.
func lateVerdict(t *testing.T) error {
	dir, h := scratch(t), newHistory()
	var rewritten error
	synctest.Test(t, func(t *testing.T) {
		f := NewFabric(*seedFlag, Weird{Late: time.Microsecond, Disk: 10 * time.Microsecond, Rivals: true})
		c, err := start(f, dir, Shape{Chains: 1, Replicas: 2, Spares: 1, Layouts: 3, Heals: true}, 2*time.Millisecond, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		x := three{t, c, f}
		defer func() {
			c.close()
			time.Sleep(time.Minute)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l, err := c.open(ctx, "client", client.Options{HoleTimeout: time.Millisecond, OpTimeout: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}

		verdict, deliver := f.Hold(layoutName(1), methodActive)
		x.cut(layoutName(1), unitName(2))
		x.comes("verdict of epoch 2", verdict)
		c.raft.elect(layoutName(2))
		h.append(ctx, l, 1, "acknowledged")
		if e := l.Layout().Epoch; e != 3 {
			t.Fatalf("the append was in epoch %d", e)
		}
		deliver()
		time.Sleep(time.Millisecond)
		c.raft.depose()
		for _, other := range []string{"client", unitName(2), unitName(3), seqName(1), layoutName(1), layoutName(2)} {
			x.cut(unitName(1), other)
		}
		time.Sleep(time.Second)
		if err := h.read(ctx, l, 1, 0); err != nil {
			t.Fatal(err)
		}
		rewritten = c.raft.rewritten()
	})
	return errors.Join(h.known.Check(), rewritten)
}

// Rule R13: a verdict stands.
func TestR13LateVerdictsAreRefused(t *testing.T) {
	if err := lateVerdict(t); err != nil {
		t.Error(err)
	}
}
