package devcluster_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/internal/devcluster"
	"corfu/layout"
	layoutserver "corfu/layout/server"
)

// TestRestartByHandUnderLoad: a unit that its operator stops is away for longer than fail_after, with a spare at hand. Appends wait for it
// and go on, no epoch leaves it out, and nothing is copied.
func TestRestartByHandUnderLoad(t *testing.T) {
	for _, away := range []layout.UnitID{1, 2} {
		t.Run(fmt.Sprint("unit ", away), func(t *testing.T) {
			if inLab && away == 1 {
				t.Skip("the tail says as much of verbs")
			}
			ctx, dev := testContext(t), openDevice(t)
			metrics := prometheus.NewRegistry()
			c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, Spares: 1, Registerer: metrics,
				Layouts: func(o *layoutserver.Config) { o.RestartGrace = 5 * time.Minute }})
			before := log.Layout()
			l := startLoad(t, ctx, log)
			l.more(900) // more than a window
			if err := c.StopUnit(ctx, away); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is silent for longer than fail_after", func() error {
				m, err := c.Status(ctx)
				if err != nil {
					return err
				}
				for _, u := range m.Units {
					if u.Id == uint32(away) && u.SilentMs > uint64(failAfter.Milliseconds()) && u.WaitedMs > 0 {
						return nil
					}
				}
				return fmt.Errorf("%v", m.Units)
			})
			if err := c.RestartUnit(ctx, away); err != nil {
				t.Fatal(err)
			}
			l.more(900)
			l.finish(ctx)
			m, err := c.Status(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Reconfigurations) < 2 {
				t.Errorf("it came up closed, and no epoch opened it: %v", m.Reconfigurations)
			}
			for _, r := range m.Reconfigurations {
				if r.Epoch > uint64(before.Epoch) && !slices.Equal(r.Changes, []string{"the same members"}) {
					t.Errorf("epoch %d: %v", r.Epoch, r.Changes)
				}
			}
			if now := log.Layout(); !reflect.DeepEqual(now.Units, before.Units) || !reflect.DeepEqual(now.Segments, before.Segments) {
				t.Errorf("the members are\n%+v, before\n%+v", now, before)
			}
			if n := counter(t, metrics, "corfu_layout_rebuild_copied_bytes_total"); n != 0 {
				t.Errorf("%v bytes were copied", n)
			}
		})
	}
}
