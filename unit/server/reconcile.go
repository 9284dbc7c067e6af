package server

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/unit"
	"corfu/unit/flash"
)

// reconciling is one run of bringing the unit to what was decided for an epoch (rule R17).
// A later seal ends it: every step asks again whether the unit is still sealed at the epoch.
type reconciling struct {
	s       *Server
	layout  *layout.Layout
	record  layout.RecordRef
	pages   []flash.Page   // to be written
	trims   []unit.Trim    // the same
	buffer  []byte         // behind them
	have    *runs          // what stands at the addresses of the entries in hand
	next    layout.Address // entries come in order
	entries int

	kept   bool             // the window shows what flash has, but for what was placed
	placed []layout.Address // pages that were written
	looks  bool             // what was written is looked at before the unit confirms
	sums   []placedSum      // of what was written and not looked at yet; no more than mostPlaced and a batch
}

// placedSum is what flash must have at an address: the sum of the page that was written there.
type placedSum struct {
	address layout.Address
	sum     uint32
}

// mostPlaced is up to how many pages are read one by one rather than the whole window.
const mostPlaced = 512

// reconcileBatch is how many pages are written at a time.
const reconcileBatch = 128

// beginReconcile takes the new layout, and forgets all entries if the unit was no member of the base.
func (s *Server) beginReconcile(l *layout.Layout, h *pb.ReconcileHeader) (*reconciling, error) {
	wipe, trimmedBelow := h.Wipe, layout.Address(h.TrimmedBelow)
	s.ctl.Lock()
	defer s.ctl.Unlock()
	if err := s.checkSealed(l); err != nil {
		return nil, err
	}
	if err := s.checkStart(layout.StartID(h.Start)); err != nil {
		return nil, err
	}
	meta := s.store.Meta()
	if !wipe && meta.Layout != nil && !l.Geometry.Follows(meta.Layout.Geometry) {
		return nil, fmt.Errorf("unit: the geometry changes and the unit keeps its entries: %w", unit.ErrBadEntry)
	}
	if s.mem != nil && s.mem.geo != l.Geometry && l.Geometry.Follows(s.mem.geo) {
		// Before anything is changed: without the memory nothing came of it.
		if _, err := s.reserve(l.Geometry); err != nil {
			return nil, err
		}
	}
	kept := false
	if err := s.do(func(u *unit.Unit) {
		kept = !wipe && !h.Adopts && u.View().TrimmedBelow >= trimmedBelow && u.Kept(l)
		u.Outdate()
	}); err != nil {
		return nil, err
	}
	if wipe {
		if err := s.wipe(); err != nil {
			return nil, err
		}
	}
	if h.Keep {
		if err := s.keepBelow(layout.Address(h.KeepBelow)); err != nil {
			return nil, err
		}
	}
	err := s.store.UpdateMeta(func(m *flash.Meta) {
		m.ActiveLayout, m.Layout = m.OfActive(), l // what is ACTIVE stays known while this may come to nothing
		m.TrimmedBelow = max(m.TrimmedBelow, trimmedBelow)
		if m.Kept = 0; h.Keep {
			m.Copied, m.Kept = toCopied(h.Copied), layout.Address(h.KeepBelow)
		}
		if h.Adopts {
			// Served from here on. If the epoch comes to nothing, the range is copied anew.
			m.Copied = slices.DeleteFunc(slices.Clone(m.Copied), func(x flash.Copied) bool {
				return slices.ContainsFunc(h.Copied, func(o *pb.CopiedRange) bool { return o.From == uint64(x.From) && o.To == uint64(x.To) })
			})
			// From here on holes may lie among addresses that were not the unit's: they are no damage.
			m.SettledBelow = min(m.SettledBelow, layout.Address(h.SettledBelow))
		}
	})
	if err != nil {
		return nil, err
	}
	if h.Adopts && !wipe {
		for _, x := range h.Copied {
			if err := s.eraseLeft(l, layout.Address(x.Below), layout.Address(x.To)); err != nil {
				return nil, err
			}
		}
	}
	n := l.Geometry.PageSize
	r := &reconciling{s: s, layout: l, record: layout.RecordRef{Epoch: l.Epoch, ID: layout.RecordID(h.Record)}, kept: kept, looks: true, have: s.newRuns(n), buffer: make([]byte, n*reconcileBatch)}
	return r, nil
}

// keepBelow forgets what stands at address below and above: the unit was left out, and what was decided there since is not known (rule R17).
// What lies below it keeps, so that it is not copied anew. That it does is noted first: a crash in between leaves a store that has less than
// its watermark says.
func (s *Server) keepBelow(below layout.Address) error {
	var end layout.Address
	if err := s.do(func(u *unit.Unit) { end = u.Answer().End }); err != nil {
		return err
	}
	if err := s.store.UpdateMeta(func(m *flash.Meta) {
		if m.Kept == 0 || below < m.Kept {
			m.Kept = below
		}
		m.SettledBelow = min(m.SettledBelow, below)
		m.Corrupt = slices.DeleteFunc(slices.Clone(m.Corrupt), func(a layout.Address) bool { return a >= below })
	}); err != nil {
		return err
	}
	var pages []flash.Page
	nothing := make([]byte, s.store.Meta().Layout.Geometry.PageSize)
	err := s.store.Scan(below, end, func(a layout.Address, page []byte) error {
		if !bytes.Equal(page, nothing) {
			pages = append(pages, flash.Page{Address: a, Bytes: nothing})
		}
		return nil
	})
	if err == nil && len(pages) > 0 {
		err = s.store.Write(pages)
	}
	s.cfg.Logger.Info("kept: the unit comes back with its store whole", "below", uint64(below), "erased", len(pages))
	return err
}

// eraseLeft forgets what an owner that gave up handing over left behind what was copied: nobody else may hold it, so that it
// must not come back with this unit (rule R17: who was no member of the base is wiped). Nothing stands more than a window behind (R4).
func (s *Server) eraseLeft(l *layout.Layout, below, to layout.Address) error {
	to = min(to, below+layout.Address(2*l.Geometry.Window))
	var pages []flash.Page
	err := s.store.Scan(below, to, func(a layout.Address, page []byte) error {
		p, mapped := l.PositionAt(s.cfg.ID, a)
		if state, _ := unit.Classify(page, l.Log, p); !mapped || state == wire.Empty || state == wire.Trimmed {
			return nil
		}
		pages = append(pages, flash.Page{Address: a, Bytes: make([]byte, l.Geometry.PageSize)})
		return nil
	})
	if err == nil && len(pages) > 0 {
		s.cfg.Logger.Info("forgot what an epoch that came to nothing had brought", "pages", len(pages))
		err = s.store.Write(pages)
	}
	return err
}

// checkSealed fails unless the unit is sealed at l's epoch, and a member of l.
func (s *Server) checkSealed(l *layout.Layout) (err error) {
	if e := s.do(func(u *unit.Unit) {
		if err = u.CheckSealed(l.Epoch); err == nil && u.View().Log != l.Log {
			err = fmt.Errorf("unit: layout of log %v: %w", l.Log, unit.ErrOtherLog)
		}
	}); e != nil {
		return e
	}
	if _, member := l.Unit(s.cfg.ID); err == nil && !member {
		err = fmt.Errorf("unit %d is no member of the layout: %w", s.cfg.ID, unit.ErrBadEntry)
	}
	return err
}

// wipe forgets all entries. What the meta file says of them goes first: a crash in
// between must not leave it saying that lost pages are damaged.
func (s *Server) wipe() error {
	err := s.do(func(u *unit.Unit) { u.Forget() })
	if err == nil {
		err = s.store.UpdateMeta(func(m *flash.Meta) {
			m.SettledBelow, m.TrimmedBelow, m.Scrub, m.Copied, m.Corrupt, m.MoreCorrupt = 0, 0, flash.Scrub{}, nil, nil, false
			m.Kept = 0
			m.Reconciled = layout.RecordRef{} // rule R22: it holds nothing of that any more
		})
	}
	if err == nil {
		err = s.store.Wipe()
	}
	if err != nil {
		return fmt.Errorf("unit: wipe: %w", err)
	}
	s.cfg.Logger.Info("wiped: the unit was no member of the last layout")
	return nil
}

func (r *reconciling) taken() int { return r.entries }

// add takes entries, in order of their addresses. They are durable once more came, or at end.
func (r *reconciling) add(entries []unit.Entry) error {
	r.s.ctl.Lock()
	defer r.s.ctl.Unlock()
	if err := r.s.checkSealed(r.layout); err != nil {
		return err
	}
	if err := r.s.do(func(u *unit.Unit) { u.Outdate() }); err != nil {
		return err
	}
	return r.all(entries, func(layout.Address) error { return nil })
}

// all takes entries that may says nothing against.
func (r *reconciling) all(entries []unit.Entry, may func(layout.Address) error) error {
	r.have.forget()
	for _, e := range entries {
		if err := may(e.Address); err != nil {
			return err
		}
		if err := r.one(e, entries[len(entries)-1].Address+1); err != nil {
			return err
		}
	}
	return nil
}

// one takes an entry; those up to below follow.
func (r *reconciling) one(e unit.Entry, below layout.Address) error {
	g := r.layout.Geometry
	p, mapped := r.layout.PositionAt(r.s.cfg.ID, e.Address)
	if !mapped || e.Address > g.MaxAddress() || e.Address < r.next {
		return fmt.Errorf("unit: address %d: not mapped, or out of order: %w", e.Address, unit.ErrBadEntry)
	}
	r.next = e.Address + 1
	have, err := r.have.page(e.Address, below)
	if errors.Is(err, flash.ErrClosed) {
		return err
	}
	if err != nil {
		// As for a repair: nothing whole is there, and the disk may take another page for the one that it cannot read.
		r.s.cfg.Logger.Warn("flash cannot read a page that is to be reconciled", "address", uint64(e.Address), "error", err)
		have = make([]byte, g.PageSize)
	}
	n := len(r.pages) * g.PageSize
	out := r.buffer[n : n+g.PageSize]
	put, err := unit.Merge(e, have, out, r.layout.Log, p, r.layout.Epoch)
	if err != nil {
		r.s.cfg.Logger.Error("alarm: entry to reconcile refused", "error", err)
		return err
	}
	r.entries++
	if !put {
		return nil
	}
	if e.State == wire.Trimmed || len(r.placed) == mostPlaced {
		r.kept = false
	}
	if r.kept {
		r.placed = append(r.placed, e.Address)
	}
	if e.State == wire.Trimmed {
		a := e.Address
		if err := r.s.do(func(u *unit.Unit) { u.NoteTrim(a, r.layout.Epoch) }); err != nil {
			return err
		}
		if r.trims = append(r.trims, unit.Trim{Address: e.Address}); len(r.trims) == reconcileBatch {
			return r.write()
		}
		return nil
	}
	if r.looks {
		r.sums = append(r.sums, placedSum{e.Address, wire.PageSum(out)})
	}
	if r.pages = append(r.pages, flash.Page{Address: e.Address, Bytes: out}); len(r.pages) == reconcileBatch {
		return r.write()
	}
	return nil
}

func (r *reconciling) write() error {
	err := errors.Join(r.s.write(r.pages), r.s.trim(r.trims))
	r.pages, r.trims = r.pages[:0], r.trims[:0]
	if err == nil && !r.kept {
		err = r.look()
	}
	return err
}

// end makes everything durable, builds the window anew and notes that the unit is reconciled (rule R17).
func (r *reconciling) end() error {
	s := r.s
	s.ctl.Lock()
	defer s.ctl.Unlock()
	if err := s.checkSealed(r.layout); err != nil {
		return err
	}
	if err := r.write(); err != nil {
		return err
	}
	if err := r.show(); err != nil {
		return err
	}
	if err := s.noteReconciled(r.record); err != nil {
		return fmt.Errorf("unit: reconcile: %w", err)
	}
	var err error
	if e := s.do(func(u *unit.Unit) { err = u.Reconciled(r.layout.Epoch) }); e != nil || err != nil {
		return firstError(e, err)
	}
	s.cfg.Logger.Info("reconciled", "epoch", r.layout.Epoch, "entries", r.entries)
	return nil
}

// show makes the window show what flash has now. Mostly little has changed, and clients wait. ctl is held.
func (r *reconciling) show() error {
	var done bool
	var err error
	e := r.s.do(func(u *unit.Unit) {
		if err = r.s.adopt(r.layout); err == nil && r.kept {
			done, err = u.Keep(r.layout, r.placed, r.s.store.ReadPage)
		}
	})
	if e != nil || err != nil || done {
		return firstError(e, err)
	}
	if err := r.look(); err != nil {
		return err
	}
	return r.s.reload()
}

// errNotKept means that the disk said that it has a page, and has not.
var errNotKept = errors.New("the disk did not keep it")

// look fails unless flash gives back what was just written. Loading the window would take a page that is not there for one that a crash
// tore, and the address for EMPTY, over an entry that the others have. (Keep looks for itself.)
func (r *reconciling) look() error {
	for rest := r.sums; len(rest) > 0; {
		n := 1 // up to the next gap, over which it costs more to read than to ask anew
		for n < len(rest) && rest[n].address-rest[n-1].address <= lookGap {
			n++
		}
		if err := r.lookAt(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	r.sums = r.sums[:0]
	return nil
}

// lookGap is how many addresses look reads beside those that it is asked for, rather than begin anew.
const lookGap = 16

// lookAt reads the addresses of sums, which ascend, in one go.
func (r *reconciling) lookAt(sums []placedSum) error {
	err := r.s.store.Scan(sums[0].address, sums[len(sums)-1].address+1, func(a layout.Address, page []byte) error {
		switch {
		case len(sums) == 0 || a < sums[0].address:
			return nil
		case a > sums[0].address:
			return notKept(sums[0].address)
		}
		p, _ := r.layout.PositionAt(r.s.cfg.ID, a)
		if state, _ := unit.Classify(page, r.layout.Log, p); state == wire.Empty || wire.PageSum(page) != sums[0].sum {
			return notKept(a)
		}
		sums = sums[1:]
		return nil
	})
	if err == nil && len(sums) > 0 {
		err = notKept(sums[0].address)
	}
	return err
}

func notKept(a layout.Address) error {
	return fmt.Errorf("unit: address %d was just written, and flash gives something else: %w", a, errNotKept)
}

// reload builds the window anew from flash and the meta file. ctl is held, nothing is registered, no session lives.
func (s *Server) reload() error {
	meta := s.store.Meta()
	if meta.Layout == nil {
		return nil
	}
	l := meta.Layout
	if s.mem != nil && l.Geometry.Follows(s.mem.geo) {
		// Of an epoch that came to nothing, maybe: only the end of a reconciliation lays out staging anew, which may fail.
		l = l.Next(l.Epoch, l.Start)
		l.Geometry = s.mem.geo
	}
	var err error
	e := s.do(func(u *unit.Unit) {
		if err = s.adopt(l); err == nil {
			err = s.load(u, meta)
			s.loopState.asked, s.loopState.noted = 0, 0
		}
	})
	return firstError(e, err)
}
