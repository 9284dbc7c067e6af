package server

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"corfu/internal/mutant"
	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit"
	"corfu/unit/flash"
)

// What a unit keeps so that others find out if its store went back (rules R21 to R25): the id of
// the store, the note of the last record for which it was reconciled, and the newest record that it
// knows to be ACTIVE. The start is in memory alone.

// errOtherStart: the order is for another start of this unit (rule R24): whoever sent it sealed a
// store that may be gone. Seal again.
var errOtherStart = errors.New("the order is for another start of the unit")

// newStart draws the name of this start.
func newStart() layout.StartID {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // it never fails (crypto/rand)
		if id := layout.StartID(binary.LittleEndian.Uint64(b[:])); id != 0 {
			return id
		}
	}
}

// checkStart fails with errOtherStart if an order names a start, and not this one.
func (s *Server) checkStart(id layout.StartID) error {
	if id != 0 && id != s.startID && !mutant.R24 {
		return fmt.Errorf("unit %d: start %016x, not %016x: %w", s.cfg.ID, uint64(s.startID), uint64(id), errOtherStart)
	}
	return nil
}

// storeState is what the unit says of its store. It may ask the core.
func (s *Server) storeState() (layout.StoreState, error) {
	var durable uint64
	var v unit.View
	var end layout.Address
	if err := s.do(func(u *unit.Unit) {
		durable, v = u.Durable(), u.View()
		if end = v.End; v.Outdated {
			end = u.Answer().End // what was there as it was sealed; reconciling adds what others have
		}
	}); err != nil {
		return layout.StoreState{}, err
	}
	m := s.store.Meta()
	return layout.StoreState{Store: m.Store, Start: s.startID, Reconciled: m.Reconciled, Active: m.Active, Client: m.Client,
		Changes: durable + uint64(m.TrimmedBelow) + m.Trims, Entries: end > 0 || m.TrimmedBelow > 0,
		Singles: m.Trims > 0, Kept: m.Kept}, nil
}

// noteReconciled makes the note of rule R22 durable: all of the record is, and nobody was told yet.
func (s *Server) noteReconciled(r layout.RecordRef) error {
	return s.store.UpdateMeta(func(m *flash.Meta) { m.Reconciled = r })
}

// noteActive makes durable that the record is known to be ACTIVE, before anything is done on the
// strength of it.
func (s *Server) noteActive(r layout.RecordRef) error {
	if have := s.store.Meta().Active; r.Epoch < have.Epoch || r == have {
		return nil
	}
	// It serves now: from here on its watermark speaks for what it has again (Meta.Kept).
	return s.store.UpdateMeta(func(m *flash.Meta) {
		m.SetActive(r)
		m.Kept = 0
	})
}

// trim makes single trims durable. Before the first of them it is noted that there are some: what a
// store has trimmed is not known after a start, but for that.
func (s *Server) trim(list []unit.Trim) error {
	if len(list) > 0 && s.store.Meta().Trims == 0 {
		if err := s.store.UpdateMeta(func(m *flash.Meta) { m.Trims = max(m.Trims, 1) }); err != nil {
			for i := range list {
				list[i].Failed = true
			}
			return err
		}
	}
	return s.store.Trim(list)
}

const (
	// clientStep is how far ahead client ids are noted: a session with a new id waits for the disk
	// once in so many.
	clientStep = 1024
	// clientLeap bounds how far one session may move the note: a client that makes up an id must
	// not use up all others.
	clientLeap = 1 << 24
)

// noteClient makes durable that the client id was in use here: a layout store that went back must
// not hand it out again. Ids that clients drew themselves have no attempts.
func (s *Server) noteClient(id layout.ClientID) error {
	if id <= layout.ClientID(s.client.Load()) || id > layout.MaxClient {
		return nil
	}
	have := s.store.Meta().Client
	if id > have && id-have <= clientLeap {
		have = min((id/clientStep+1)*clientStep, layout.MaxClient)
		if err := s.store.UpdateMeta(func(m *flash.Meta) { m.Client = max(m.Client, have) }); err != nil {
			return err
		}
	}
	if seen := s.client.Load(); layout.ClientID(seen) < have {
		s.client.CompareAndSwap(seen, uint32(have))
	}
	return nil
}

// write writes pages that clients published. Whose they are is durable before: a client that has
// not appended yet opens its sessions by an id that it drew, so that they do not show it.
func (s *Server) write(pages []flash.Page) error {
	var last layout.ClientID
	for _, p := range pages {
		if id := wire.PageClient(p.Bytes); id <= layout.MaxClient {
			last = max(last, id)
		}
	}
	return errors.Join(s.noteClient(last), s.store.Write(pages))
}
