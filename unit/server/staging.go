package server

import (
	"errors"
	"fmt"
	"os"
	"time"

	"corfu/layout"
	"corfu/rdma"
)

// An epoch may bring another max_sessions. Index, ring and window stay where they are; staging, and what acks are sent from, are laid out
// anew. Nothing is lost with them: a seal answers once all that was published is on flash (rule R15), it has ended all sessions (rule R6), and
// no word names a staging slot when the epoch is opened.
//
// The memory is taken before the log is stopped (Reserve), and held until the epoch is made, or for heldFor.

// staging is the memory whose size goes by the number of sessions.
type staging struct {
	geo   layout.Geometry
	pages *rdma.Memory
	send  *rdma.Memory // sendBytes for each connection of each session
}

func stagingBytes(g layout.Geometry) int { return g.SessionSlots * g.MaxSessions * g.PageSize }

func sendBytesOf(g layout.Geometry) int { return capacity(g) * int(links) * sendBytes }

func newStaging(dev rdma.Device, g layout.Geometry) (*staging, error) {
	x := &staging{geo: g}
	var err error
	if x.pages, err = dev.Alloc(stagingBytes(g)); err != nil {
		return nil, err
	}
	if x.send, err = dev.Alloc(sendBytesOf(g)); err != nil {
		return nil, errors.Join(err, x.pages.Close())
	}
	return x, nil
}

func (x *staging) close() error {
	if x == nil {
		return nil
	}
	return errors.Join(x.pages.Close(), x.send.Close())
}

func (x *staging) bytes() int { return x.pages.Len() + x.send.Len() }

// try registers staging as a whole, and once more as the sessions' slices will be: what is pinned counts each time. So sessions are not
// turned away later for want of what this epoch was to bring.
func (x *staging) try(dev rdma.Device) error {
	n := stagingBytes(x.geo)
	read, err := dev.Register(x.pages, 0, n, rdma.RemoteRead)
	if err != nil {
		return err
	}
	write, err := dev.Register(x.pages, 0, n, rdma.RemoteWrite)
	if err == nil {
		err = write.Close()
	}
	return errors.Join(err, read.Close())
}

// heldFor is how long memory is held for an epoch that does not come.
const heldFor = time.Minute

// held is memory that an epoch to come will need.
type held struct {
	mu    *ctlLock // waited for in a channel: a key may take a while to be revoked, and reserve tries some
	mem   *staging // nil: none
	timer *time.Timer
}

// errNoMemory: the unit does not get the memory that another max_sessions takes. Nothing changed.
var errNoMemory = errors.New("no memory for another max_sessions")

// reserve takes the memory for the geometry, and holds it. It fails with errNoMemory.
func (s *Server) reserve(g layout.Geometry) (bytes int, err error) {
	h := &s.held
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mem != nil && h.mem.geo == g {
		h.timer.Reset(heldFor)
		return h.mem.bytes(), nil
	}
	if err := h.drop(); err != nil {
		return 0, err
	}
	need := stagingBytes(g) + sendBytesOf(g)
	fail := func(why error) error {
		return fmt.Errorf("%w: %d takes %d bytes (%d MiB) beside those that the unit has: %w", errNoMemory, g.MaxSessions, need, need>>20, why)
	}
	if err := enough(os.DirFS("/"), int64(need)); err != nil {
		return 0, fail(err)
	}
	x, err := newStaging(s.cfg.Device, g)
	if err != nil {
		return 0, fail(err)
	}
	if err := x.try(s.cfg.Device); err != nil {
		return 0, fail(errors.Join(err, x.close()))
	}
	h.mem = x
	h.timer = time.AfterFunc(heldFor, func() { _ = s.release() })
	return x.bytes(), nil
}

// drop gives back what is held. mu is held.
func (h *held) drop() error {
	if h.mem == nil {
		return nil
	}
	h.timer.Stop()
	x := h.mem
	h.mem = nil
	return x.close()
}

// release gives back what is held.
func (s *Server) release() error {
	s.held.mu.Lock()
	defer s.held.mu.Unlock()
	return s.held.drop()
}

// take gives what is held for the geometry, or takes it now.
func (s *Server) take(g layout.Geometry) (*staging, error) {
	h := &s.held
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mem == nil || h.mem.geo != g {
		return newStaging(s.cfg.Device, g)
	}
	h.timer.Stop()
	x := h.mem
	h.mem = nil
	return x, nil
}

// restage lays out staging for the geometry, which differs from the one in use by its sessions alone. As for adopt, no session lives and
// nothing is registered.
func (s *Server) restage(g layout.Geometry) error {
	x, err := s.take(g)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoMemory, err)
	}
	old := s.mem
	s.mem = &memory{geo: g, index: old.index, ring: old.ring, cold: old.cold, staging: x}
	if old.stuck.Load() {
		// A session's key still stands on it: leaked rather than given to somebody else.
		s.cfg.Logger.Error("staging is not given back: a session's key could not be revoked", "bytes", old.staging.bytes())
		return nil
	}
	if err := old.staging.close(); err != nil {
		s.cfg.Logger.Warn("staging is not given back", "bytes", old.staging.bytes(), "error", err)
	}
	return nil
}
