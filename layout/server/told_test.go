package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

// TestChangeAskedForBeforeTheLogBeginsIsMade: the first epoch is made without it, and is no answer to who asked.
func TestChangeAskedForBeforeTheLogBeginsIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
	})
}

// TestChangeAskedForWhileAMemberIsNotActivatedIsMade: it missed the activation, and cannot be activated or left out now. What is asked for is done
// all the same, or refused.
func TestChangeAskedForWhileAMemberIsNotActivatedIsMade(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.Internal} {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
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
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
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
		})
	}
}

// TestServerThatStopsSaysToAskAgain: whoever waits for a change when the server is stopped is to ask the next leader, not told that he gave up himself.
func TestServerThatStopsSaysToAskAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.cfg.FailAfter = patient
		c.start().open(1)
		under, free := make(chan struct{}), make(chan struct{})
		defer close(free)
		c.units[1].setHook(func(call string, e layout.Epoch) error {
			if call == "seal" && e == 2 {
				close(under)
				<-free
			}
			return nil
		})
		answer := make(chan error, 1)
		go func() {
			_, err := c.client().Reconfigure(context.Background(), &pb.ReconfigureRequest{Remove: []uint32{5}})
			answer <- err
		}()
		<-under
		stopped := make(chan error, 1)
		go func() { stopped <- c.server.Close() }()
		if err := <-answer; status.Code(err) != codes.Unavailable {
			t.Errorf("answer: %v", err)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// TestEndOfAnAttemptIsNotTheCallers: a member that took too long is the reason why an epoch was aborted, and no deadline of who asked.
func TestEndOfAnAttemptIsNotTheCallers(t *testing.T) {
	for _, x := range []struct {
		err  error
		want codes.Code
	}{
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{fmt.Errorf("epoch 3: seal: unit 2: by the fabric: %w", context.DeadlineExceeded), codes.Aborted},
		{fmt.Errorf("epoch 3: reconcile: %w", context.Canceled), codes.Aborted},
	} {
		if got := status.Code(reply(x.err)); got != x.want {
			t.Errorf("%v: %v, want %v", x.err, got, x.want)
		}
	}
}

// TestUnitAddedAtAnotherAddressThanTheConfigurationSays is refused: the layout servers would move it to the one that they have.
func TestUnitAddedAtAnotherAddressThanTheConfigurationSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.cfg.FailAfter = patient
		c.start().open(1)
		if _, err := c.ask(&pb.ReconfigureRequest{Remove: []uint32{5}}); err != nil {
			t.Fatal(err)
		}
		other := startUnit(t, 5) // on another machine
		l, err := c.ask(&pb.ReconfigureRequest{Add: []*pb.Unit{{Id: 5, Control: other.addr}}})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), c.spare.addr) {
			t.Errorf("%+v, %v; afterwards %+v", l, err, c.active("at rest", func(l *layout.Layout) bool { return l.Epoch > 3 || err != nil }).Spares)
		}
		if l, err := c.ask(&pb.ReconfigureRequest{Add: []*pb.Unit{{Id: 5, Control: c.spare.addr}}}); err != nil || len(l.Spares) != 1 {
			t.Errorf("%+v, %v", l, err)
		}
	})
}
