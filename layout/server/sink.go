package server

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc"

	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

// sink is the stream of entries to one unit. One goroutine at a time uses it.
type sink struct {
	member   *member
	stream   grpc.ClientStreamingClient[pb.ReconcileRequest, pb.ReconcileReply]
	progress func()
	accuse   func(*member, task, error) error
	batch    []*pb.Entry
	size     int
}

// header opens the stream: which epoch, and whether the unit starts from nothing, since it was no member of the base (rule R17).
func (s *sink) header(r *reconfiguration) error {
	adopts, settled := false, layout.Address(0)
	var copied []*pb.CopiedRange
	for _, x := range r.copied {
		if x.Unit == s.member.unit && slices.Contains(r.change.Adopt, x.Range) && (!adopts || x.below < settled) {
			adopts, settled = true, x.below
		}
		if x.Unit == s.member.unit && slices.Contains(r.change.Adopt, x.Range) {
			copied = append(copied, x.note(x.below))
		}
	}
	h := &pb.ReconcileHeader{
		Layout:       pbconv.Layout(r.layout),
		Adopts:       adopts,
		SettledBelow: uint64(settled),
		Copied:       copied,
		Record:       uint64(r.record.ID),
		Start:        uint64(s.member.start),
		Wipe:         !r.base.IsMember(s.member.unit),
		TrimmedBelow: uint64(layout.TrimmedBelow(r.base, r.layout, s.member.unit, r.seals)),
	}
	if h.Wipe && r.base != nil {
		r.keepHeader(s.member, h)
	}
	return s.send(&pb.ReconcileRequest{Header: h})
}

// add sends e with the next message.
func (s *sink) add(e *pb.Entry) error {
	s.batch = append(s.batch, e)
	s.size += len(e.Page)
	if s.size < sentAtATime && len(s.batch) < entriesAtATime {
		return nil
	}
	return s.flush()
}

func (s *sink) flush() error {
	if len(s.batch) == 0 {
		return nil
	}
	m := &pb.ReconcileRequest{Entries: s.batch}
	s.batch, s.size = nil, 0
	return s.send(m)
}

func (s *sink) send(m *pb.ReconcileRequest) error {
	err := s.stream.Send(m)
	if errors.Is(err, io.EOF) { // the unit ended the stream: its answer says why
		_, err = s.stream.CloseAndRecv()
		if err == nil {
			err = errors.New("it answered before all was sent")
		}
	}
	if err != nil {
		return fmt.Errorf("%s: reconcile: %w", s.member.name, s.accuse(s.member, taskReconcile, err))
	}
	s.progress()
	return nil
}

// finish waits until the unit has all of it durable.
func (s *sink) finish() error {
	if err := s.flush(); err != nil {
		return err
	}
	if _, err := s.stream.CloseAndRecv(); err != nil {
		return fmt.Errorf("%s: reconcile: %w", s.member.name, s.accuse(s.member, taskReconcile, err))
	}
	s.progress()
	return nil
}
