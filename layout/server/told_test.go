package server

import (
	"slices"
	"sync/atomic"
	"testing"

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
