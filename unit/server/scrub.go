package server

import (
	"context"
	"sync"
	"time"

	"corfu/internal/sleep"
	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit"
	"corfu/unit/flash"
)

// A scrub reads every page from the trimmed prefix to the watermark, at a bounded rate, and tells the core of each that does
// not verify, is gone, or cannot be read. It goes on where a restart interrupted it.

const (
	// DefaultScrubRate is Config.ScrubRate's default, in bytes per second.
	DefaultScrubRate = 8 << 20
	// DefaultScrubEvery is Config.ScrubEvery's default.
	DefaultScrubEvery = 7 * 24 * time.Hour

	scrubRun     = 64 << 10               // bytes read at a time
	scrubYield   = 50 * time.Millisecond  // for each of them, how long clients' I/O goes first
	scrubLag     = time.Second            // what was missed of the rate beyond that is not made up for
	scrubNote    = time.Minute            // how often the meta file gets the progress
	scrubLook    = time.Minute            // how often it is looked whether a pass is due
	scrubErrors  = 32                     // reads that fail in a row: the disk is down, not a page
	scrubRecover = 30 * time.Second       // that it then gets
	scrubAwait   = 100 * time.Millisecond // between looks at a unit that is not open
)

// pass is how far a scrub is, or the last one came.
type pass struct {
	number           uint64 // since the start of the unit; 0: none yet
	running          bool
	first, next, end layout.Address
	pages, corrupt   uint64
	bytes            uint64
	repaired         uint64 // the core's count when it began
	began            time.Time
	took             time.Duration // of one that ended
	waiting          string        // why it stands still
	rate             int64         // bytes per second
	unreadable       int           // in a row
	asked            bool          // by order, and not taken up yet
}

// scrubber is what the scrub's goroutine shares.
type scrubber struct {
	mu   sync.Mutex
	pass pass
	kick chan struct{} // a pass was asked for
	done chan struct{}
}

// startScrub asks for a pass from the beginning, at rate bytes per second; 0: as configured. It tells how it stands.
func (s *Server) startScrub(rate int64) pass {
	if rate == 0 {
		rate = max(s.cfg.ScrubRate, 0)
	}
	if rate == 0 {
		rate = DefaultScrubRate
	}
	x := &s.scrub
	x.mu.Lock()
	x.pass = pass{number: x.pass.number + 1, running: true, asked: true, began: time.Now(), rate: rate, waiting: "about to begin"}
	p := x.pass
	x.mu.Unlock()
	select {
	case x.kick <- struct{}{}:
	default:
	}
	return p
}

func (s *Server) passed() pass {
	s.scrub.mu.Lock()
	defer s.scrub.mu.Unlock()
	return s.scrub.pass
}

// scrubLoop makes passes when they are due or asked for, until ctx ends.
func (s *Server) scrubLoop(ctx context.Context) {
	defer close(s.scrub.done)
	for s.awaitPass(ctx) {
		s.runPass(ctx)
	}
}

// awaitPass waits until a pass is asked for, or due.
func (s *Server) awaitPass(ctx context.Context) bool {
	for ctx.Err() == nil {
		x := &s.scrub
		x.mu.Lock()
		asked := x.pass.asked
		x.mu.Unlock()
		left := s.untilScrub()
		if asked || left <= 0 {
			return true
		}
		t := time.NewTimer(min(left, scrubLook))
		select {
		case <-ctx.Done():
		case <-x.kick:
		case <-t.C:
		}
		t.Stop()
	}
	return false
}

// untilScrub is the time until a pass begins by itself.
func (s *Server) untilScrub() time.Duration {
	if s.cfg.ScrubRate < 0 {
		return scrubLook
	}
	more := false
	_ = s.do(func(u *unit.Unit) {
		if more, _ = u.Beyond(); u.View().Corrupt >= unit.MaxCorrupt/2 {
			more = false // there would be no room for them
		}
	})
	m := s.store.Meta().Scrub
	if more || m.Next > 0 || m.Ended == 0 {
		return 0
	}
	return untilNext(time.Unix(m.Ended, 0), time.Now(), s.cfg.ScrubEvery)
}

// untilNext returns how long after now the next pass begins. One that ended in the future puts none off: the clock was ahead then, or is behind
// now, and nobody knows how long ago that was.
func untilNext(ended, now time.Time, every time.Duration) time.Duration {
	if ended.After(now) {
		return 0
	}
	return ended.Add(every).Sub(now)
}

// runPass makes one pass: one that was asked for from the beginning, else from where the last one stopped.
func (s *Server) runPass(ctx context.Context) {
	x := &s.scrub
	var times uint64
	if s.do(func(u *unit.Unit) { _, times = u.Beyond() }) != nil {
		return
	}
	v, ok := s.awaitOpen(ctx)
	if !ok {
		return
	}
	from := v.TrimmedBelow
	x.mu.Lock()
	if !x.pass.asked {
		from = max(from, s.store.Meta().Scrub.Next)
		x.pass = pass{number: x.pass.number + 1, running: true, began: time.Now(), rate: s.cfg.ScrubRate}
	}
	p := &x.pass
	p.asked, p.waiting, p.repaired = false, "", s.repairs()
	p.first, p.next, p.end = from, from, max(from, v.Watermark)
	number, rate := p.number, p.rate
	x.mu.Unlock()
	if v.Watermark > from {
		s.cfg.Logger.Info("scrub begins", "from", from, "to", v.Watermark, "bytes_per_second", rate)
	}
	if !s.walk(ctx, number, rate) {
		s.noteScrub(s.passed().next, false)
		return
	}
	s.noteScrub(0, true)
	if from == v.TrimmedBelow {
		_ = s.do(func(u *unit.Unit) { u.NoneBeyond(times) })
	}
	x.mu.Lock()
	if p.number == number {
		p.running, p.took, p.waiting = false, time.Since(p.began), ""
	}
	last := *p
	x.mu.Unlock()
	s.m.scrubPasses.Inc()
	if last.pages > 0 {
		s.cfg.Logger.Info("scrub ended", "from", last.first, "to", last.end, "pages", last.pages, "bytes", last.bytes, "corrupt", last.corrupt, "took", last.took)
	}
}

func (s *Server) repairs() (n uint64) {
	_ = s.do(func(u *unit.Unit) { n = u.Stats().Repaired })
	return n
}

// awaitOpen waits until the unit serves an epoch.
func (s *Server) awaitOpen(ctx context.Context) (v unit.View, ok bool) {
	for {
		if s.do(func(u *unit.Unit) { v = u.View() }) != nil || ctx.Err() != nil {
			return v, false
		}
		if v.Phase == unit.Open {
			s.scrubWaits("")
			return v, true
		}
		s.scrubWaits("the unit is not open")
		if sleep.For(ctx, scrubAwait) != nil {
			return v, false
		}
	}
}

func (s *Server) scrubWaits(why string) {
	s.scrub.mu.Lock()
	defer s.scrub.mu.Unlock()
	s.scrub.pass.waiting = why
}

// walk verifies the pages of a pass. It reports false if it did not come to the end: another pass was asked for, or ctx ended.
func (s *Server) walk(ctx context.Context, number uint64, rate int64) bool {
	buf := flash.Buffer(scrubRun)
	due, noted := time.Now(), time.Now()
	for {
		p := s.passed()
		switch {
		case p.number != number:
			return false
		case p.next >= p.end:
			return true
		}
		due = latest(due, time.Now().Add(-scrubLag))
		if woken, ok := s.scrubPause(ctx, time.Until(due)); !ok {
			return false
		} else if woken {
			continue
		}
		if !s.giveWay(ctx) {
			return false
		}
		a := max(p.next, layout.Address(s.trimmed.Load()))
		n, ok := s.scrubPages(ctx, a, p.end, buf)
		if !ok {
			if _, ok := s.awaitOpen(ctx); !ok || sleep.For(ctx, scrubAwait) != nil {
				return false
			}
			continue
		}
		due = due.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
		if time.Since(noted) >= scrubNote {
			noted = time.Now()
			s.noteScrub(s.passed().next, false)
		}
	}
}

// scrubPause waits for d, until another pass is asked for (or was: then it is woken for nothing), or until ctx ends: then it is not ok.
func (s *Server) scrubPause(ctx context.Context, d time.Duration) (woken, ok bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return false, true
	case <-s.scrub.kick:
		return true, true
	case <-ctx.Done():
		return false, false
	}
}

// scrubPages verifies a run of pages from a on. ok is false if nobody can tell now what holds: the unit is not open. n is the bytes read.
func (s *Server) scrubPages(ctx context.Context, a, end layout.Address, buf []byte) (n int, ok bool) {
	meta := s.store.Meta()
	if meta.Layout == nil {
		return 0, false
	}
	size := meta.Layout.Geometry.PageSize
	run, err := s.store.ReadRun(a, buf[:len(buf)/size*size])
	if run == 0 {
		return 0, false // a page larger than the buffer cannot be: see layout.Geometry
	}
	run = int(min(layout.Address(run), end-min(a, end)))
	var corrupt uint64
	for i := range run {
		at, page := a+layout.Address(i), buf[i*size:(i+1)*size]
		sound, e := s.verify(meta, at, page, err != nil)
		if sound {
			continue
		}
		bad, sure := s.suspect(at)
		if !sure {
			return 0, false
		}
		if bad {
			corrupt++
		}
		if e != nil && !s.unreadable(ctx) {
			return 0, false
		}
	}
	s.advanceScrub(a+layout.Address(run), uint64(run), uint64(run*size), corrupt, err == nil)
	return run * size, true
}

// verify tells whether the page of a is whole. again: what was read of it may be nothing, since the run had an error.
func (s *Server) verify(meta flash.Meta, a layout.Address, page []byte, again bool) (sound bool, err error) {
	p, mapped := meta.Layout.PositionAt(s.cfg.ID, a)
	if !mapped {
		return true, nil
	}
	if again {
		if err := s.store.ReadPage(a, page); err != nil {
			return false, err
		}
	}
	state, _ := unit.Classify(page, layout.LogID(meta.Log), p)
	return state != wire.Empty && state != wire.Corrupt, nil
}

// unreadable counts reads that failed in a row, and lets a disk that gives nothing but errors alone for a while.
func (s *Server) unreadable(ctx context.Context) bool {
	x := &s.scrub
	x.mu.Lock()
	x.pass.unreadable++
	down := x.pass.unreadable >= scrubErrors
	if down {
		x.pass.unreadable = 0
		x.pass.waiting = "the disk gives errors"
	}
	x.mu.Unlock()
	if !down {
		return true
	}
	defer s.scrubWaits("")
	s.cfg.Logger.Warn("scrub pauses: the disk gives errors", "for", scrubRecover)
	return sleep.For(ctx, scrubRecover) == nil
}

func (s *Server) advanceScrub(next layout.Address, pages, bytes, corrupt uint64, readable bool) {
	x := &s.scrub
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.pass.asked {
		return // another pass stands there now
	}
	x.pass.next = next
	x.pass.pages += pages
	x.pass.bytes += bytes
	x.pass.corrupt += corrupt
	if readable {
		x.pass.unreadable = 0
	}
	s.m.scrubPages.Add(float64(pages))
	s.m.scrubBytes.Add(float64(bytes))
	s.m.scrubCorrupt.Add(float64(corrupt))
}

// giveWay lets flushes and cold reads go first, for a while.
func (s *Server) giveWay(ctx context.Context) bool {
	for end := time.Now().Add(scrubYield); s.writing.Load() > 0 || len(s.coldJobs) > 0; {
		if time.Now().After(end) {
			break
		}
		if sleep.For(ctx, time.Millisecond) != nil {
			return false
		}
	}
	return ctx.Err() == nil
}

// noteScrub makes the progress survive a restart; ended: the pass is over.
func (s *Server) noteScrub(next layout.Address, ended bool) {
	if !s.ctl.TryRLock() {
		return // an epoch changes, or the unit stops: a little is done twice
	}
	defer s.ctl.RUnlock()
	if err := s.store.UpdateMeta(func(m *flash.Meta) {
		m.Scrub.Next = next
		if ended {
			m.Scrub.Ended = time.Now().Unix()
		}
	}); err != nil {
		s.cfg.Logger.Warn("progress of the scrub not noted: a restart does it again", "error", err)
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
