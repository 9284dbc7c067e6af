package devcluster

import (
	"context"
	"fmt"
	"time"

	"corfu/internal/control"
	"corfu/internal/sleep"
	"corfu/internal/wire/pb"
)

// readyPoll is how often a cluster that comes up is asked whether it serves.
const readyPoll = 10 * time.Millisecond

// awaitReady waits until a layout is active and every member is open in its epoch.
func (c *Cluster) awaitReady(ctx context.Context) error {
	var last string
	for {
		m, err := control.Ask(ctx, c.asking.Layouts, func(ctx context.Context, s pb.LayoutServiceClient) (*pb.StatusReply, error) {
			return s.Status(ctx, &pb.StatusRequest{})
		})
		if err != nil {
			last = err.Error()
		} else if last = notReady(m); last == "" {
			return nil
		}
		if err := sleep.For(ctx, readyPoll); err != nil {
			return fmt.Errorf("the cluster does not serve yet (%s): %w", last, err)
		}
	}
}

// notReady says what the cluster still lacks; "" if nothing.
func notReady(m *pb.StatusReply) string {
	epoch := m.GetLayout().GetEpoch()
	switch {
	case epoch == 0:
		return "no layout is active; phase " + m.GetPhase()
	case m.GetEpochInProgress() != 0:
		return fmt.Sprintf("going to epoch %d, phase %s", m.GetEpochInProgress(), m.GetPhase())
	case len(m.GetMembers()) == 0:
		return "no members"
	}
	for _, s := range m.GetMembers() {
		if s.GetRole() != "" {
			continue // it stands by
		}
		if s.GetState() != "open" || s.GetEpoch() != epoch {
			return fmt.Sprintf("%s is %s in epoch %d, not open in %d %s", s.GetName(), s.GetState(), s.GetEpoch(), epoch, s.GetError())
		}
	}
	return ""
}
