package server

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"corfu/internal/mutant"
	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit"
	"corfu/unit/flash"
)

// seal promises to serve no epoch below n, takes the index out of reach, ends all sessions, brings what was published to
// flash, and answers with what is there: in this order (rules R14, R15). It may be repeated until it succeeds.
// base names the record of the latest ACTIVE epoch, as the sealer knows it.
func (s *Server) seal(log layout.LogID, n layout.Epoch, base layout.RecordRef) (snap unit.Snapshot, err error) {
	s.ctl.Lock()
	defer s.ctl.Unlock()
	began := time.Now()
	var again bool
	var v unit.View
	if e := s.do(func(u *unit.Unit) { again, err = u.CheckSeal(log, n); v = u.View() }); e != nil || err != nil {
		return snap, firstError(e, err)
	}
	if !again {
		if err := s.promise(log, n, base, v); err != nil {
			return snap, err
		}
		if err := s.do(func(u *unit.Unit) { u.BeginSeal(log, n, base.Epoch) }); err != nil {
			return snap, err
		}
	}
	if !mutant.R15 {
		if err := s.mem.revoke(); err != nil {
			return snap, err
		}
		if err := s.endSessions(); err != nil {
			return snap, err
		}
	}
	if s.mem != nil {
		if err := s.waitFlushed(); err != nil {
			return snap, fmt.Errorf("unit: seal: what was published is not on flash: %w", err)
		}
	}
	if v.Outdated {
		// An owner that gave up left its reconciling half done: what it brought counts.
		if err := s.reload(); err != nil {
			return snap, err
		}
	}
	if e := s.do(func(u *unit.Unit) { snap, err = u.EndSeal(n) }); e != nil || err != nil {
		return snap, firstError(e, err)
	}
	if mutant.R15 {
		time.Sleep(5 * time.Millisecond)
		_, _ = s.mem.revoke(), s.endSessions()
	}
	if !again {
		s.m.seals.Inc()
		s.m.sealSeconds.Observe(time.Since(began).Seconds())
		s.cfg.Logger.Info("sealed", "epoch", n, "watermark", snap.Watermark, "end", snap.End, "intact", snap.Intact, "took", time.Since(began))
	}
	return snap, nil
}

// promise makes the promise durable. What is settled now is noted with it.
func (s *Server) promise(log layout.LogID, n layout.Epoch, base layout.RecordRef, v unit.View) error {
	err := s.store.UpdateMeta(func(m *flash.Meta) {
		m.Log = flash.LogID(log)
		if !mutant.R14 {
			m.Promise = n
		}
		m.Stopped = 0 // nothing is opened, wiped or reconciled before a promise of this life
		m.SettledBelow = max(m.SettledBelow, v.Watermark)
		if base.Epoch > m.Active.Epoch {
			m.SetActive(base) // rule R25
		}
	})
	if err != nil {
		return fmt.Errorf("unit: promise: %w", err)
	}
	return nil
}

// activate opens epoch n, of the record (rule R18). start is that of the unit that was reconciled for it (rule R24); 0: any.
func (s *Server) activate(n layout.Epoch, id layout.RecordID, start layout.StartID) error {
	s.ctl.Lock()
	defer s.ctl.Unlock()
	if err := s.checkStart(start); err != nil {
		return err
	}
	record := layout.RecordRef{Epoch: n, ID: id}
	if noted := s.store.Meta().Reconciled; noted.Epoch == n && noted != record {
		return fmt.Errorf("unit: it was reconciled for %v, not for %v: %w", noted, record, unit.ErrNotReconciled)
	}
	var ready bool
	var err error
	if e := s.do(func(u *unit.Unit) { ready, err = u.Prepare(n) }); e != nil || err != nil || ready {
		return firstError(e, err)
	}
	if err := s.checkRoom(); err != nil {
		return err
	}
	if err := s.noteActive(record); err != nil {
		return fmt.Errorf("unit: activate: %w", err)
	}
	if err := s.mem.open(s.cfg.Device); err != nil {
		return err
	}
	if err := s.do(func(u *unit.Unit) { u.Activate(n) }); err != nil {
		return err
	}
	s.tell(n)
	if err := s.release(); err != nil { // of an epoch that came to nothing
		s.cfg.Logger.Warn("memory is not given back", "error", err)
	}
	s.m.activations.Inc()
	s.cfg.Logger.Info("open", "epoch", n)
	return nil
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// entries calls fn with what the unit, sealed at n, holds at from … to−1, in order. e.Page is valid during the call. It
// goes by the answer to the seal, so it serves other members while the unit itself is reconciled.
func (s *Server) entries(n layout.Epoch, from, to layout.Address, fn func(e unit.Entry) error) error {
	var snap unit.Snapshot
	check := func() error {
		var err error
		e := s.do(func(u *unit.Unit) { snap, err = whatCounts(u, n) })
		return firstError(e, err)
	}
	if err := check(); err != nil {
		return err
	}
	meta := s.store.Meta()
	if meta.Layout == nil {
		return nil
	}
	to = min(to, snap.End)
	pages := s.newRuns(meta.Layout.Geometry.PageSize)
	for a := from; a < to; a++ {
		// Somebody may seal at a higher epoch, and wipe, meanwhile.
		if (a-from)%entriesChunk == entriesChunk-1 {
			if err := check(); err != nil {
				return err
			}
		}
		p, mapped := meta.Layout.PositionAt(s.cfg.ID, a)
		if !mapped {
			continue
		}
		e, err := s.entry(a, to, p, layout.LogID(meta.Log), snap, pages)
		if err != nil {
			return err
		}
		if e.State == wire.Empty {
			continue
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return check()
}

const entriesChunk = 256

// whatCounts is what a unit lists entries from: sealed at n its answer, open in n what is settled below its watermark.
func whatCounts(u *unit.Unit, n layout.Epoch) (unit.Snapshot, error) {
	v := u.View()
	if v.Phase == unit.Open && v.Epoch == n {
		return unit.Snapshot{Watermark: v.Watermark, End: v.Watermark, TrimmedBelow: v.TrimmedBelow}, nil
	}
	return u.Answer(), u.CheckSealed(n)
}

// trims calls fn, by ascending addresses, with what was trimmed one by one in the epoch that the unit served before it was sealed at n. It
// fails with errForgotten if the unit does not know.
func (s *Server) trims(n, served layout.Epoch, from, to layout.Address, fn func(e unit.Entry) error) (err error) {
	var list []layout.Address
	var known bool
	if e := s.do(func(u *unit.Unit) {
		if err = u.CheckSealed(n); err == nil {
			list, known = u.Trims(served, from, to)
		}
	}); e != nil || err != nil {
		return firstError(e, err)
	}
	if !known {
		return errForgotten
	}
	slices.Sort(list)
	for _, a := range list {
		if err := fn(unit.Entry{Address: a, State: wire.Trimmed}); err != nil {
			return err
		}
	}
	return nil
}

// errForgotten: the unit restarted since, or too much was trimmed. Compare all entries.
var errForgotten = errors.New("the unit does not know what was trimmed")

// entry reads what stands at a. Those up to below follow.
func (s *Server) entry(a, below layout.Address, p layout.Position, log layout.LogID, snap unit.Snapshot, pages *runs) (unit.Entry, error) {
	if a < snap.TrimmedBelow {
		return unit.Entry{Address: a, State: wire.Trimmed}, nil
	}
	page, err := pages.page(a, below)
	if err != nil {
		if errors.Is(err, flash.ErrClosed) {
			return unit.Entry{}, err
		}
		// A start would find the same: whatever it was, it is no hole.
		s.cfg.Logger.Warn("flash cannot read an entry that others may have", "address", uint64(a), "error", err)
		return unit.Entry{Address: a, State: wire.Corrupt}, nil
	}
	state, h := unit.Classify(page, log, p)
	e := unit.Entry{Address: a, State: state, Attempt: h.Attempt}
	switch {
	case state == wire.Durable:
		e.Page = page[:wire.HeaderSize+h.Length]
	case state == wire.Empty && a < snap.Watermark:
		e.State = wire.Corrupt // it was there
	}
	return e, nil
}

// noteEvery is how long the meta file may lag behind the watermark.
const noteEvery = time.Second

// noteSettled notes from time to time how far everything is settled: a start searches only above, and
// knows damage below for what it is. The loop calls it.
func (s *Server) noteSettled(v unit.View) {
	st, now := &s.loopState, time.Now()
	few := v.Watermark < st.noted+layout.Address(v.Geometry.Window)
	trimmed := s.core.Stats().Trimmed
	if (v.Watermark <= st.noted && trimmed == st.notedTrims) || (few && now.Sub(st.notedAt) < noteEvery) || s.noting.Swap(true) {
		return
	}
	st.noted, st.notedTrims, st.notedAt = v.Watermark, trimmed, now
	go func() {
		defer s.noting.Store(false)
		// Never while an epoch changes: entries may be wiped.
		if !s.ctl.TryRLock() {
			return
		}
		defer s.ctl.RUnlock()
		if err := s.saveSettled(); err != nil && !errors.Is(err, errStopped) {
			s.cfg.Logger.Warn("progress not noted: the next start takes longer", "error", err)
		}
	}()
}

// saveSettled notes how far everything is settled, and which copies below are known to be CORRUPT. ctl is held.
func (s *Server) saveSettled() error {
	var watermark layout.Address
	var bad []layout.Address
	var more bool
	var trims uint64
	if err := s.do(func(u *unit.Unit) {
		trims = s.trims0 + u.Stats().Trimmed
		watermark, bad = u.View().Watermark, u.Corrupt(0, flash.MaxNoted)
		more, _ = u.Beyond()
		more = more || u.View().Corrupt > len(bad)
	}); err != nil {
		return err
	}
	if m := s.store.Meta(); watermark <= m.SettledBelow && slices.Equal(bad, m.Corrupt) && more == m.MoreCorrupt && trims <= m.Trims {
		return nil
	}
	return s.store.UpdateMeta(func(m *flash.Meta) {
		m.SettledBelow, m.Corrupt, m.MoreCorrupt = max(m.SettledBelow, watermark), bad, more
		m.Trims = max(m.Trims, trims)
	})
}
