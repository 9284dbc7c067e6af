package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/control"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/seq"
)

// service answers the control plane.
type service struct {
	pb.UnimplementedSequencerServiceServer
	s *Server
}

func (v service) OpenSession(ctx context.Context, r *pb.OpenSessionRequest) (*pb.SequencerSession, error) {
	id, err := logID(r.Log)
	if err != nil {
		return nil, err
	}
	who, err := control.Caller(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.core.Serves(id, layout.Epoch(r.Epoch)); err != nil {
		return nil, reply(err)
	}
	t, err := s.sessions.issue(holder{layout.ClientID(r.Client), who.String(), control.Standing(ctx)}, time.Now())
	if err != nil {
		return nil, reply(err)
	}
	w := s.region.Remote(0)
	return &pb.SequencerSession{
		Fabric:   s.messages.Addr(),
		Provider: s.cfg.Device.Info().Provider,
		Token:    t[:],
		Word:     &pb.Remote{Addr: w.Addr, Key: uint32(w.Key)},
	}, nil
}

func (v service) Seal(_ context.Context, r *pb.SealRequest) (*pb.SequencerSealReply, error) {
	id, err := logID(r.Log)
	if err != nil {
		return nil, err
	}
	if err := v.s.seal(id, layout.Epoch(r.Epoch)); err != nil {
		return nil, reply(err)
	}
	return &pb.SequencerSealReply{}, nil
}

func (v service) Activate(_ context.Context, r *pb.SequencerActivateRequest) (*pb.ActivateReply, error) {
	id, err := logID(r.Log)
	if err != nil {
		return nil, err
	}
	if err := v.s.activate(id, layout.Epoch(r.Epoch), layout.Position(r.Start)); err != nil {
		return nil, reply(err)
	}
	return &pb.ActivateReply{}, nil
}

func (v service) State(context.Context, *pb.SequencerStateRequest) (*pb.SequencerStateReply, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &pb.SequencerStateReply{Id: uint32(s.cfg.ID), Promise: uint64(s.core.Promise()), State: s.core.Phase().String(),
		Vitals: &pb.SequencerVitals{Sessions: uint32(s.sessions.count())},
		Fabric: s.messages.Addr(), Provider: s.cfg.Device.Info().Provider}
	text, lasts := s.shortage.Text(time.Now())
	m.FabricRefused, m.FabricRefusedMs = text, uint64(lasts.Milliseconds())
	if s.core.Phase() == seq.Open {
		m.Next = uint64(s.word().Next())
	}
	m.Stopping = s.notice.Answer(time.Now())
	return m, nil
}

func logID(b []byte) (layout.LogID, error) {
	if len(b) != len(layout.LogID{}) {
		return layout.LogID{}, status.Errorf(codes.InvalidArgument, "log id of %d bytes", len(b))
	}
	return layout.LogID(b), nil
}

// reply gives an error the code that tells the caller what to do.
func reply(err error) error {
	code := codes.Internal
	switch {
	case errors.Is(err, seq.ErrPromised), errors.Is(err, seq.ErrNotSealed), errors.Is(err, seq.ErrNotServing):
		code = codes.FailedPrecondition
	case errors.Is(err, errFull), errors.Is(err, errTooMany):
		code = codes.ResourceExhausted
	case errors.Is(err, seq.ErrExhausted):
		code = codes.OutOfRange
	case errors.Is(err, layout.ErrInvalid):
		code = codes.InvalidArgument
	}
	return status.Error(code, err.Error())
}
