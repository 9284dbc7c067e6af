package server

import (
	"context"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

// stateService says how this server is, whether it leads or not.
type stateService struct {
	pb.UnimplementedLayoutServerServiceServer
	s *Server
}

func (v stateService) State(context.Context, *pb.LayoutServerStateRequest) (*pb.LayoutServerState, error) {
	st := v.s.store
	at := st.raft.Standing()
	m := &pb.LayoutServerState{Id: uint32(st.self), Role: at.Role, Term: at.Term, Leader: uint32(at.Leader), CommitIndex: at.Commit,
		LastContactMs: uint64(st.contact().Milliseconds())}
	if st.elected() {
		m.Leader = m.Id
	}
	st.fsm.view(func(s *layout.State) { m.Epoch = uint64(s.Latest()) })
	if r, ok := st.raft.(*raftLog); ok {
		id := r.id.get()
		m.Standing, m.Incarnation, m.Blank, m.LastIndex = string(id.Standing), id.Incarnation, r.blank(), r.LastIndex()
		if id.Cluster != (clusterID{}) {
			m.Cluster = id.Cluster[:]
		}
	}
	if err := st.ailing(); err != nil {
		m.Trouble = err.Error()
	}
	m.Commands, m.Members = commandsRead, addressesOf(v.s.cfg.Bootstrap)
	for _, p := range st.servers {
		m.Servers = append(m.Servers, &pb.LayoutServer{Id: uint32(p.ID), Control: p.Control})
	}
	return m, nil
}
