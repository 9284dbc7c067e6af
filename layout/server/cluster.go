package server

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/status"

	"corfu/internal/clusterstatus"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// What ClusterStatus calls members.
const (
	roleServes  = "serves"
	roleSpare   = "spare"
	roleStandby = "standby"
)

// clientsShown is how many clients a status tells of.
const clientsShown = 20

// Cluster is the leader's alone.
func (v service) Cluster(ctx context.Context, _ *pb.ClusterStatusRequest) (*pb.ClusterStatus, error) {
	if !v.s.store.elected() || !v.s.manager.status().leader {
		return nil, v.refuse(v.s.store.notLeader())
	}
	return v.s.clusterStatus(ctx), nil
}

// Status is the state of the cluster: this server's own view while it leads, else what the leader answers. With an error it is
// what this server knows without a leader: how the layout servers are.
func (s *Server) Status(ctx context.Context) (*pb.ClusterStatus, error) {
	if m, err := (service{s: s}).Cluster(ctx, nil); err == nil {
		return m, nil
	}
	m, err := s.askLeader(ctx)
	if err != nil {
		m = clusterstatus.NoLeader(time.Now(), s.others.states(ctx, s))
	}
	return m, err
}

func (s *Server) askLeader(ctx context.Context) (*pb.ClusterStatus, error) {
	leader := s.store.leader()
	if leader.ID == 0 {
		return nil, s.store.notLeader()
	}
	conn, err := s.others.dial(leader.Control)
	if err != nil {
		return nil, err
	}
	return pb.NewLayoutServiceClient(conn).Cluster(ctx, &pb.ClusterStatusRequest{})
}

// clusterStatus puts together what this server, the leader, knows.
func (s *Server) clusterStatus(ctx context.Context) *pb.ClusterStatus {
	now := time.Now()
	show := s.manager.status()
	m := &pb.ClusterStatus{AtMs: uint64(now.UnixMilli()), EpochInProgress: uint64(show.epoch), Waiting: clusterstatus.Brief(show.wait), FabricDown: clusterstatus.Brief(show.down),
		Replicas: uint32(show.wanted), MinReplicas: uint32(show.least)}
	m.Differences = show.differences
	if show.epoch != 0 {
		m.Phase = show.phase
	}
	l, _ := s.store.fsm.active.get()
	if l != nil {
		describeLayout(m, l, show.wanted)
	} else if m.Waiting == "" {
		m.Waiting = show.phase
	}
	vitals := s.manager.vitals
	for _, x := range show.members {
		if x.unit == 0 {
			m.Sequencers = append(m.Sequencers, sequencerStatus(x))
		} else {
			m.Units = append(m.Units, s.unitStatus(now, x, int(m.PageSize)))
		}
	}
	for _, u := range m.Units {
		m.BytesPerSecond += u.BytesPerSecond
	}
	m.AppendsPerSecond = vitals.rate(now, counterID{what: counterTokens})
	m.Tail = tail(l, show.members)
	for _, x := range s.manager.rebuilder.progress() {
		m.Copies = append(m.Copies, copyStatus(x, vitals.rate(now, copyCounter(x))))
	}
	m.Clients = busiest(vitals.clients(now, int(m.PageSize)))
	m.LayoutServers = s.others.states(ctx, s)
	var since time.Time
	m.Reconfigurations, since = s.manager.history.all(s.store)
	m.LeadsSinceMs = uint64(since.UnixMilli())
	clusterstatus.Judge(m)
	return m
}

// describeLayout fills in what the layout says.
func describeLayout(m *pb.ClusterStatus, l *layout.Layout, replicas int) {
	m.Log, m.Durability, m.PageSize, m.MaxSessions, m.Epoch = l.Log.String(), l.Durability.String(), uint32(l.Geometry.PageSize), uint32(l.Geometry.MaxSessions), uint64(l.Epoch)
	open, older := l.Deficit(replicas)
	m.DeficitOpen, m.DeficitOlder = uint32(open), uint32(older)
	for i, s := range l.Segments {
		x := &pb.SegmentStatus{Start: uint64(s.Start)}
		if i+1 < len(l.Segments) {
			x.End = uint64(l.Segments[i+1].Start)
		}
		for _, c := range s.Chains {
			chain := &pb.ChainStatus{Lacks: uint32(max(0, replicas-len(c.Units)))}
			for _, u := range c.Units {
				chain.Units = append(chain.Units, uint32(u))
			}
			x.Chains = append(x.Chains, chain)
		}
		m.Segments = append(m.Segments, x)
	}
}

func (s *Server) unitStatus(now time.Time, x shownMember, pageSize int) *pb.UnitStatus {
	v, r := s.manager.vitals, x.report
	last := v.unit(x.unit)
	pages, cold := v.rate(now, counterID{what: counterPages, unit: x.unit}), v.rate(now, counterID{what: counterCold, unit: x.unit})
	m := &pb.UnitStatus{Id: uint32(x.unit), Control: x.control, Role: cmp.Or(x.role, roleServes), State: r.state, Epoch: uint64(r.promise),
		Error: clusterstatus.Brief(r.err), SilentMs: uint64(x.silent.Milliseconds()), Store: r.store, End: uint64(r.end), Watermark: uint64(r.watermark),
		Sessions: uint32(r.sessions), SessionsMax: uint32(r.sessionsMax), Corrupt: uint32(r.corrupt), Lost: uint32(s.manager.lost(x)), Tampered: last.Tampered,
		UsedBytes: last.UsedBytes, CapacityBytes: last.CapacityBytes, FreeBytes: last.FreeBytes, Full: last.Full, WaitingPages: last.Waiting,
		PagesPerSecond: pages, BytesPerSecond: (pages + cold) * float64(pageSize), ColdReadsPerSecond: cold,
		Fabric: r.fabric, FabricError: clusterstatus.Brief(x.unreached), StoppedMs: uint64(x.stopped.Milliseconds()), WaitedMs: uint64(x.waited.Milliseconds()),
		Absence: r.absence}
	if m.Past = s.storePast(x); m.Error == "" {
		m.Error = clusterstatus.PastText(m.Past)
	}
	if p := r.scrub; p != nil && p.Pass > 0 {
		m.Scrubbing, m.ScrubWaiting, m.Scrubbed = p.Running, p.Waiting, 1
		if p.End > p.First {
			m.Scrubbed = float64(p.Next-p.First) / float64(p.End-p.First)
		}
	}
	return m
}

// storePast returns what is wrong with the store of a unit that answers: it does not count, it is
// not wiped, or it holds another log. The empty string means nothing.
func (s *Server) storePast(x shownMember) string {
	if x.report.foreign {
		return clusterstatus.PastAnotherLog
	}
	if x.report.state == stateUnreachable {
		return ""
	}
	p := s.store.past(nil)
	if trust, _ := p.judge(x.unit, x.report.past); trust != layout.Trusted {
		return clusterstatus.PastLost
	}
	if x.role != "" && p.mayWipe(x.unit, x.report.past, p.base.Epoch+1, false) != nil {
		return clusterstatus.PastGivenUp
	}
	return ""
}

func sequencerStatus(x shownMember) *pb.SequencerStatus {
	r := x.report
	return &pb.SequencerStatus{Id: uint32(x.seq), Control: x.control, Role: cmp.Or(x.role, roleServes), State: r.state, Epoch: uint64(r.promise),
		Error: clusterstatus.Brief(r.err), SilentMs: uint64(x.silent.Milliseconds()), Next: uint64(r.next), Sessions: uint32(r.sessions),
		Fabric: r.fabric, FabricError: clusterstatus.Brief(x.unreached), StoppedMs: uint64(x.stopped.Milliseconds()), WaitedMs: uint64(x.waited.Milliseconds()),
		Absence: r.absence}
}

// tail is the first position that was not handed out, as far as the members said: the sequencer, or else the units.
func tail(l *layout.Layout, members []shownMember) uint64 {
	if l == nil {
		return 0
	}
	next := l.Start
	seals := layout.Seals{}
	for _, x := range members {
		if x.unit != 0 {
			seals[x.unit] = layout.Seal{Unit: x.unit, End: x.report.end}
		} else if x.role == "" {
			next = max(next, x.report.next)
		}
	}
	if end, err := layout.StartAfter(l, seals); err == nil {
		next = max(next, end)
	}
	return uint64(next)
}

// copyStatus tells how long a copy will take yet, if it goes on at the rate.
func copyStatus(x rebuilding, rate float64) *pb.CopyStatus {
	m := &pb.CopyStatus{Unit: uint32(x.Unit), Pages: uint64(x.To - x.From), Copied: uint64(x.below - x.From), PagesPerSecond: rate, SecondsLeft: -1, Error: clusterstatus.Brief(x.err)}
	if left := x.To - x.below; left == 0 {
		m.SecondsLeft = 0
	} else if rate > 0 {
		m.SecondsLeft = float64(left) / rate
	}
	return m
}

// busiest are those with the most operations a second, and of those who do nothing the newest.
func busiest(all map[layout.ClientID]*pb.ClientStatus) []*pb.ClientStatus {
	list := make([]*pb.ClientStatus, 0, len(all))
	for _, c := range all {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *pb.ClientStatus) int {
		return cmp.Or(cmp.Compare(b.PagesPerSecond+b.ColdReadsPerSecond, a.PagesPerSecond+a.ColdReadsPerSecond), cmp.Compare(b.Id, a.Id))
	})
	return list[:min(len(list), clientsShown)]
}

// unreachableServer is what is known of a layout server that does not answer.
func unreachableServer(p Peer, err error) *pb.LayoutServerStatus {
	return &pb.LayoutServerStatus{Id: uint32(p.ID), Control: p.Control, Role: stateUnreachable,
		Error: clusterstatus.Brief(status.Convert(err).Message()), Absence: clusterstatus.Absence(err)}
}

func serverStatus(p Peer, a *pb.LayoutServerState) *pb.LayoutServerStatus {
	return &pb.LayoutServerStatus{Id: uint32(p.ID), Control: p.Control, Role: a.Role, Term: a.Term, CommitIndex: a.CommitIndex,
		LastContactMs: a.LastContactMs, Epoch: a.Epoch, Error: clusterstatus.Brief(a.Trouble)}
}
