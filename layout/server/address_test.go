package server

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

// TestAddressThatMakesNoSenseIsRefused, and the failure detector goes on: unit 2 is missed all the same, and others are added.
func TestAddressThatMakesNoSenseIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.template.Spares = nil
		c.start().open(1)
		for _, addr := range []string{"host:%zz", "[fe80::1%eth0]:7000", "host\n:1", "host", ""} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			_, err := c.client().Reconfigure(ctx, &pb.ReconfigureRequest{Add: []*pb.Unit{{Id: 6, Control: addr}}})
			cancel()
			if status.Code(err) != codes.FailedPrecondition {
				t.Errorf("add at %q: %v", addr, err)
			}
		}
		c.units[2].die()
		c.active("without unit 2", func(l *layout.Layout) bool { return !l.IsMember(2) })
		l, err := c.ask(&pb.ReconfigureRequest{Add: []*pb.Unit{{Id: 5, Control: c.spare.addr}}})
		if err != nil || (!l.IsMember(5) && !slices.Contains(l.Spares, layout.Unit{ID: 5, Control: c.spare.addr})) {
			t.Errorf("%+v, %v", l, err)
		}
	})
}
