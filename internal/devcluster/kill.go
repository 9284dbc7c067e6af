package devcluster

import (
	"context"
	"fmt"

	"corfu/layout"
)

// KillUnit stops a unit, as far as one process can: its services end, its memory is revoked, what is on flash stays.
func (c *Cluster) KillUnit(id layout.UnitID) error {
	u := c.Units[id-1]
	if u == nil {
		return nil
	}
	c.Units[id-1] = nil
	return u.Close()
}

// StopUnit stops a unit on purpose, as its operator does: the layout servers hear of it before it ends.
func (c *Cluster) StopUnit(ctx context.Context, id layout.UnitID) error {
	if err := c.Units[id-1].AnnounceStop(ctx); err != nil {
		return fmt.Errorf("devcluster: %w", err)
	}
	return c.KillUnit(id)
}

// RestartUnit starts a unit that was killed, where it was.
func (c *Cluster) RestartUnit(ctx context.Context, id layout.UnitID) error {
	u, err := c.startUnit(ctx, int(id-1))
	if err != nil {
		return fmt.Errorf("devcluster: %w", err)
	}
	c.Units[id-1] = u
	return nil
}

// KillSequencer stops a sequencer.
func (c *Cluster) KillSequencer(id layout.SequencerID) error {
	s := c.Seqs[id-1]
	if s == nil {
		return nil
	}
	c.Seqs[id-1] = nil
	return s.Close()
}
