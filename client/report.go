package client

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	grpcend "corfu/internal/control"
	"corfu/internal/sleep"
	"corfu/internal/wire/pb"
)

// reporter tells the layout servers which members this client cannot reach over the fabric: they
// may have no fabric of their own, or another way. What they make of it is theirs to judge.
type reporter struct {
	l      *Log
	silent time.Time // nothing is reported before: the layout servers do not take it
}

const (
	reportEvery   = 200 * time.Millisecond
	reportTimeout = time.Second
	reportPause   = time.Minute // if the layout servers know no reports
)

// run reports while the Log lives.
func (r *reporter) run(ctx context.Context) {
	for sleep.For(ctx, reportEvery) == nil {
		q := r.report(time.Now())
		if len(q.Failed) == 0 || time.Now().Before(r.silent) {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, reportTimeout)
		_, err := grpcend.Ask(bounded, r.l.layouts, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.UnreachableReply, error) {
			return c.ReportUnreachable(ctx, q)
		})
		cancel()
		if c := status.Code(err); c == codes.Unimplemented || c == codes.PermissionDenied {
			r.silent = time.Now().Add(reportPause)
		}
	}
}

// report looks at the sessions of the view in use.
func (r *reporter) report(now time.Time) *pb.UnreachableReport {
	v := r.l.current()
	q := &pb.UnreachableReport{Epoch: uint64(v.epoch()), Client: uint32(r.l.client())}
	for _, u := range v.layout.Units {
		k := v.units[u.ID]
		var s *session
		if x := k.cur.Load(); x != nil && x.alive() {
			s = &x.session
		}
		r.member(q, fmt.Sprintf("unit %d", u.ID), s, k.trouble.Load(), now)
	}
	var s *session
	if x := v.seq.cur.Load(); x != nil && x.alive() {
		s = &x.session
	}
	r.member(q, fmt.Sprintf("sequencer %d", v.layout.Sequencer.ID), s, v.seq.trouble.Load(), now)
	return q
}

// member adds what there is to say of one.
func (r *reporter) member(q *pb.UnreachableReport, name string, s *session, t *trouble, now time.Time) {
	switch {
	case s != nil:
		stood := s.standstill(now)
		if stood > noticed {
			q.Failed = append(q.Failed, &pb.FabricTrouble{Member: name, Address: s.fabric, Provider: s.provider,
				Error: "operations end no more on a connection that stands", ForMs: uint64(stood.Milliseconds())})
		} else if s.moved(now) {
			q.Reached = append(q.Reached, name)
		}
	case t != nil && t.fabric && now.Sub(t.since) > noticed:
		text := "no answer"
		if t.err != nil {
			text = t.err.Error()
		}
		q.Failed = append(q.Failed, &pb.FabricTrouble{Member: name, Address: t.addr, Provider: t.provider, Error: text,
			ForMs: uint64(now.Sub(t.since).Milliseconds())})
	}
}
