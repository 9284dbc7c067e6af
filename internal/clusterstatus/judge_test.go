package clusterstatus

import (
	"testing"

	"corfu/internal/wire/pb"
)

// TestBeforeTheFirstEpoch: a cluster that cannot begin says for whom it waits, and counts no units of chains that there are not yet.
func TestBeforeTheFirstEpoch(t *testing.T) {
	m := &pb.ClusterStatus{
		Waiting: "a member is unreachable", MinReplicas: 1,
		Units: []*pb.UnitStatus{
			{Id: 1, Role: roleServes, State: stateUnreachable, Control: "u:1"}, {Id: 2, Role: roleServes, State: "closed", Control: "u:2"},
		},
		Sequencers: []*pb.SequencerStatus{{Id: 1, Role: roleServes, State: stateUnreachable, Control: "s:1"}},
	}
	Judge(m)
	if len(m.Problems) != 1 {
		t.Fatalf("problems: %v", m.Problems)
	}
	p := m.Problems[0]
	if p.What != "the log has no active epoch yet: it waits for unit 1 and sequencer 1" || p.Severity != Down || m.Verdict != Down {
		t.Errorf("%s: %s", p.Severity, p.What)
	}
	if p.Todo != "start unit 1 at u:1 again, and start sequencer 1 at s:1 again" {
		t.Errorf("to do: %s", p.Todo)
	}
}
