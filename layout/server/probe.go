package server

import (
	"errors"
	"fmt"
)

var errServerStopped = errors.New("the layout server has stopped")

// Live returns nil until the server is stopped. One that waits for the others is alive.
func (s *Server) Live() error {
	if s.ctx.Err() != nil {
		return errServerStopped
	}
	return nil
}

// Ready returns nil if the server leads, hears of a leader, or has done neither since its start:
// then it waits for the others, as the first of several does. It fails if the server has lost the
// others, or if its disk is full or hangs. Whether the log serves, and what of it was lost, is no
// property of one server: Status tells that.
func (s *Server) Ready() error {
	if err := s.Live(); err != nil {
		return err
	}
	if err := s.store.diskTrouble(); err != nil {
		return err
	}
	if s.store.leader().ID != 0 && s.store.contact() <= healthyContact*s.cfg.Election {
		return nil
	}
	_, err := s.store.verify()
	if err == nil || s.store.caughtUp.Load() == 0 && s.store.raft.Standing().Heard.IsZero() {
		return nil
	}
	return fmt.Errorf("this server has lost the others: %w", err)
}
