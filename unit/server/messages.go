package server

import (
	"errors"

	"corfu/internal/messages"
	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma"
	"corfu/unit"
)

// knownLayout is a layout that was ACTIVE, since this unit was opened in it (rule R18), as it is sent.
type knownLayout struct {
	epoch   layout.Epoch
	encoded []byte
}

// tell lets askers know the layout of epoch n, in which the unit was opened just now. A layout that the unit was only reconciled for is
// nobody's business: its verdict may be ABORTED. ctl is held.
func (s *Server) tell(n layout.Epoch) {
	if l := s.store.Meta().Layout; l != nil && l.Epoch == n {
		s.known.Store(&knownLayout{n, layout.Encode(l)})
	}
}

func (s *Server) newMessages() *messages.Server {
	h := messages.Handler{
		Failed: s.refused,
		Seal: func(m wire.Seal) (wire.Sealed, *layout.StoreState) {
			snap, err := s.seal(m.Log, m.Epoch, layout.RecordRef{Epoch: m.Base, ID: m.BaseID})
			if err != nil {
				s.cfg.Logger.Info("seal refused", "epoch", m.Epoch, "error", err)
			}
			if err == nil && s.anyCorrupt() {
				return wire.Sealed{Status: wire.StatusCorrupt}, nil
			}
			store, e := s.storeState()
			if err == nil {
				err = e
			}
			return sealed(snap, err), &store
		},
		Layout: func() (layout.Epoch, []byte) {
			if k := s.known.Load(); k != nil {
				return k.epoch, k.encoded
			}
			return 0, nil
		},
	}
	return messages.NewServer(h, s.cfg.Device, rdma.Told(s.listener.Addr(), s.cfg.Advertise, s.cfg.Device.Info()), s.cfg.TokenLife, s.cfg.Logger)
}

// anyCorrupt tells whether copies here are known to be CORRUPT.
func (s *Server) anyCorrupt() bool {
	any := true // of a unit that does not say, nobody knows
	_ = s.do(func(u *unit.Unit) { any = u.MoreCorrupt() || u.View().Corrupt > 0 })
	return any
}

// sealed is what a seal came to, as a message.
func sealed(snap unit.Snapshot, err error) wire.Sealed {
	var promised *unit.PromiseError
	switch {
	case err == nil:
		return wire.Sealed{Intact: snap.Intact, Watermark: snap.Watermark, End: snap.End, TrimmedBelow: snap.TrimmedBelow}
	case errors.As(err, &promised):
		return wire.Sealed{Status: wire.StatusPromised, Promise: promised.Promise}
	case errors.Is(err, unit.ErrOtherLog):
		return wire.Sealed{Status: wire.StatusOtherLog}
	case errors.Is(err, unit.ErrBadEntry):
		return wire.Sealed{Status: wire.StatusBadQuery}
	}
	return wire.Sealed{Status: wire.StatusIO}
}

// Sealers is how many layout servers may seal this unit over the fabric now; Readers is how many clients may ask it for layouts.
func (s *Server) Sealers() int { return s.messages.Count(messages.Sealer) }

// Readers: see Sealers.
func (s *Server) Readers() int { return s.messages.Count(messages.Reader) }
