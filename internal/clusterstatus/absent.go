package clusterstatus

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"corfu/internal/wire/pb"
)

// NoLeader is the status of a cluster of which only the layout servers are known: none of them leads, or none answers.
func NoLeader(now time.Time, servers []*pb.LayoutServerStatus) *pb.ClusterStatus {
	m := &pb.ClusterStatus{AtMs: uint64(now.UnixMilli()), Verdict: Down, LayoutServers: servers}
	var start, tried []string
	up := 0
	for _, s := range servers {
		tried = append(tried, s.Control)
		if s.Role != stateUnreachable {
			up++
			continue
		}
		name := "the layout server"
		if s.Id != 0 {
			name = fmt.Sprintf("layout server %d", s.Id)
		}
		start = append(start, fmt.Sprintf("start %s at %s again", name, s.Control))
	}
	p := &pb.Problem{Severity: Down}
	leader := slices.IndexFunc(servers, func(s *pb.LayoutServerStatus) bool { return s.Role == "leader" })
	switch need := len(servers)/2 + 1; {
	case leader >= 0:
		p.What = fmt.Sprintf("layout server %d leads, and does not say how the cluster is", servers[leader].Id)
		p.Todo = "look at its log"
	case up == 0:
		p.What = "no layout server answers at " + strings.Join(tried, ", ")
		p.Todo = "start them, or name others (--cluster); corfu dev starts a whole cluster"
	case up < need:
		p.What = fmt.Sprintf("no layout server leads: %d of %d answer, %d are needed", up, len(servers), need)
		p.Todo = strings.Join(start, ", or ")
	default:
		p.What = "no layout server leads"
		p.Todo = "wait a moment: they elect one; if that lasts, see whether they reach each other's Raft addresses"
	}
	m.Problems = []*pb.Problem{p}
	return m
}
