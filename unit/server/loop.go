package server

import (
	"errors"
	"time"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit"
)

// eventKind says what the loop is to do.
type eventKind uint8

const (
	evDoorbell eventKind = iota
	evTrim
	evMaxAddr
	evSubscribe
	evAttach
	evDetach
	evCall
)

// event is one message to the loop. By value: doorbells allocate nothing.
type event struct {
	kind    eventKind
	link    *link
	address layout.Address
	above   layout.Address // of evSubscribe
	count   int            // of addresses that a doorbell names
	request wire.RequestID
	call    func(*unit.Unit)
	done    chan struct{}
}

const (
	queueDepth = 4096
	// drain bounds how many events are taken before flushes and acks get their turn.
	drain = 256
	// busyFor is how long after the last event the scan keeps its quick pace.
	busyFor = 100 * time.Millisecond
	// retryFlush is the pause before what flash refused is tried again. Nothing else waits for that.
	retryFlush = 100 * time.Millisecond
)

var errStopped = errors.New("unit: server stopped")

// do runs fn on the core and waits until it has. It fails once the loop has ended.
func (s *Server) do(fn func(u *unit.Unit)) error {
	done := make(chan struct{})
	select {
	case s.events <- event{kind: evCall, call: fn, done: done}:
	case <-s.loopDone:
		return errStopped
	}
	select {
	case <-done:
		return nil
	case <-s.loopDone:
		return errStopped
	}
}

// loopState belongs to the goroutine that has the helm.
type loopState struct {
	timer      *time.Timer // of the next tick
	inFlight   int         // batches on their way to flash
	live       map[unit.Session]*link
	busy       time.Time // of the last event
	retry      time.Time // when what flash refused is tried again; zero means that nothing was refused since the last try
	gathering  time.Time // since when pages wait for company; zero: none do
	waiters    []chan error
	noted      layout.Address // watermark in the meta file, or on its way there
	notedAt    time.Time
	notedTrims uint64     // single trims since the start
	asked      uint64     // segment of flash up to which room was asked for
	published  unit.Stats // as the metrics have them
	stall      stall
	followers  followers
}

// stall is since when flash does not take the page at the watermark.
type stall struct {
	at    layout.Address
	since time.Time // zero: no page waits there
}

// look tells for how long, as far as anybody looked. A page that flash refuses is not told by the flushes: others succeed beside it.
func (x *stall) look(v unit.View, now time.Time) time.Duration {
	switch {
	case v.Phase != unit.Open || !v.Held:
		*x = stall{}
	case x.since.IsZero() || x.at != v.Watermark:
		*x = stall{v.Watermark, now}
	default:
		return now.Sub(x.since)
	}
	return 0
}

// hand is one of two goroutines: one has the helm and runs the loop, the other relieves it if a write of
// its own hangs (flash.Helm).
func (s *Server) hand(helm bool) {
	defer s.hands.Done()
	for helm || s.helm.Relieve(s.loopDone) {
		s.helm.Took()
		if s.steer() {
			s.loopState.timer.Stop()
			close(s.loopDone)
			return
		}
		helm = false
	}
}

// steer is the loop. It returns true when it was told to stop, and false when it was relieved: then another owns the core.
func (s *Server) steer() (stopped bool) {
	var woke time.Time
	for {
		select {
		case ev := <-s.events:
			woke = time.Now()
			s.handle(ev)
			s.drain()
			s.loopState.busy = time.Now()
		case f := <-s.flushed:
			woke = time.Now()
			s.finishFlush(f)
		case <-s.store.Grown():
			woke = time.Now()
			s.setLimit()
		case <-s.loopState.timer.C:
			woke = time.Now()
			s.loopState.timer.Reset(s.tick())
		case <-s.stopLoop:
			return true
		}
		// One for the round: taking a batch moves nothing of what publish shows, and a page that the loop itself wrote shows
		// in the next one.
		v := s.core.View()
		if !s.startFlush(v) {
			return false
		}
		s.deliver()
		s.push()
		s.notifyFlushed(nil)
		s.publish(v)
		s.m.helm.Add(int64(time.Since(woke)))
	}
}

func (s *Server) drain() {
	for range drain {
		select {
		case ev := <-s.events:
			s.handle(ev)
		default:
			return
		}
	}
}

// tick searches for words without doorbells, and tells when to do so again.
func (s *Server) tick() time.Duration {
	now := time.Now()
	if s.core.Scan() > 0 {
		s.loopState.busy = now
	}
	v := s.core.View()
	s.observe(v)
	s.noteSettled(v)
	s.followed.Store(s.loopState.followers.lately(now))
	switch {
	case now.Sub(s.loopState.busy) >= busyFor && !s.awaited():
		return s.cfg.ScanIdle
	case s.core.Lazy() && len(s.loopState.followers.links) == 0:
		return max(s.cfg.ScanBusy, s.cfg.Gather/2)
	}
	return s.cfg.ScanBusy
}

func (s *Server) handle(ev event) {
	switch ev.kind {
	case evDoorbell:
		for a := ev.address; a < ev.address+layout.Address(ev.count); a++ {
			if s.core.Doorbell(ev.link.id, a) == unit.BellCold {
				s.bellBelow(ev.link, a)
			}
		}
		if s.core.Lazy() {
			s.core.Scan()
		}
	case evTrim:
		s.core.Trim(ev.link.id, ev.request, ev.address)
	case evMaxAddr:
		s.core.SetRoom(s.room())
		s.core.MaxAddr(ev.link.id, ev.request)
	case evSubscribe:
		s.subscribe(ev.link, ev.address, ev.above)
	case evAttach:
		s.loopState.live[ev.link.id] = ev.link
	case evDetach:
		delete(s.loopState.live, ev.link.id)
		s.loopState.followers.drop(ev.link)
	case evCall:
		ev.call(s.core)
		close(ev.done)
	}
}

// bellBelow answers a doorbell for an address below the window: the state is on flash. With too many to look up, the client rings again.
func (s *Server) bellBelow(l *link, a layout.Address) {
	l.session.jobs.Add(1)
	select {
	case s.coldJobs <- coldJob{link: l, read: wire.ColdRead{Address: a}, ack: true}:
	default:
		l.session.jobs.Done()
	}
}

// startFlush hands batches to the flushers, as many as the core gives; a lone page it writes itself. It returns false
// if it was relieved meanwhile.
func (s *Server) startFlush(v unit.View) bool {
	if !s.loopState.retry.IsZero() && !time.Now().Before(s.loopState.retry) {
		s.retry(s.core)
	} else if s.gather(v) {
		return true
	}
	for b := s.core.NextBatch(); b != nil; b = s.core.NextBatch() {
		s.loopState.gathering = time.Time{}
		s.m.batchPages.Observe(float64(len(b.Records) + len(b.Trims)))
		s.loopState.inFlight++
		if !s.alone(b) {
			s.batches <- b // has room for all that may be in flight
			continue
		}
		s.deliver() // what is there to be said does not wait for the disk
		s.push()
		if !s.helm.Begin() {
			s.batches <- b
			continue
		}
		if !s.writeAlone(b) {
			return false
		}
	}
	return true
}

// retry has what flash refused tried again at once.
func (s *Server) retry(u *unit.Unit) {
	s.loopState.retry = time.Time{}
	u.Retry()
}

// alone tells whether b is one page, and nobody wants anything else.
func (s *Server) alone(b *unit.Batch) bool {
	return len(b.Records) == 1 && len(b.Trims) == 0 && s.loopState.inFlight == 1 && len(s.events) == 0
}

// flushed is a batch that was written, or not.
type flushed struct {
	batch *unit.Batch
	err   error
	took  time.Duration
}

// gather tells whether what waits shall wait on for company (Config.Gather). The scan's timer ends the wait.
func (s *Server) gather(v unit.View) bool {
	if v.Urgent || len(s.loopState.waiters) > 0 || v.Queued >= v.Geometry.SessionSlots/2 {
		return false
	}
	if s.loopState.gathering.IsZero() {
		s.loopState.gathering = time.Now()
	}
	return time.Since(s.loopState.gathering) < s.cfg.Gather
}

// writeAlone writes b without another goroutine. It returns false if that took so long that another has the helm:
// to that one the batch goes as from a flusher. Until helm.End nothing of the core is touched: another may own it.
func (s *Server) writeAlone(b *unit.Batch) bool {
	began := time.Now()
	s.writing.Add(1)
	err := s.write(b.Records)
	s.writing.Add(-1)
	f := flushed{b, err, time.Since(began)}
	if !s.helm.End() {
		s.flushed <- f // has room for all that may be in flight
		return false
	}
	s.finishFlush(f)
	return true
}

// flusher writes batches until there are no more.
func (s *Server) flusher() {
	defer s.flushers.Done()
	for b := range s.batches {
		began := time.Now()
		s.writing.Add(1)
		err := errors.Join(s.write(b.Records), s.trim(b.Trims))
		s.writing.Add(-1)
		s.flushed <- flushed{b, err, time.Since(began)}
	}
}

func (s *Server) finishFlush(f flushed) {
	s.m.flushSeconds.Observe(f.took.Seconds())
	s.loopState.inFlight--
	s.helm.Ended(len(f.batch.Records) == 1 && len(f.batch.Trims) == 0 && s.loopState.inFlight == 0 && len(s.events) == 0)
	s.core.Flushed(f.batch)
	if f.err == nil {
		s.flushError.Store(nil)
		return
	}
	s.m.flushErrors.Inc()
	s.flushError.Store(&f.err)
	if s.loopState.retry.IsZero() { // one line for each try, however many batches were refused
		s.cfg.Logger.Error("flash refuses pages: they are not acknowledged until it takes them", "error", f.err)
		s.loopState.retry = time.Now().Add(retryFlush)
	}
	s.notifyFlushed(f.err)
}

// waitFlushed returns once everything that was published is on flash, or with the
// error of the first flush that failed.
func (s *Server) waitFlushed() error {
	c := make(chan error, 1)
	if err := s.do(func(u *unit.Unit) {
		u.ScanAll()
		s.retry(u)
		s.loopState.waiters = append(s.loopState.waiters, c)
	}); err != nil {
		return err
	}
	select {
	case err := <-c:
		return err
	case <-s.loopDone:
		return errStopped
	}
}

func (s *Server) notifyFlushed(err error) {
	if len(s.loopState.waiters) == 0 || (err == nil && s.core.Busy()) {
		return
	}
	for _, c := range s.loopState.waiters {
		c <- err
	}
	s.loopState.waiters = s.loopState.waiters[:0]
}

// deliver does what the core wants done.
func (s *Server) deliver() {
	out := s.core.Output()
	if out.Empty() {
		return
	}
	for _, a := range out.Acks {
		if l := s.loopState.live[a.To]; l != nil {
			l.out.ack(a.Ack)
			l.session.acks.Add(1)
		}
	}
	s.m.acks.Add(float64(len(out.Acks)))
	for _, r := range out.Replies {
		if l := s.loopState.live[r.To]; l != nil {
			l.out.reply(r.Reply)
		}
	}
	for _, i := range out.Freed {
		s.freeSlice(i)
	}
	for _, a := range out.Alarms {
		s.cfg.Logger.Error("alarm: "+a.What, "address", a.Address, "found", a.Found, "stored", a.Shadow, "error", a.Err)
	}
	out.Reset()
}

// publish shows other goroutines how far the unit is.
func (s *Server) publish(v unit.View) {
	s.base.Store(uint64(v.Base))
	s.trimmed.Store(uint64(v.TrimmedBelow))
	s.ahead(v)
}
