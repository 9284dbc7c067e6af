// Package statustest has statuses of one cluster in good and bad days, for the tests of all who show them. It is for tests alone.
package statustest

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"corfu/internal/clusterstatus"
	"corfu/internal/wire/pb"
)

// at is the time of all states, in milliseconds since 1970.
const at = 1_800_000_000_000

// refused is what the leader says of a process that is not there.
var refused = clusterstatus.Brief(`connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.12:7780: connect: connection refused"`)

// States are the states by name, each judged.
func States() map[string]*pb.ClusterStatus {
	all := map[string]*pb.ClusterStatus{"healthy": healthy()}
	for name, change := range map[string]func(*pb.ClusterStatus){
		"chain-short": chainShort, "no-spare": noSpare, "below-minimum": belowMinimum, "rebuilding": rebuilding,
		"sequencer-dead": sequencerDead, "reconfiguring": reconfiguring, "many-troubles": manyTroubles,
	} {
		m := proto.Clone(all["healthy"]).(*pb.ClusterStatus)
		change(m)
		all[name] = m
	}
	for _, m := range all {
		clusterstatus.Judge(m)
	}
	all["no-leader"] = clusterstatus.NoLeader(time.UnixMilli(at), []*pb.LayoutServerStatus{
		{Id: 1, Control: "10.0.0.1:7770", Role: "candidate", Term: 9, CommitIndex: 41, LastContactMs: 5200, Epoch: 4},
		{Id: 2, Control: "10.0.0.2:7770", Role: "unreachable", Error: refused, Absence: clusterstatus.AbsentRefused},
		{Id: 3, Control: "10.0.0.3:7770", Role: "unreachable", Error: "context deadline exceeded", Absence: clusterstatus.AbsentSilent},
	})
	return all
}

// Names are the names of the states, in order.
func Names() []string { return slices.Sorted(maps.Keys(States())) }

func healthy() *pb.ClusterStatus {
	m := &pb.ClusterStatus{
		AtMs: at, Log: "00112233445566778899aabbccddeeff", Durability: "flash", PageSize: 4096, MaxSessions: 128, Epoch: 4, Tail: 1_234_567,
		AppendsPerSecond: 45_210.4, BytesPerSecond: 4 * 22_605 * 4096, Replicas: 2, MinReplicas: 1, LeadsSinceMs: at - 90_000,
		Segments: []*pb.SegmentStatus{{Chains: []*pb.ChainStatus{{Units: []uint32{1, 2}}, {Units: []uint32{3, 4}}}}},
		Sequencers: []*pb.SequencerStatus{
			{Id: 1, Control: "10.0.0.10:7771", Role: "serves", State: "open", Epoch: 4, Next: 1_234_567, Sessions: 12},
			{Id: 2, Control: "10.0.0.20:7771", Role: "standby", State: "closed"},
		},
		LayoutServers: []*pb.LayoutServerStatus{
			{Id: 1, Control: "10.0.0.1:7770", Role: "leader", Term: 8, CommitIndex: 41, Epoch: 4},
			{Id: 2, Control: "10.0.0.2:7770", Role: "follower", Term: 8, CommitIndex: 41, LastContactMs: 23, Epoch: 4},
			{Id: 3, Control: "10.0.0.3:7770", Role: "follower", Term: 8, CommitIndex: 41, LastContactMs: 9, Epoch: 4},
		},
		Clients: []*pb.ClientStatus{
			{Id: 17, Sessions: 4, PagesPerSecond: 60_002, BytesPerSecond: 60_002 * 4096},
			{Id: 9, Sessions: 4, PagesPerSecond: 30_418, ColdReadsPerSecond: 12.4, BytesPerSecond: 30_430 * 4096},
		},
		Reconfigurations: []*pb.ReconfigurationStatus{
			{Epoch: 4, Result: "active", AtMs: at - 60_000, TookMs: 41, Reason: "asked for: a new switch", Changes: []string{"the same members"},
				Phases: []*pb.PhaseStatus{{Name: "seal", TookMs: 11}, {Name: "propose", TookMs: 2}, {Name: "reconcile", TookMs: 20}, {Name: "decide", TookMs: 2}, {Name: "activate", TookMs: 6}}},
			{Epoch: 3, Result: "active", Changes: []string{"sequencer 1 took over from 2"}},
			{Epoch: 1, Result: "active", Changes: []string{"the log begins: chains 1-2, 3-4, sequencer 2"}},
		},
	}
	for id := uint32(1); id <= 4; id++ {
		m.Units = append(m.Units, &pb.UnitStatus{Id: id, Control: address(id), Role: "serves", State: "open", Epoch: 4, Store: "/dev/nvme1n1",
			End: 617_284, Watermark: 617_280, Sessions: 12, SessionsMax: 3296, UsedBytes: 3 << 30, FreeBytes: 897 << 30, PagesPerSecond: 22_605, BytesPerSecond: 22_605 * 4096,
			WaitingPages: 4, Scrubbed: 1})
	}
	m.Units = append(m.Units, &pb.UnitStatus{Id: 5, Control: address(5), Role: "spare", State: "closed", Store: "/dev/nvme1n1", FreeBytes: 900 << 30})
	return m
}

func address(id uint32) string { return "10.0.0.1" + string('0'+rune(id)) + ":7780" }

// lose takes unit 2 out of its chain, in epoch 5.
func lose(m *pb.ClusterStatus) {
	dead := m.Units[1]
	m.Units = append(slices.Delete(m.Units, 1, 2), dead)
	dead.Role, dead.State, dead.Error, dead.SilentMs, dead.Epoch = "spare", "unreachable", refused, 2300, 0
	dead.Absence = clusterstatus.AbsentRefused
	dead.PagesPerSecond, dead.BytesPerSecond, dead.Sessions = 0, 0, 0
	next(m, 5, "unit 2 (10.0.0.12:7780): "+refused, "unit 2 left its chain")
	m.Segments[0].Chains[0] = &pb.ChainStatus{Units: []uint32{1}, Lacks: 1}
	m.DeficitOpen = 1
}

// next is one more reconfiguration.
func next(m *pb.ClusterStatus, epoch uint64, reason string, changes ...string) {
	m.Epoch = epoch
	for _, u := range m.Units {
		if u.Role == "serves" {
			u.Epoch = epoch
		}
	}
	m.Sequencers[0].Epoch = epoch
	for _, s := range m.LayoutServers {
		s.Epoch = epoch
	}
	m.Reconfigurations = slices.Insert(m.Reconfigurations, 0, &pb.ReconfigurationStatus{Epoch: epoch, Result: "active", AtMs: at - 1800, TookMs: 63, Reason: reason,
		Changes: changes, Phases: []*pb.PhaseStatus{{Name: "seal", TookMs: 15}, {Name: "propose", TookMs: 2}, {Name: "reconcile", TookMs: 38}, {Name: "decide", TookMs: 2}, {Name: "activate", TookMs: 6}}})
}

func chainShort(m *pb.ClusterStatus) { lose(m) }

func noSpare(m *pb.ClusterStatus) {
	lose(m)
	m.Units = slices.DeleteFunc(m.Units, func(u *pb.UnitStatus) bool { return u.Id == 5 })
}

func belowMinimum(m *pb.ClusterStatus) {
	u := m.Units[1]
	u.State, u.Error, u.SilentMs, u.PagesPerSecond, u.BytesPerSecond = "unreachable", refused, 4200, 0, 0
	u.Absence = clusterstatus.AbsentRefused
	m.Units = m.Units[:4]
	m.MinReplicas, m.AppendsPerSecond = 2, 0
	m.Waiting = "unit 2 (10.0.0.12:7780): " + refused + "; a chain would have 1 units, min_replicas is 2 and no spare answers"
}

func rebuilding(m *pb.ClusterStatus) {
	lose(m)
	m.Units[3].Role, m.Units[3].State, m.Units[3].Epoch, m.Units[3].PagesPerSecond, m.Units[3].BytesPerSecond = "serves", "open", 5, 22_480, 22_480*4096
	m.DeficitOpen, m.DeficitOlder = 0, 1
	m.Segments = []*pb.SegmentStatus{
		{End: 1_100_000, Chains: []*pb.ChainStatus{{Units: []uint32{1}, Lacks: 1}, {Units: []uint32{3, 4}}}},
		{Start: 1_100_000, Chains: []*pb.ChainStatus{{Units: []uint32{1, 5}}, {Units: []uint32{3, 4}}}},
	}
	m.Reconfigurations[0].Changes = append(m.Reconfigurations[0].Changes, "unit 5 joined chain 1-5")
	m.Copies = []*pb.CopyStatus{{Unit: 5, Pages: 550_000, Copied: 231_000, PagesPerSecond: 16_000, SecondsLeft: 319_000. / 16_000}}
	m.Units[2].Scrubbing, m.Units[2].Scrubbed = true, 0.37
}

func sequencerDead(m *pb.ClusterStatus) {
	s := m.Sequencers[0]
	s.State, s.Error, s.SilentMs, s.Next = "unreachable", "context deadline exceeded", 3100, 0
	s.Absence = clusterstatus.AbsentSilent
	m.Sequencers = m.Sequencers[:1]
	m.AppendsPerSecond = 0
	m.Waiting = "sequencer 1 (10.0.0.10:7771): context deadline exceeded; no standby answers that could take over from sequencer 1"
}

func reconfiguring(m *pb.ClusterStatus) {
	m.EpochInProgress, m.Phase = 5, "reconcile"
	for _, u := range m.Units[:4] {
		u.State, u.Epoch = "sealed", 5
	}
}

func manyTroubles(m *pb.ClusterStatus) {
	m.Units[0].Corrupt, m.Units[0].Lost = 3, 1
	m.Units[1].Tampered = 2
	m.Units[2].UsedBytes, m.Units[2].FreeBytes = 880<<30, 20<<30
	m.Units[3].SilentMs = 340
	m.Units[4].State, m.Units[4].Error, m.Units[4].Absence = "unreachable", "context deadline exceeded", clusterstatus.AbsentSilent
	m.Sequencers[1].State, m.Sequencers[1].Error, m.Sequencers[1].Absence = "unreachable", "context deadline exceeded", clusterstatus.AbsentSilent
	s := m.LayoutServers[2]
	s.Role, s.Error, s.Epoch, s.Term = "unreachable", "context deadline exceeded", 0, 0
	m.Reconfigurations = slices.Insert(m.Reconfigurations, 0, &pb.ReconfigurationStatus{Epoch: 7, Result: "aborted", AtMs: at - 400, TookMs: 2100, Attempts: 3,
		Reason: "members have other control addresses than the active layout says", Error: "epoch 7: seal: unit 4: context deadline exceeded",
		Phases: []*pb.PhaseStatus{{Name: "seal", TookMs: 2100}}})
}
