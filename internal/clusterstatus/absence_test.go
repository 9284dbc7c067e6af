package clusterstatus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire/pb"
)

func TestAbsence(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.12:7780: connect: connection refused"`), AbsentRefused},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.12:7780: connect: no route to host"`), AbsentSilent},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp: lookup u1: no such host"`), AbsentSilent},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate"`), AbsentAnswers},
		{status.Error(codes.DeadlineExceeded, "context deadline exceeded"), AbsentSilent},
		{context.DeadlineExceeded, AbsentSilent},
		{fmt.Errorf("state: %w", context.DeadlineExceeded), AbsentSilent},
		{status.Error(codes.PermissionDenied, "its certificate is of a client"), AbsentAnswers},
		{status.Error(codes.Unimplemented, "unknown service"), AbsentAnswers},
		{errors.New("it answers as unit 3"), AbsentAnswers},
	} {
		if got := Absence(c.err); got != c.want {
			t.Errorf("Absence(%v) = %q; want %q", c.err, got, c.want)
		}
	}
}

// TestNobodyIsToldToStartWhatRuns: of a member in whose place something answers, no status says that
// it is to be started, nor that it does not answer without saying what does.
func TestNobodyIsToldToStartWhatRuns(t *testing.T) {
	const why = "it answers as unit 7"
	answers := func(u *pb.UnitStatus) *pb.UnitStatus {
		u.State, u.Absence, u.Error, u.Control = stateUnreachable, AbsentAnswers, why, "u:1"
		return u
	}
	good := func(id uint32) *pb.UnitStatus {
		return &pb.UnitStatus{Id: id, Role: roleServes, State: stateOpen, Epoch: 3}
	}
	chains := []*pb.SegmentStatus{{Chains: []*pb.ChainStatus{{Units: []uint32{1, 2}}}}}
	short := []*pb.SegmentStatus{{Chains: []*pb.ChainStatus{{Units: []uint32{2}, Lacks: 1}}}}
	states := map[string]*pb.ClusterStatus{
		"appends wait for it": {Epoch: 3, Waiting: "unit 1", MinReplicas: 2, Segments: chains,
			Units: []*pb.UnitStatus{answers(&pb.UnitStatus{Id: 1, Role: roleServes}), good(2)}},
		"its chain is short": {Epoch: 3, Segments: short, DeficitOpen: 1,
			Units: []*pb.UnitStatus{good(2), answers(&pb.UnitStatus{Id: 1, Role: "spare"})}},
		"a spare": {Epoch: 3, Segments: chains,
			Units: []*pb.UnitStatus{good(1), good(2), answers(&pb.UnitStatus{Id: 3, Role: "spare"})}},
		"a sequencer that serves": {Epoch: 3, Waiting: "sequencer 1", Segments: chains, Units: []*pb.UnitStatus{good(1), good(2)},
			Sequencers: []*pb.SequencerStatus{{Id: 1, Role: roleServes, State: stateUnreachable, Absence: AbsentAnswers, Error: why, Control: "u:1"}}},
		"a sequencer that stands by": {Epoch: 3, Segments: chains, Units: []*pb.UnitStatus{good(1), good(2)},
			Sequencers: []*pb.SequencerStatus{{Id: 2, Role: "standby", State: stateUnreachable, Absence: AbsentAnswers, Error: why, Control: "u:1"}}},
		"a layout server": {Epoch: 3, Segments: chains, Units: []*pb.UnitStatus{good(1), good(2)},
			LayoutServers: []*pb.LayoutServerStatus{{Id: 1, Role: "leader"}, {Id: 2, Role: "follower"},
				{Id: 3, Role: stateUnreachable, Absence: AbsentAnswers, Error: why, Control: "u:1"}}},
	}
	for name, m := range states {
		Judge(m)
		said := false
		for _, p := range m.Problems {
			named := strings.Contains(p.What, why) || strings.HasPrefix(p.What, "chain ") // the table of members has the reason then
			said = said || named && strings.Contains(p.Todo, "see what answers at u:1")
			if strings.Contains(p.Todo, "start ") {
				t.Errorf("%s: %q: to do: %s; nothing is to be started", name, p.What, p.Todo)
			}
		}
		if !said {
			t.Errorf("%s: %v; want what answers in its place, and where", name, m.Problems)
		}
	}
	none := NoLeader(time.Now(), []*pb.LayoutServerStatus{{Id: 1, Role: stateUnreachable, Absence: AbsentAnswers, Error: why, Control: "u:1"}})
	if todo := none.Problems[0].Todo; !strings.Contains(todo, "see what answers at u:1") {
		t.Errorf("no leader: to do: %s", todo)
	}
}

// TestSilentMemberMayRun: a member that did not answer in time is not known to be down.
func TestSilentMemberMayRun(t *testing.T) {
	m := &pb.ClusterStatus{Epoch: 3, Waiting: "unit 1", Units: []*pb.UnitStatus{
		{Id: 1, Role: roleServes, State: stateUnreachable, Absence: AbsentSilent, Error: "context deadline exceeded", Control: "u:1"}}}
	Judge(m)
	if want := "start unit 1 at u:1 again, or, if it runs, look at its log and at the network to it"; !strings.HasPrefix(m.Problems[0].Todo, want) {
		t.Errorf("to do: %s; want %s", m.Problems[0].Todo, want)
	}
}
