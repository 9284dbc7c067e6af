package clusterstatus

import (
	"strings"
	"testing"

	"corfu/internal/wire/pb"
)

// TestWhatNeedsNobodyHasABound: each problem says what to do, or how long to wait and what to do then.
func TestWhatNeedsNobodyHasABound(t *testing.T) {
	serving := func(u *pb.UnitStatus) *pb.ClusterStatus {
		u.Id, u.Role, u.Control = 1, roleServes, "u:1"
		return &pb.ClusterStatus{Epoch: 3, Units: []*pb.UnitStatus{u}}
	}
	for name, x := range map[string]struct {
		m    *pb.ClusterStatus
		want []string
	}{
		"founding": {&pb.ClusterStatus{}, []string{"no active epoch yet", "wait a minute; if this is still shown then"}},
		"an epoch": {&pb.ClusterStatus{Epoch: 3, EpochInProgress: 4, Phase: "seal"}, []string{"epoch 4 is being made", "wait a minute; if"}},
		"a copy": {&pb.ClusterStatus{Epoch: 3, Copies: []*pb.CopyStatus{{Unit: 5, Pages: 10, Copied: 1, SecondsLeft: -1}}},
			[]string{"copied to unit 5", "if the number of pages stands still for a minute, look at the logs of the layout leader and of unit 5"}},
		"no copy yet": {&pb.ClusterStatus{Epoch: 3, DeficitOlder: 1}, []string{"older positions lack 1 replica", "wait a minute, in which a copy begins; if"}},
		"silent":      {serving(&pb.UnitStatus{State: stateOpen, Epoch: 3, SilentMs: 300}), []string{"unit 1 has not answered for 0.3 s", "wait 10 s", "look at unit 1 at u:1"}},
		"stopped": {serving(&pb.UnitStatus{State: stateOpen, Epoch: 3, SilentMs: 900, StoppedMs: 1000, WaitedMs: 4000}),
			[]string{"unit 1 was stopped by its operator 1.0 s ago: appends wait for it, for 4.0 s more", "start it at u:1 again within that time"}},
		"not open": {serving(&pb.UnitStatus{State: "sealed", Epoch: 3}), []string{"unit 1 is sealed at epoch 3", "wait 10 s; if this is still shown then"}},
		"corrupt":  {serving(&pb.UnitStatus{State: stateOpen, Epoch: 3, Corrupt: 2}), []string{"2 corrupt pages", "wait 10 minutes; if there are no fewer then"}},
		"left out": {&pb.ClusterStatus{Epoch: 3, Units: []*pb.UnitStatus{{Id: 5, Role: "spare", State: stateUnreachable, Control: "u:5", StoppedMs: 7000}}},
			[]string{"spare 5 does not answer: its operator stopped it 7s ago", "start it at u:5 again"}},
	} {
		Judge(x.m)
		if len(x.m.Problems) != 1 {
			t.Errorf("%s: %v", name, x.m.Problems)
			continue
		}
		p := x.m.Problems[0]
		for _, want := range x.want {
			if !strings.Contains(p.What+". To do: "+p.Todo, want) {
				t.Errorf("%s: %q, to do %q; want %q", name, p.What, p.Todo, want)
			}
		}
	}
}
