package server

import "errors"

var errStopped = errors.New("the sequencer has stopped")

// Live returns nil until the sequencer is stopped. One that waits for the layout service, and a
// standby, are alive.
func (s *Server) Live() error {
	if s.ctx.Err() != nil {
		return errStopped
	}
	return nil
}

// Ready returns nil if the sequencer hands out tokens, or waits until the layout service asks it
// to, as a standby does. It fails if the sequencer had to revoke its word and waits for a new
// epoch.
func (s *Server) Ready() error {
	if err := s.Live(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}
