package server

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/peer"

	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
	"corfu/unit"
)

// askers are the layout servers that asked this unit lately. One that lost its store finds out from
// them whether another one leads the log.
type askers struct {
	mu   sync.Mutex
	last [2]asked // different ones, the latest first
}

type asked struct {
	id   uint64 // drawn by the layout server at its start; 0: none
	from string
	at   time.Time
}

// note takes down that the asker asked, and returns what another one did; nil: none has asked since
// the unit's start. 0 is no asker.
func (a *askers) note(ctx context.Context, id uint64, now time.Time) *pb.OtherAsker {
	a.mu.Lock()
	defer a.mu.Unlock()
	if id != 0 {
		if a.last[0].id != id {
			a.last[1] = a.last[0]
		}
		a.last[0] = asked{id, callerHost(ctx), now}
	}
	for _, x := range a.last {
		if x.id != 0 && x.id != id {
			return &pb.OtherAsker{AgoMs: uint64(max(now.Sub(x.at).Milliseconds(), 1)), From: x.from}
		}
	}
	return nil
}

// callerHost is the address from which a call came, without the port, which the caller drew.
func callerHost(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}

// Known implements pb.UnitServiceServer.
func (v *service) Known(ctx context.Context, q *pb.KnownRequest) (*pb.KnownReply, error) {
	var x unit.View
	if err := v.s.do(func(u *unit.Unit) { x = u.View() }); err != nil {
		return nil, toStatus(err)
	}
	store, err := v.s.storeState()
	if err != nil {
		return nil, toStatus(err)
	}
	m := v.s.store.Meta()
	r := &pb.KnownReply{Id: uint32(v.s.cfg.ID), Promise: uint64(x.Promise), State: pbconv.StoreState(store), Other: v.s.askers.note(ctx, q.Asker, time.Now())}
	if !x.Log.IsZero() {
		r.Log = x.Log[:]
	}
	for _, l := range []struct {
		from *layout.Layout
		to   **pb.Layout
	}{{m.Layout, &r.Layout}, {m.OfActive(), &r.ActiveLayout}} {
		if l.from != nil {
			*l.to = pbconv.Layout(l.from)
		}
	}
	return r, nil
}
