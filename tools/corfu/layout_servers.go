package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	grpcstatus "google.golang.org/grpc/status"

	"corfu/internal/clusterstatus"
	"corfu/internal/wire/pb"
)

// serverStatusJSON is a layout server as scripts read it. Of one that does not answer only Control and Error, and ID if another
// one names it, are known.
type serverStatusJSON struct {
	ID            uint32 `json:"id,omitempty"`
	Control       string `json:"control"`
	Role          string `json:"role"`
	Term          uint64 `json:"term,omitempty"`
	Leader        uint32 `json:"leader,omitempty"`
	CommitIndex   uint64 `json:"commit_index,omitempty"`
	LastContactMS uint64 `json:"last_contact_ms"`
	Epoch         uint64 `json:"epoch,omitempty"`
	Error         string `json:"error,omitempty"`

	absence string // what the error says of it: see clusterstatus.Absence
}

// serverPatience is how long one layout server may take to say how it is.
const serverPatience = 2 * time.Second

// askServers asks every layout server that the cluster names, and those that they name, how it is; some tells whether any answered.
func (a *app) askServers(ctx context.Context) (all []serverStatusJSON, some bool) {
	found, err := a.findCluster()
	if err != nil {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, min(a.timeout, serverPatience))
	defer cancel()
	conns, err := a.newConns(found)
	if err != nil {
		return nil, false
	}
	defer conns.close()
	ids := map[string]uint32{}
	for ask := found.LayoutServers; len(ask) > 0; {
		answers := make([]serverStatusJSON, len(ask))
		named := make([][]*pb.LayoutServer, len(ask))
		var wg sync.WaitGroup
		for i, addr := range ask {
			wg.Go(func() { answers[i], named[i] = askServer(ctx, conns, addr) })
		}
		wg.Wait()
		ask = nil
		all = append(all, answers...)
		for _, s := range slices.Concat(named...) {
			some = true
			if ids[s.Control] == 0 && !slices.ContainsFunc(all, func(x serverStatusJSON) bool { return x.Control == s.Control || x.ID == s.Id }) {
				ask = append(ask, s.Control)
			}
			ids[s.Control] = s.Id
		}
	}
	for i, s := range all {
		if s.ID == 0 {
			all[i].ID = ids[s.Control]
		}
	}
	slices.SortStableFunc(all, func(x, y serverStatusJSON) int { return int(x.ID) - int(y.ID) })
	return all, some
}

func askServer(ctx context.Context, conns *layoutConns, addr string) (serverStatusJSON, []*pb.LayoutServer) {
	conn, err := conns.dial(addr)
	var m *pb.LayoutServerState
	if err == nil {
		m, err = pb.NewLayoutServerServiceClient(conn).State(ctx, &pb.LayoutServerStateRequest{})
	}
	if err != nil {
		return serverStatusJSON{Control: addr, Role: "unreachable", Error: grpcstatus.Convert(err).Message(), absence: clusterstatus.Absence(err)}, nil
	}
	return serverStatusJSON{ID: m.Id, Control: addr, Role: m.Role, Term: m.Term, Leader: m.Leader, CommitIndex: m.CommitIndex,
		LastContactMS: m.LastContactMs, Epoch: m.Epoch}, m.Servers
}

func (a *app) printServers(servers []serverStatusJSON) error {
	rows := [][]string{{"LAYOUT SERVER", "ROLE", "TERM", "COMMITTED", "EPOCH", "HEARD OF LEADER", "CONTROL"}}
	for _, s := range servers {
		if s.Error != "" {
			rows = append(rows, []string{fmt.Sprint(s.ID), s.Role + " (" + clusterstatus.Brief(s.Error) + ")", "", "", "", "", s.Control})
			continue
		}
		heard := "leads"
		if s.Role != "leader" {
			heard = (time.Duration(s.LastContactMS) * time.Millisecond).String() + " ago"
		}
		rows = append(rows, []string{fmt.Sprint(s.ID), s.Role, fmt.Sprint(s.Term), fmt.Sprint(s.CommitIndex), fmt.Sprint(s.Epoch), heard, s.Control})
	}
	return a.printTable(rows)
}
