package server

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// stop lets the unit announce that it is stopped on purpose, and ends it once a leader knows.
func (u *fakeUnit) stop(status func() (*pb.ClusterStatus, error)) {
	u.t.Helper()
	u.announce(true)
	await(u.t, fmt.Sprintf("the leader hears that unit %d stops", u.id), func() error {
		m, err := status()
		for _, x := range m.GetUnits() {
			if x.Id == uint32(u.id) && x.StoppedMs > 0 {
				return err
			}
		}
		return fmt.Errorf("%v, %v", m, err)
	})
	u.die()
}

func (u *fakeUnit) announce(stopping bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopping = stopping
}

func (s *fakeSequencer) announce(stopping bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = stopping
}

// cluster is what the leader says, once it can be asked.
func (c *cluster) ofLeader() (*pb.ClusterStatus, error) {
	return c.client().Cluster(context.Background(), &pb.ClusterStatusRequest{})
}

// waitsFor waits until a unit has been silent for longer than d, and wants the epoch to be the one that it was.
func (c *cluster) waitsFor(id layout.UnitID, d time.Duration, epoch layout.Epoch) {
	c.t.Helper()
	await(c.t, fmt.Sprintf("unit %d is silent for %v", id, d), func() error {
		m, err := c.ofLeader()
		if err != nil {
			return err
		}
		for _, x := range m.Units {
			switch {
			case x.Id != uint32(id):
			case m.Epoch != uint64(epoch) || x.Role != roleServes:
				c.t.Fatalf("epoch %d, unit %d: %v", m.Epoch, id, x)
			case x.SilentMs > uint64(d.Milliseconds()) && x.WaitedMs > 0:
				return nil
			}
		}
		return fmt.Errorf("%v", m.Units)
	})
}

// TestRestartByHandDropsNobody: a unit that announced its stop is waited for, though a spare answers. The epoch after it is back has the
// same members, and nothing is copied. The same unit, once it is back, is not waited for when it crashes.
func TestRestartByHandDropsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.cfg.FailAfter, c.cfg.RestartGrace = brisk, time.Hour
		l := c.start().open(1)
		c.put(l, 0, wire.Durable, 100, 1, 2)
		u := c.units[1]
		u.stop(c.ofLeader)
		c.waitsFor(1, 2*brisk, 1)
		if m, err := c.client().Get(context.Background(), &pb.GetRequest{}); err != nil || !strings.Contains(m.Trouble, "unit 1 ("+u.addr+") was stopped by its operator") {
			t.Errorf("clients are told %q, %v", m.GetTrouble(), err)
		}
		u.announce(false)
		u.restart()
		got := c.open(2)
		if want := l.Next(2, l.Start); !reflect.DeepEqual(got.Units, want.Units) || !reflect.DeepEqual(got.Segments, want.Segments) || !reflect.DeepEqual(got.Spares, want.Spares) {
			t.Errorf("the layout is\n%+v, want the members of\n%+v", got, want)
		}
		if u.wipes != 1 || len(u.received) != 0 || c.spare.wipes != 0 {
			t.Errorf("unit 1 was wiped %d times and sent %v, the spare was wiped %d times", u.wipes, u.received, c.spare.wipes)
		}
		if m := c.status(); m.Units[0].StoppedMs != 0 || m.DeficitOlder+m.DeficitOpen != 0 {
			t.Errorf("it is back: %v", m)
		}
		u.die()
		c.active("a crash is none that somebody announced", func(l *layout.Layout) bool { return !l.IsMember(1) && l.IsMember(5) })
	})
}

// TestStoppedUnitIsWaitedForNoLongerThanItsGrace: then it is left out, and the status says since when it is stopped.
func TestStoppedUnitIsWaitedForNoLongerThanItsGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := withSpare(t)
		c.cfg.FailAfter, c.cfg.RestartGrace = brisk, brisk+brisk/2
		c.start().open(1)
		c.units[1].stop(c.ofLeader)
		c.active("the spare takes its place", func(l *layout.Layout) bool { return !l.IsMember(1) && l.IsMember(5) })
		await(t, "the status says who stopped it", func() error {
			m, err := c.ofLeader()
			for _, x := range m.GetUnits() {
				if x.Id == 1 && x.Role == roleSpare && x.StoppedMs >= uint64(c.cfg.RestartGrace.Milliseconds()) && x.WaitedMs == 0 {
					return err
				}
			}
			return fmt.Errorf("%v, %v", m, err)
		})
	})
}

// TestStoppedSequencerHandsOverAtOnce, while it still answers; where none stands by it is waited for.
func TestStoppedSequencerHandsOverAtOnce(t *testing.T) {
	for _, standby := range []bool{true, false} {
		t.Run(fmt.Sprint("standby ", standby), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := withSpare(t)
				c.cfg.FailAfter = time.Hour
				if !standby {
					c.template.Standbys, c.cfg.FailAfter, c.cfg.RestartGrace = nil, brisk, time.Hour
				}
				l := c.start().open(1)
				c.seq.announce(true)
				if standby {
					got := c.active("the standby serves", func(l *layout.Layout) bool { return l.Epoch > 1 })
					if got.Sequencer != l.Standbys[0] || got.Standbys[0] != l.Sequencer {
						t.Errorf("%+v", got)
					}
					c.standby.announce(true) // nobody is left to take over
					c.seq.die()
					await(t, "the second announces its stop, too", func() error {
						if m, err := c.ofLeader(); err != nil || m.Sequencers[0].StoppedMs == 0 || m.Epoch != uint64(got.Epoch) {
							return fmt.Errorf("%v, %v", m, err)
						}
						return nil
					})
					return
				}
				await(t, "the leader hears that it stops", func() error {
					if m, err := c.ofLeader(); err != nil || m.Sequencers[0].StoppedMs == 0 {
						return fmt.Errorf("%v, %v", m, err)
					}
					return nil
				})
				c.seq.die()
				await(t, "it is silent for longer than fail_after", func() error {
					m, err := c.ofLeader()
					if err != nil || m.Waiting != "" || m.Sequencers[0].SilentMs < uint64(2*brisk.Milliseconds()) {
						return fmt.Errorf("%v, %v", m, err)
					}
					return nil
				})
				c.seq.mu.Lock()
				c.seq.state, c.seq.stopping = stateClosed, false
				c.seq.mu.Unlock()
				c.seq.daemon.start()
				if got := c.open(2); got.Sequencer != l.Sequencer {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// TestNextLeaderWaitsForAStoppedUnit: a machine may be restarted as a whole, with the unit and the layout server that leads.
func TestNextLeaderWaitsForAStoppedUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := withSpare(t)
		of.cfg.FailAfter, of.cfg.RestartGrace = brisk, time.Hour
		c := trioOf(of, mortal)
		l := c.open(1)
		old := c.leader()
		ask := func() (*pb.ClusterStatus, error) { return old.Status(context.Background()) }
		c.units[1].stop(ask)
		await(t, "the others know", func() error {
			for id, s := range c.servers {
				if s.manager.stops.of("unit 1").IsZero() {
					return fmt.Errorf("server %d does not", id)
				}
			}
			return nil
		})
		c.stopServer(old.cfg.ID)
		heir := c.leader()
		await(t, "the next leader waits, too", func() error {
			m, err := heir.Status(context.Background())
			if err != nil || len(m.Units) == 0 {
				return fmt.Errorf("%v, %v", m, err)
			}
			if m.Epoch != 1 {
				t.Fatalf("epoch %d: %v", m.Epoch, m.Units)
			}
			if x := m.Units[0]; x.StoppedMs == 0 || x.WaitedMs == 0 || x.SilentMs < uint64(2*brisk.Milliseconds()) {
				return fmt.Errorf("%v", x)
			}
			return nil
		})
		c.units[1].announce(false)
		c.units[1].restart()
		if got := c.open(2); !reflect.DeepEqual(got.Units, l.Units) || !reflect.DeepEqual(got.Segments, l.Segments) {
			t.Errorf("the layout is\n%+v, before\n%+v", got, l)
		}
	})
}

// TestRestartOnPurposeIsNoFall: a member that is restarted by hand again and again need not prove itself, and what clients met meanwhile
// is not held against it. One that only says that it stops is found out.
func TestRestartOnPurposeIsNoFall(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), FailAfter: testFail, Poll: testBeat}.withDefaults()
	m := newManager(cfg, &store{}, nil)
	x := &member{name: "unit 1", unit: 1}
	beat := func(r report) {
		x.report = m.heartbeat(context.Background(), x, r, testBeat)
	}
	for range 2 * trustedFalls {
		beat(report{state: stateOpen})
		beat(report{state: stateOpen, stopping: true})
		if !x.stops() || !x.excused(time.Now(), cfg) || x.excused(time.Now().Add(cfg.RestartGrace), cfg) {
			t.Fatalf("%+v", x)
		}
		for range 20 {
			beat(report{state: stateUnreachable})
		}
		if x.pulse.failed || x.report.state != stateOpen || m.members.waited(x, cfg) == 0 {
			t.Fatalf("after %v of silence: %+v", x.pulse.silent, x)
		}
		beat(report{state: stateClosed})
	}
	if x.pulse.falls != 0 || x.pulse.proving(testFail) || x.stops() {
		t.Errorf("%+v", x)
	}
	beat(report{state: stateOpen})
	if beat(report{state: stateClosed}); x.pulse.falls != 1 {
		t.Errorf("a crash is a fall: %+v", x.pulse)
	}

	now := time.Now()
	x.back = now
	r := newReports()
	r.take(voice{"client", "h"}, &pb.UnreachableReport{Failed: []*pb.FabricTrouble{{Member: "unit 1", ForMs: 3000}}}, now)
	if u, said := r.against(x, false, now.Add(testFail/2), testFail); said {
		t.Errorf("it was stopped when clients could not reach it: %+v", u)
	}
	if _, said := r.against(x, false, now.Add(2*testFail), testFail); !said {
		t.Error("they cannot reach it since it is back either, and nobody says so")
	}
}

// TestNoticesAreForgotten: a list that others write is bounded, and a later notice counts.
func TestNoticesAreForgotten(t *testing.T) {
	var s stops
	begin := time.Unix(1000, 0)
	for i := range 2 * maxStops {
		s.note(fmt.Sprint("unit ", i), begin)
	}
	if len(s.at) != maxStops {
		t.Errorf("%d notices are kept", len(s.at))
	}
	s.note("unit 1", begin.Add(time.Second))
	s.note("unit 1", begin)
	later := begin.Add(2 * stopsKept)
	s.note("sequencer 1", later)
	var errs []error
	for name, want := range map[string]time.Time{"unit 1": {}, "sequencer 1": later} {
		if got := s.of(name); !got.Equal(want) {
			errs = append(errs, fmt.Errorf("%s: %v, want %v", name, got, want))
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	s.note("unit 1", later)
	s.note("unit 1", later.Add(time.Second))
	if s.strike("sequencer 1"); !s.of("unit 1").Equal(later.Add(time.Second)) || !s.of("sequencer 1").IsZero() {
		t.Errorf("%v", s.at)
	}
}
