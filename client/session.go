package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma"
)

// session is what every session has: connections that live and die together.
type session struct {
	who    string
	log    *slog.Logger
	pipes  []*pipe
	broken chan struct{} // closed when it breaks or is closed
	closed chan struct{} // closed once all connections are closed: nothing touches local memory any more
	once   sync.Once
	after  func() // runs when it breaks

	fabric, provider string // where it was dialled
}

// standstill returns for how long operations have been in flight of which none ended.
func (s *session) standstill(now time.Time) (longest time.Duration) {
	for _, p := range s.pipes {
		stood, _ := p.look(now)
		longest = max(longest, stood)
	}
	return longest
}

// moved reports whether an operation ended a moment ago.
func (s *session) moved(now time.Time) bool {
	for _, p := range s.pipes {
		if _, moved := p.look(now); now.Sub(moved) < time.Second {
			return true
		}
	}
	return false
}

// fail breaks the session. Operations in flight complete, with rdma.ErrBroken if their outcome is unknown.
func (s *session) fail(err error) {
	s.once.Do(func() {
		if err != nil && !errors.Is(err, ErrClosed) {
			s.log.Info("session ended", "with", s.who, "cause", err)
		}
		close(s.broken)
		if s.after != nil {
			s.after()
		}
		go func() {
			for _, p := range s.pipes {
				_ = p.conn.Close()
			}
			close(s.closed)
		}()
	})
}

func (s *session) alive() bool {
	select {
	case <-s.broken:
		return false
	default:
		return true
	}
}

// check breaks the session if an operation ended with an error of the fabric, and gives err back.
// A context that ended says nothing about the session.
func (s *session) check(err error) error {
	if err == nil {
		return nil
	}
	var op *rdma.OpError
	if errors.As(err, &op) || errors.Is(err, rdma.ErrBroken) || errors.Is(err, rdma.ErrClosed) || errors.Is(err, rdma.ErrRemoteAccess) {
		s.fail(err)
		return &sessionError{s.who, err}
	}
	return err
}

// watch closes the session if nothing moves on one of its connections.
func (s *session) watch(now time.Time, limit time.Duration) {
	for _, p := range s.pipes {
		if p.stuck(now, limit) {
			s.fail(errTimeout)
		}
	}
}

// unitSession is a session with one unit in one epoch.
type unitSession struct {
	session
	id       layout.UnitID
	geometry layout.Geometry
	patience time.Duration // for replies

	appends, reads *pipe // apart: READs and atomics of one connection share max_rd_atomic

	index, ring, stagingRead, stagingWrite rdma.Remote

	readRun int            // most addresses of a ReadRun; 0: the unit knows none
	bellRun int            // most addresses of a Doorbell
	flags   wire.PageFlags // of pages that the unit takes
	base    atomic.Uint64  // addresses below have left the window, as far as this client knows

	slots    *slots
	requests requests
	progress progress

	unrung   atomic.Uint32 // pages published without a doorbell
	followed atomic.Bool   // clients wait for entries at the unit, as its last acks said
	junks    atomic.Uint32 // counts the tags of junk words
	noRoom   atomic.Bool   // the unit said that it cannot make room on its flash

	// helping is held by the one who clears the window for all who wait for it; it owns the fields below.
	helping  chan struct{}
	obstacle layout.Address
	since    time.Time
	stalled  int // how often in a row nothing stood in the window's way
}

// word is the place of the index word of a.
func (s *unitSession) word(a layout.Address) rdma.Remote {
	return s.index.Add(uint64(wire.WordOffset(s.geometry, a)))
}

func (s *unitSession) ringSlot(a layout.Address) rdma.Remote {
	return s.ring.Add(uint64(s.geometry.Slot(a)) * uint64(s.geometry.PageSize))
}

// staging is where any session's slot is read; false if the unit has no such slot.
func (s *unitSession) staging(slot wire.StagingSlot) (rdma.Remote, bool) {
	ok := int(slot) < s.geometry.SessionSlots*s.geometry.MaxSessions
	return s.stagingRead.Add(uint64(slot) * uint64(s.geometry.PageSize)), ok
}

// own is where this session's i-th slot is written.
func (s *unitSession) own(i int) rdma.Remote {
	return s.stagingWrite.Add(uint64(i) * uint64(s.geometry.PageSize))
}

// junkTag tells this client's junk from others'.
func (s *unitSession) junkTag() uint64 {
	return wire.Use{Slot: s.slots.first, Count: uint16(s.junks.Add(1))}.Tag()
}

// bellDue tells whether these n publications should ring. Under memory durability nobody waits for the unit, which looks
// for itself every few milliseconds: ring only so often that credits keep coming, and keep its CPU out of the way. Unless somebody
// waits at the unit for it to see them.
func (s *unitSession) bellDue(d layout.Durability, n int) bool {
	if d == layout.Flash || s.followed.Load() {
		return true
	}
	now, every := s.unrung.Add(uint32(n)), uint32(max(1, len(s.slots.state)/4))
	return now/every != (now-uint32(n))/every
}

// Connection sizes. The send queue takes all attempts that hold a slot, and readers; the unit sends
// at most an Ack for each doorbell, a reply for each request, and a Progress for each Subscribe.
const (
	sendDepth = 512
	recvDepth = 1024
)

func (l *Log) connOptions() rdma.ConnOptions {
	return rdma.ConnOptions{SendDepth: sendDepth, RecvDepth: recvDepth, MaxMessage: wire.MaxMessage, Spin: l.o.Spin}
}

// openUnit opens a session with u in the view's epoch.
func (l *Log) openUnit(ctx context.Context, v *view, u layout.Unit, dial dialling) (*unitSession, error) {
	cc, err := l.control.get(u.Control)
	if err != nil {
		return nil, err
	}
	m, err := pb.NewUnitServiceClient(cc).OpenSession(ctx, v.openRequest(l.client()))
	if err != nil {
		return nil, err
	}
	dial(m.Fabric, m.Provider)
	g := v.layout.Geometry
	if n := int(m.Slots); n < 1 || n > g.SessionSlots || int(m.FirstSlot)+n > g.SessionSlots*g.MaxSessions || m.Index == nil || m.Ring == nil || m.StagingRead == nil || m.StagingWrite == nil {
		return nil, errors.New("it offered a session that does not fit the layout's geometry")
	}
	s := &unitSession{
		session: session{who: fmt.Sprintf("unit %d", u.ID), log: l.log, broken: make(chan struct{}), closed: make(chan struct{}),
			fabric: m.Fabric, provider: m.Provider},
		id: u.ID, geometry: g, patience: l.o.OpTimeout,
		index: remote(m.Index), ring: remote(m.Ring), stagingRead: remote(m.StagingRead), stagingWrite: remote(m.StagingWrite),
		helping: make(chan struct{}, 1),
	}
	s.readRun, s.bellRun = int(min(m.ReadRun, maxReadRun)), int(min(max(m.BellRun, 1), wire.MaxBell))
	s.flags = wire.PageFlags(m.PageFlags) | wire.OldFlags
	s.requests = requests{dead: s.closed, waiting: map[wire.RequestID]*pending{}}
	s.slots = newSlots(wire.StagingSlot(m.FirstSlot), int(m.Slots), uint16(m.FirstUse), s.broken)
	s.progress.offered, s.progress.heard = m.Progress, l.m.progress
	s.after = func() {
		s.slots.broke()
		s.progress.ended()
		v.breaks.Add(1)
	}
	for _, token := range [][]byte{m.AppendToken, m.ReadToken} {
		c, err := rdma.Dial(ctx, l.dev, m.Provider, m.Fabric, token, l.connOptions())
		if err != nil {
			s.fail(nil)
			<-s.closed
			return nil, err
		}
		s.pipes = append(s.pipes, &pipe{conn: c})
	}
	s.appends, s.reads = s.pipes[0], s.pipes[1]
	for _, p := range s.pipes {
		l.background(func(context.Context) { s.receive(p) })
	}
	return s, nil
}

// receive takes what the unit sends until the connection breaks.
func (s *unitSession) receive(p *pipe) {
	var d wire.Decoder
	var bad error
	take := func(b []byte) {
		if err := s.take(&d, b); err != nil && bad == nil {
			bad = err
		}
	}
	for bad == nil {
		if err := p.conn.Receive(take); err != nil {
			bad = err
		}
	}
	s.fail(bad)
}

// take takes one message.
func (s *unitSession) take(d *wire.Decoder, b []byte) error {
	m, err := d.Decode(b)
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *wire.Acks:
		s.followed.Store(m.Followed)
		for _, a := range m.List[:m.N] {
			s.slots.ack(a)
		}
	case wire.Reply:
		s.requests.take(m)
	case wire.Progress:
		s.progress.took(m)
	default:
		return fmt.Errorf("unexpected %T: %w", m, wire.ErrBadMessage)
	}
	return nil
}

// seqSession is a session with the sequencer in one epoch.
type seqSession struct {
	session
	pipe *pipe
	word rdma.Remote
}

// next is the position that a word of the sequencer gives, in v's epoch. In any other it breaks the session (rule R8: a token is good in
// its own epoch only). A word that went back to before the last segment gives none: the chains that take new entries do not hold such positions
// (rule R20). The sequencer sees that within a tenth of a second, and a new epoch mends it.
func (s *seqSession) next(v *view, word uint64) (layout.Position, error) {
	w := wire.SeqWord(word)
	if !w.Of(v.epoch()) {
		s.fail(errStale)
		return 0, &sessionError{s.who, errStale}
	}
	p := w.Next()
	if last := v.layout.Last().Start; p < last {
		return 0, &sessionError{s.who, fmt.Errorf("it gave position %d, and new entries begin at %d: %w", p, last, errStale)}
	}
	return p, nil
}

func (l *Log) openSequencer(ctx context.Context, v *view, dial dialling) (*seqSession, error) {
	cc, err := l.control.get(v.layout.Sequencer.Control)
	if err != nil {
		return nil, err
	}
	m, err := pb.NewSequencerServiceClient(cc).OpenSession(ctx, v.openRequest(l.client()))
	if err != nil {
		return nil, err
	}
	if m.Word == nil {
		return nil, errors.New("it offered a session without a word")
	}
	dial(m.Fabric, m.Provider)
	c, err := rdma.Dial(ctx, l.dev, m.Provider, m.Fabric, m.Token, l.connOptions())
	if err != nil {
		return nil, err
	}
	s := &seqSession{
		session: session{who: "sequencer", log: l.log, broken: make(chan struct{}), closed: make(chan struct{}), pipes: []*pipe{{conn: c}},
			fabric: m.Fabric, provider: m.Provider},
		word: remote(m.Word),
	}
	s.pipe = s.pipes[0]
	l.background(func(context.Context) {
		for {
			if err := c.Receive(func([]byte) {}); err != nil {
				s.fail(err)
				return
			}
		}
	})
	return s, nil
}

func remote(r *pb.Remote) rdma.Remote { return rdma.Remote{Addr: r.Addr, Key: rdma.RKey(r.Key)} }

// link holds the current session with one member, and opens another when it broke.
type link[S any] struct {
	cur   atomic.Pointer[S]
	alive func(*S) bool
	open  func(context.Context, dialling) (*S, error)
	spawn func(func(context.Context)) // runs what opens a session; its context ends with the Log
	who   string

	over     <-chan struct{}         // closed when the view is replaced: nobody needs the session any more
	failures atomic.Uint64           // attempts to open that failed
	trouble  atomic.Pointer[trouble] // nil: the last attempt succeeded, or there was none

	turn    chan struct{} // held while a session is opened; who holds it owns the fields below
	backoff backoff
	next    time.Time // no attempt before
	err     error     // of the last attempt

	shortSince time.Time // since when the member has no room for another session; zero: it has
}

func newLink[S any](who string, over <-chan struct{}, alive func(*S) bool, spawn func(func(context.Context)), open func(context.Context, dialling) (*S, error)) *link[S] {
	return &link[S]{who: who, over: over, alive: alive, spawn: spawn, open: open, turn: make(chan struct{}, 1)}
}

// opening bounds the opening of one session.
const opening = 5 * time.Second

// get gives the session, opening it if need be. Its errors are *sessionError or ctx's.
//
// The session is for all, so it is opened though ctx ends: callers who have less time than it takes would begin it again and again, get none, and
// leave a session at the unit each time that waits for its connections and counts among those that it may have.
func (k *link[S]) get(ctx context.Context) (*S, error) {
	if s := k.cur.Load(); s != nil && k.alive(s) {
		return s, nil
	}
	failures := k.failures.Load()
	select {
	case k.turn <- struct{}{}:
	case <-k.over:
		return nil, &sessionError{k.who, errStale}
	case <-ctx.Done():
		return nil, &waitingError{k.who, k.trouble.Load(), ctx.Err()}
	}
	if s := k.cur.Load(); s != nil && k.alive(s) {
		<-k.turn
		return s, nil
	}
	if k.failures.Load() != failures {
		err := k.err // somebody tried while this one waited: that goes for all who did
		<-k.turn
		return nil, err
	}
	type opened struct {
		s   *S
		err error
	}
	c := make(chan opened, 1)
	k.spawn(func(ctx context.Context) {
		s, err := k.attempt(ctx)
		<-k.turn
		c <- opened{s, err}
	})
	select {
	case o := <-c:
		return o.s, o.err
	case <-k.over:
		return nil, &sessionError{k.who, errStale}
	case <-ctx.Done():
		return nil, &waitingError{k.who, k.trouble.Load(), ctx.Err()}
	}
}

// attempt opens a session once it is due. ctx ends with the Log. The turn is held.
func (k *link[S]) attempt(ctx context.Context) (*S, error) {
	err := k.pause(ctx)
	if err == nil {
		bounded, cancel := context.WithTimeout(ctx, opening)
		defer cancel()
		var s *S
		t := k.begin()
		if s, err = k.open(bounded, func(addr, provider string) {
			t.addr, t.provider, t.fabric = addr, provider, true
			k.show(t)
		}); err == nil {
			k.backoff = backoff{}
			k.shortSince = time.Time{}
			k.trouble.Store(nil)
			k.cur.Store(s)
			return s, nil
		}
		// A seal sends all clients here at once: come back spread out.
		k.next = time.Now().Add(k.backoff.step())
		t.err, t.dialling = err, false
		k.show(t)
	}
	k.err = &sessionError{k.who, err}
	if k.short(err) {
		k.err = &crowdedError{k.who, err}
	}
	k.failures.Add(1)
	return nil, k.err
}

// crowded is how long a member may refuse sessions for want of room before that is the answer to callers: for as long those that end may
// still be taken down.
const crowded = time.Second

// short reports whether the member has had no room for another session for a while. The turn is held.
func (k *link[S]) short(err error) bool {
	if status.Code(err) != codes.ResourceExhausted {
		k.shortSince = time.Time{}
		return false
	}
	if k.shortSince.IsZero() {
		k.shortSince = time.Now()
	}
	return time.Since(k.shortSince) >= crowded
}

// begin notes that an attempt begins, and returns what is known so far of why there is no session.
func (k *link[S]) begin() trouble {
	t := trouble{since: time.Now()}
	if old := k.trouble.Load(); old != nil {
		t = *old
	}
	t.dialling, t.fabric = true, false
	k.show(t)
	return t
}

func (k *link[S]) show(t trouble) { k.trouble.Store(&t) }

// pause waits until the next attempt is due. It ends with the view: under the next one there is another link, and no time to be lost.
func (k *link[S]) pause(ctx context.Context) error {
	t := time.NewTimer(time.Until(k.next))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-k.over:
		return errStale
	case <-ctx.Done():
		return ErrClosed
	}
}

// backoff grows from 1 ms to 250 ms, with jitter.
type backoff struct{ n int }

func (b *backoff) step() time.Duration {
	d := min(time.Millisecond<<b.n, 250*time.Millisecond)
	b.n = min(b.n+1, 8)
	// Not math/rand: tests can fix this source of chance alone (testing/cryptotest), and nothing is in a hurry here.
	var x [8]byte
	_, _ = rand.Read(x[:]) // never fails
	return d/2 + time.Duration(binary.LittleEndian.Uint64(x[:])%uint64(d))
}
