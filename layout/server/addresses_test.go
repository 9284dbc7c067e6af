package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"corfu/internal/clusterstatus"
	"corfu/layout"
)

// TestAddressesDoNotFlipWithTheLeader: the configuration of one layout server names another address
// for a unit. Whichever server leads, the layout's is used, and the status names the difference.
// Once all configurations name the new one the unit is moved.
func TestAddressesDoNotFlipWithTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, mortal)
		l := c.open(1)
		stands, _ := l.Unit(1)
		first := c.cfg.Bootstrap
		moved := first.Next(0, 0)
		moved.Units[0].Control = "127.0.0.1:1"
		c.stopServer(1)
		c.cfg.Bootstrap = moved
		c.restart(1)
		seen := map[uint16]bool{}
		for len(seen) < 2 { // with server 1 as leader, and without
			s := c.leader()
			if id := s.cfg.ID; id == 1 || seen[1] || len(seen) == 0 {
				seen[id] = true
				c.problems(clusterstatus.Degraded, "unit 1 is at "+stands.Control+" in the layout, and at 127.0.0.1:1 in the configuration of layout server 1: the layout's is used")
				if u, _ := c.newEpoch().Unit(1); u != stands {
					t.Errorf("led by server %d, unit 1 is at %s, want %s", id, u.Control, stands.Control)
				}
			}
			if err := s.store.raft.HandOver(); err != nil && !errors.Is(err, errGaveUp) {
				t.Log(err)
			}
		}
		c.units[1].die()
		c.units[1].addr = "" // another port
		c.units[1].restart()
		moved = first.Next(0, 0)
		moved.Units[0].Control = c.units[1].addr
		c.cfg.Bootstrap = moved
		for id := uint16(1); id <= 3; id++ {
			c.stopServer(id)
			c.restart(id)
		}
		await(t, "unit 1 is used at its new address", func() error {
			got, _, _, err := c.leader().store.active()
			if err != nil {
				return err
			}
			for _, u := range append(append([]layout.Unit{}, got.Units...), got.Spares...) {
				if u.ID == 1 && u.Control == c.units[1].addr {
					return nil
				}
			}
			return fmt.Errorf("%+v", got.Units)
		})
		await(t, "no difference is named", func() error {
			m, err := service{s: c.leader()}.Cluster(context.Background(), nil)
			if err == nil && len(m.Differences) > 0 {
				err = errors.New(strings.Join(m.Differences, "; "))
			}
			return err
		})
	})
}
