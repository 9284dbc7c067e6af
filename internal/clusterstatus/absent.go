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
	var start, tried, ail, mend []string
	up, answer := 0, 0
	for _, s := range servers {
		tried = append(tried, s.Control)
		if s.Role != stateUnreachable {
			answer++
			if what, todo := ailing(s); what == "" {
				up++
			} else {
				ail, mend = append(ail, what), append(mend, todo)
			}
			continue
		}
		name := "the layout server"
		if s.Id != 0 {
			name = fmt.Sprintf("layout server %d", s.Id)
		}
		start = append(start, restart(name, s.Control, s.Absence))
	}
	p := &pb.Problem{Severity: Down}
	leader := slices.IndexFunc(servers, func(s *pb.LayoutServerStatus) bool { return s.Role == "leader" })
	switch need := len(servers)/2 + 1; {
	case leader >= 0:
		p.What = fmt.Sprintf("layout server %d leads, and does not say how the cluster is", servers[leader].Id)
		p.Todo = "look at its log"
	case answer == 0:
		p.What = "no layout server answers at " + strings.Join(tried, ", ")
		p.Todo = "start them, or name others (--cluster); corfu dev starts a whole cluster"
		if slices.ContainsFunc(servers, func(s *pb.LayoutServerStatus) bool { return s.Absence == AbsentAnswers }) {
			p.Todo = strings.Join(start, ", or ")
		}
	case len(ail) > 0:
		p.What = fmt.Sprintf("no layout server leads: %d of %d answer and may vote, %d are needed; %s", up, len(servers), need, strings.Join(ail, "; "))
		p.Todo = strings.Join(append(start, slices.DeleteFunc(mend, func(s string) bool { return s == "" })...), ", or ")
	case up < need:
		p.What = fmt.Sprintf("no layout server leads: %d of %d answer, %d are needed", up, len(servers), need)
		p.Todo = strings.Join(start, ", or ")
	default:
		p.What = "no layout server leads"
		p.Todo = "they elect one within a few seconds; if this is still shown after 10 s, see whether they reach each other's Raft addresses"
	}
	m.Problems = []*pb.Problem{p}
	return m
}

// Roles of a layout server that has no vote.
const (
	roleEmpty    = "empty"
	roleLearning = "learning"
)

// ailing returns what is wrong with a layout server that answers, and what to do; "": nothing.
func ailing(s *pb.LayoutServerStatus) (what, todo string) {
	switch {
	case s.Role == roleEmpty:
		return fmt.Sprintf("layout server %d is empty and has no vote", s.Id),
			patience("10 s, in which another one fills it", "this is still shown then, start the other layout servers: one of them has the log's past")
	case s.Role == roleLearning:
		return fmt.Sprintf("layout server %d was empty and has no vote until it is up to date", s.Id),
			patience("a minute", fmt.Sprintf("this is still shown then, look at the logs of layout server %d and of the layout leader", s.Id))
	case s.Error != "":
		return fmt.Sprintf("layout server %d: %s", s.Id, s.Error), fmt.Sprintf("mend layout server %d at %s", s.Id, s.Control)
	}
	return "", ""
}
