package clusterstatus

import (
	"testing"

	"corfu/internal/wire/pb"
)

// TestStoresThatLostTheirPast: where the log waits for a store, the status says what can be done,
// and says of nobody that it mends itself.
func TestStoresThatLostTheirPast(t *testing.T) {
	const (
		chain = "chain 0 of segment 0, units [1 2]: only [1] sealed"
		other = "it holds another log, 01, and this layout store is of log 02. Restore it, or build it from what the units hold (corfu layout recover)"
	)
	for name, c := range map[string]struct {
		m    *pb.ClusterStatus
		want []string // severity, what, to do
	}{
		"of a tail": {&pb.ClusterStatus{Epoch: 3, Waiting: chain,
			Units: []*pb.UnitStatus{
				{Id: 1, Role: roleServes, State: "closed", Epoch: 3, Control: "u:1"},
				{Id: 2, Role: roleServes, State: "closed", Epoch: 2, Control: "u:2", Error: "it is an old copy", Past: PastLost},
			},
			Sequencers: []*pb.SequencerStatus{{Id: 1, Role: roleServes, State: "closed", Epoch: 3}},
		}, []string{Down, "appends wait: " + chain, "start unit 2 at u:2 on the store that it had: mount the volume, put the drive or the directory back. " +
			"If that store is gone for good, corfu unit remove 2 --accept-loss gives up what it alone may hold"}},
		"of a chain": {&pb.ClusterStatus{Epoch: 3, Waiting: chain,
			Units: []*pb.UnitStatus{
				{Id: 1, Role: roleServes, State: "closed", Epoch: 1, Control: "u:1", Error: "it is an old copy", Past: PastLost},
				{Id: 2, Role: roleServes, State: "closed", Epoch: 1, Control: "u:2", Error: "it is an old copy", Past: PastLost},
			},
		}, []string{Down, "appends wait: " + chain, "start unit 1 at u:1, unit 2 at u:2 on the stores that they had: mount the volumes, put the drives or " +
			"the directories back. If one of those stores is gone for good, docs/restoring.md says how to go on without it (--accept-loss)"}},
		"given up, and found again": {&pb.ClusterStatus{Epoch: 4,
			Units: []*pb.UnitStatus{
				{Id: 1, Role: roleServes, State: stateOpen, Epoch: 4},
				{Id: 2, Role: "spare", State: "closed", Control: "u:2", Error: PastText(PastGivenUp), Past: PastGivenUp},
			},
		}, []string{Degraded, "unit 2 is left out: it may hold what was given up with --accept-loss, and is not wiped",
			"keep its store (docs/restoring.md); corfu unit add 2=u:2 --accept-loss wipes it, and it joins"}},
		"beside a unit that is down": {&pb.ClusterStatus{Epoch: 3, Waiting: chain, MinReplicas: 1,
			Units: []*pb.UnitStatus{
				{Id: 1, Role: roleServes, State: stateUnreachable, Control: "u:1"},
				{Id: 2, Role: roleServes, State: "closed", Epoch: 1, Control: "u:2", Error: "it is an old copy", Past: PastLost},
			},
		}, []string{Down, "appends wait: unit 1 does not answer, and nothing can take its place", "start unit 1 at u:1 again, or " + addSpare,
			Down, "appends wait: " + chain, "start unit 2 at u:2 on the store that it had: mount the volume, put the drive or the directory back. " +
				"If that store is gone for good, corfu unit remove 2 --accept-loss gives up what it alone may hold"}},
		"of the layout servers": {&pb.ClusterStatus{Waiting: "unit 1 (u:1): " + other,
			Units:      []*pb.UnitStatus{{Id: 1, Role: roleServes, State: stateUnreachable, Control: "u:1", Error: other, Past: PastAnotherLog}},
			Sequencers: []*pb.SequencerStatus{{Id: 1, Role: roleServes, State: "closed"}},
		}, []string{Down, "appends wait: unit 1 (u:1): " + other, ""}},
	} {
		Judge(c.m)
		var got []string
		for _, p := range c.m.Problems {
			got = append(got, p.Severity, p.What, p.Todo)
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: problems %q, want %q", name, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: %q, want %q", name, got[i], c.want[i])
			}
		}
	}
}
