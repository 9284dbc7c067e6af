package server

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"corfu/internal/clusterstatus"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// TestMeter: the average over the span, from a counter that may begin anew or fall silent.
func TestMeter(t *testing.T) {
	begin := time.Unix(1000, 0)
	at := func(s float64) time.Time { return begin.Add(time.Duration(s * float64(time.Second))) }
	m := &meter{}
	for i, x := range []struct {
		at    float64
		value uint64
		want  float64
	}{
		{0, 100, 0}, {1, 200, 100}, {2, 200, 50}, {6, 700, 100}, {7, 800, 120}, // the first two samples are too old by now
		{8, 5, 0}, {9, 15, 10}, // the process was started anew
		{17, 95, 10}, // after a long silence: two samples are enough
	} {
		m.add(at(x.at), x.value)
		if got := m.rate(at(x.at)); got != x.want {
			t.Errorf("step %d: %v a second, want %v", i, got, x.want)
		}
	}
	if got := m.rate(at(23)); got != 0 || m.stale(at(23)) || !m.stale(at(28)) {
		t.Errorf("6 s later: %v a second, stale %v, %v", got, m.stale(at(23)), m.stale(at(28)))
	}
	var none *meter
	if none.rate(begin) != 0 {
		t.Error("a counter that was never read has a rate")
	}
}

// TestChangesAreTold as an operator would tell them.
func TestChangesAreTold(t *testing.T) {
	base := &layout.Layout{Epoch: 1, Geometry: layout.DefaultGeometry(), Log: layout.LogID{1}, Sequencer: layout.Sequencer{ID: 1, Control: "s:1"},
		Units:  []layout.Unit{{ID: 1, Control: "u:1"}, {ID: 2, Control: "u:2"}, {ID: 3, Control: "u:3"}, {ID: 4, Control: "u:4"}},
		Spares: []layout.Unit{{ID: 5, Control: "u:5"}}, Standbys: []layout.Sequencer{{ID: 2, Control: "s:2"}},
		Segments: []layout.Segment{{Chains: []layout.Chain{{Units: []layout.UnitID{1, 2}}, {Units: []layout.UnitID{3, 4}}}}}}
	with := func(l *layout.Layout, c layout.Change) *layout.Layout {
		t.Helper()
		c.Replicas = 2
		n, err := l.With(c, l.Epoch+1, l.Start+10)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	joined := with(base, layout.Change{Lost: []layout.UnitID{2}, Join: []layout.UnitID{5}})
	for _, x := range []struct {
		from, to *layout.Layout
		want     []string
	}{
		{nil, base, []string{"the log begins: chains 1-2, 3-4, sequencer 1"}},
		{base, base.Next(2, 0), []string{"the same members"}},
		{base, with(base, layout.Change{Sequencer: 2}), []string{"sequencer 2 took over from 1"}},
		{base, joined, []string{"unit 2 left its chain", "unit 5 joined chain 1-5"}},
		{joined, with(joined, layout.Change{Adopt: joined.Behind()}), []string{"unit 5 holds the older positions, too"}},
		{base, with(base, layout.Change{Add: []layout.Unit{{ID: 6, Control: "u:6"}}}), []string{"spare 6 was added"}},
		{base, with(base, layout.Change{Lost: []layout.UnitID{1}, Forget: []layout.UnitID{1}}), []string{"unit 1 left its chain", "unit 1 was forgotten"}},
	} {
		if got := changes(x.from, x.to); !reflect.DeepEqual(got, x.want) {
			t.Errorf("changes are %q, want %q", got, x.want)
		}
	}
}

// status asks the leader.
func (c *cluster) status() *pb.ClusterStatus {
	c.t.Helper()
	m, err := c.client().Cluster(context.Background(), &pb.ClusterStatusRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// TestClusterTellsWhatHappened: rates from the units' counters, and, once a unit died, who is missing since when, and why.
func TestClusterTellsWhatHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.template.Spares = nil
		l := c.start().open(1)
		c.put(l, 0, wire.Durable, 100, 1, 2)
		for _, u := range c.units {
			if u != nil {
				u.busy(7)
			}
		}
		await(t, "rates", func() error {
			m := c.status()
			if m.Verdict != clusterstatus.Healthy || m.Tail != 1 || len(m.Clients) != 1 || m.Clients[0].Sessions != 4 || m.Clients[0].PagesPerSecond <= 0 {
				return fmt.Errorf("%v", m)
			}
			for _, u := range m.Units {
				if u.PagesPerSecond <= 0 || u.BytesPerSecond != u.PagesPerSecond*float64(m.PageSize) {
					return fmt.Errorf("%v", u)
				}
			}
			return nil
		})
		c.units[2].die()
		got := c.active("a shorter chain", func(l *layout.Layout) bool { return l.Epoch > 1 })
		m := c.status()
		last := m.Reconfigurations[0]
		want := &pb.ReconfigurationStatus{Epoch: uint64(got.Epoch), Result: resultActive, AtMs: last.AtMs, TookMs: last.TookMs, Reason: last.Reason,
			Changes: []string{"unit 2 left its chain"}, Phases: last.Phases}
		var phases []string
		for _, p := range last.Phases {
			phases = append(phases, p.Name)
		}
		if !proto.Equal(last, want) || last.AtMs < m.LeadsSinceMs || !reflect.DeepEqual(phases, []string{"seal", "propose", "reconcile", "decide", "activate"}) {
			t.Errorf("the latest reconfiguration is %v", last)
		}
		if first := m.Reconfigurations[1]; first.Epoch != 1 || first.Changes[0] != "the log begins: chains 1-2, 3-4, sequencer 1" {
			t.Errorf("and before it %v", first)
		}
		if m.Verdict != clusterstatus.Degraded || m.DeficitOpen != 1 || m.DeficitOlder != 0 || m.Epoch != uint64(got.Epoch) ||
			!reflect.DeepEqual(m.Segments[0].Chains[0].Units, []uint32{1}) || m.Segments[0].Chains[0].Lacks != 1 {
			t.Errorf("status is %v", m)
		}
	})
}

// TestEveryServerShowsTheCluster: one that does not lead asks the leader. A new leader knows from the layout records what was changed
// before it; where nobody leads, each server says how the others are.
func TestEveryServerShowsTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, mortal)
		leader := c.leader()
		await(t, "an epoch", func() error {
			if m, err := leader.Status(context.Background()); err != nil || m.Epoch == 0 {
				return fmt.Errorf("%v %v", m, err)
			}
			return nil
		})
		for id, s := range c.servers {
			await(t, fmt.Sprintf("status at server %d", id), func() error {
				m, err := s.Status(context.Background())
				if err != nil || m.Epoch == 0 || len(m.LayoutServers) != 3 || len(m.Reconfigurations) == 0 || m.Reconfigurations[len(m.Reconfigurations)-1].AtMs == 0 {
					return fmt.Errorf("%v %v", m, err)
				}
				return nil
			})
		}
		old := leader.cfg.ID
		c.stopServer(old)
		leader = c.leader()
		await(t, "status at the new leader", func() error {
			m, err := leader.Status(context.Background())
			if err != nil || m.Epoch == 0 {
				return fmt.Errorf("%v %v", m, err)
			}
			first := m.Reconfigurations[len(m.Reconfigurations)-1]
			if first.Epoch != 1 || first.AtMs != 0 || len(first.Changes) != 1 || m.Verdict != clusterstatus.Degraded ||
				m.LayoutServers[old-1].Role != stateUnreachable {
				return fmt.Errorf("%v", m)
			}
			return nil
		})
		c.stopServer(leader.cfg.ID)
		for _, s := range c.servers {
			await(t, "nobody leads", func() error {
				m, err := s.Status(context.Background())
				if err == nil || m.Verdict != clusterstatus.Down || len(m.LayoutServers) != 3 {
					return fmt.Errorf("%v %v", m, err)
				}
				return nil
			})
		}
	})
}
