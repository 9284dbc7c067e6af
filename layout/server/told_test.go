package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

// TestChangeAskedForBeforeTheLogBeginsIsMade: the first epoch is made without it, and is no answer to who asked.
func TestChangeAskedForBeforeTheLogBeginsIsMade(t *testing.T) {
	c := withSpare(t)
	c.template.Spares, c.cfg.FailAfter = nil, patient
	var asked atomic.Bool
	c.spare.setHook(func(string, layout.Epoch) error { // it is asked for its state once the request is there
		asked.Store(true)
		return nil
	})
	c.units[1].setHook(func(string, layout.Epoch) error {
		if !asked.Load() {
			return status.Error(codes.Unavailable, "starts")
		}
		return nil
	})
	l, err := c.start().ask(&pb.ReconfigureRequest{Add: []*pb.Unit{{Id: 5, Control: c.spare.addr}}})
	if err != nil || !slices.Contains(l.Spares, layout.Unit{ID: 5, Control: c.spare.addr}) {
		t.Errorf("told done: %+v, %v", l, err)
	}
}

// TestChangeAskedForWhileAMemberIsNotActivatedIsMade: it missed the activation, and cannot be activated or left out now. What is asked for is done
// all the same, or refused.
func TestChangeAskedForWhileAMemberIsNotActivatedIsMade(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.Internal} {
		t.Run(code.String(), func(t *testing.T) {
			c := withSpare(t)
			c.template.Spares, c.cfg.MinReplicas = nil, 2
			c.start().open(1)
			var mended atomic.Bool
			c.units[1].setHook(func(call string, _ layout.Epoch) error {
				if call == "activate" && !mended.Load() {
					return status.Error(code, "not now")
				}
				return nil
			})
			if _, err := c.reconfigure(); err != nil {
				t.Fatal(err)
			}
			if code == codes.Internal { // its own fault: the log waits for it
				await(t, "the log waits", func() error {
					m, err := c.client().Get(context.Background(), &pb.GetRequest{})
					if err == nil && !strings.Contains(m.Trouble, "unit 1") {
						err = fmt.Errorf("%v", m)
					}
					return err
				})
			}
			q := &pb.ReconfigureRequest{Failover: true, FailoverFrom: 1}
			dry := &pb.ReconfigureRequest{Failover: true, FailoverFrom: 1, DryRun: true}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if m, err := c.client().Reconfigure(ctx, dry); err != nil || m.Sequencer.Id != 2 {
				t.Errorf("dry run: %v, %v", m, err)
			}
			if l, err := c.ask(q); err != nil || l.Sequencer.ID != 2 {
				t.Errorf("told done: %+v, %v", l, err)
			}
			mended.Store(true)
			c.active("all are open", func(l *layout.Layout) bool { return l.Sequencer.ID == 2 })
		})
	}
}
