package server

import (
	"context"
	"math"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/unit"
)

func (v *service) Corrupt(_ context.Context, q *pb.CorruptRequest) (*pb.CorruptReply, error) {
	var list []layout.Address
	if err := v.s.do(func(u *unit.Unit) { list = u.Corrupt(layout.Address(q.From), int(min(q.Max, unit.MaxCorrupt))) }); err != nil {
		return nil, toStatus(err)
	}
	r := &pb.CorruptReply{}
	for _, a := range list {
		r.Addresses = append(r.Addresses, uint64(a))
	}
	return r, nil
}

func (v *service) Fetch(_ context.Context, q *pb.FetchRequest) (*pb.Entry, error) {
	log, err := toLogID(q.Log)
	if err != nil {
		return nil, err
	}
	var e unit.Entry
	if q.Start != 0 {
		e, err = v.s.fetchLeft(log, layout.StartID(q.Start), layout.Address(q.Address), layout.Position(q.Position))
	} else {
		e, err = v.s.fetch(log, layout.Epoch(q.Epoch), layout.Address(q.Address))
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.Entry{Address: uint64(e.Address), State: uint32(e.State), Attempt: uint64(e.Attempt), Page: e.Page}, nil
}

func (v *service) Repair(_ context.Context, q *pb.RepairRequest) (*pb.RepairReply, error) {
	log, err := toLogID(q.Log)
	if err != nil {
		return nil, err
	}
	if q.Entry == nil {
		return nil, status.Error(codes.InvalidArgument, "no entry")
	}
	if err := v.s.repair(log, layout.Epoch(q.Epoch), layout.Epoch(q.Since), toEntries([]*pb.Entry{q.Entry})[0]); err != nil {
		return nil, toStatus(err)
	}
	return &pb.RepairReply{}, nil
}

func (v *service) Scrub(_ context.Context, q *pb.ScrubRequest) (*pb.ScrubStatus, error) {
	if q.Rate > math.MaxInt64 {
		return nil, status.Errorf(codes.InvalidArgument, "rate of %d bytes per second", q.Rate)
	}
	v.s.startScrub(int64(q.Rate))
	return v.s.scrubStatus(), nil
}

// scrubStatus tells of the pass in progress, or of the last one.
func (s *Server) scrubStatus() *pb.ScrubStatus {
	p := s.passed()
	m := &pb.ScrubStatus{Pass: p.number, Running: p.running, First: uint64(p.first), Next: uint64(p.next), End: uint64(p.end),
		Pages: p.pages, Bytes: p.bytes, Corrupt: p.corrupt, Waiting: p.waiting}
	took := p.took
	if p.running {
		took = time.Since(p.began)
	}
	m.Milliseconds = uint64(took.Milliseconds())
	if p.number > 0 && !p.asked {
		m.Repaired = s.repairs() - p.repaired
	}
	return m
}
