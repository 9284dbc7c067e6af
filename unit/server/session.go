package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"corfu/internal/certs"
	"corfu/internal/tickets"
	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma"
	"corfu/unit"
)

// role is which of a session's connections it is.
type role int

const (
	appendLink role = iota
	readLink
	links
)

// session is a client's: a slice of staging with a key of its own, and two connections. It ends as a whole.
type session struct {
	s      *Server
	slice  unit.Slice // of staging
	seat   int        // of its part of the memory that acks are sent from
	client layout.ClientID
	whose  string      // identity that opened it, as TLS had it; "": in clear
	forget func()      // of the watch for that one's revocation
	write  rdma.Region // rule R6: its slice, which it alone writes
	tokens [links]tickets.Token
	ids    [links]unit.Session // the core's names for its connections; the first owns the slots
	first  uint16              // use count to start with
	traffic

	stop chan struct{} // closed by fail
	done chan struct{} // closed once all is taken down and taken in
	jobs sync.WaitGroup
	runs sync.WaitGroup // goroutines of the links

	mu       sync.Mutex
	err      error
	links    [links]*link
	attached chan struct{} // closed once both connections stand
}

// link is one connection of a session.
type link struct {
	session *session
	id      unit.Session
	conn    rdma.Conn
	out     *outbox
	decoder wire.Decoder
	bad     bool // a bad message came: the rest is not looked at
	follows subscription
}

var (
	errNoSession = errors.New("unit: no free session: as many clients as max_sessions of the log's geometry has room for")
	errTooMany   = errors.New("unit: this identity has as many sessions as max_sessions_per_identity of the unit lets it have")
	errTokenLife = errors.New("the client did not connect in time")
	errEnd       = errors.New("the unit ends all sessions")
	errRevoked   = errors.New("the client's certificate is revoked")
	errReplaced  = errors.New("the client opened another one before it connected to this one")
)

// newSession makes a session that waits for its connections, for an identity ("": nobody knows whose), and ends when that one's standing does. Server.ctl
// is held for reading.
func (s *Server) newSession(client layout.ClientID, whose string, standing *certs.Standing) (*session, error) {
	if err := s.count(whose); err != nil {
		return nil, err
	}
	slice, seat, ok := s.takeSlice()
	if !ok {
		s.uncount(whose)
		return nil, fmt.Errorf("%w: %d with max_sessions %d. More: corfu layout set --max-sessions", errNoSession, s.capacity.Load(), s.mem.geo.MaxSessions)
	}
	page := s.mem.geo.PageSize
	region, err := s.cfg.Device.Register(s.mem.staging.pages, slice.First*page, slice.Slots*page, rdma.RemoteWrite)
	if err != nil {
		s.freeSlice(slice)
		s.freeSeat(seat)
		s.uncount(whose)
		s.refused(err)
		return nil, fmt.Errorf("unit: session: %w", err)
	}
	var use [2]byte
	_, _ = rand.Read(use[:])
	x := &session{s: s, slice: slice, seat: seat, client: client, whose: whose, write: region,
		first: (uint16(use[0]) | uint16(use[1])<<8) & 0xfff,
		stop:  make(chan struct{}), done: make(chan struct{}), attached: make(chan struct{})}
	s.mu.Lock()
	for i := range x.ids {
		s.lastID++
		x.ids[i] = s.lastID
		x.tokens[i] = s.tokens.Issue(pending{x, role(i)}, time.Now().Add(s.cfg.TokenLife))
	}
	s.sessions[x] = struct{}{}
	s.mu.Unlock()
	x.forget = standing.OnRevoked(func() { x.fail(errRevoked) })
	go x.supervise()
	if err := s.do(func(u *unit.Unit) { u.SetSession(slice, x.ids[appendLink]) }); err != nil {
		x.fail(err)
		return nil, err
	}
	return x, nil
}

// replace ends the sessions that a client opened and did not connect to: it opens one at a time, so that it has given those up. A client
// that has no fabric, or no time, would have all of the unit's otherwise while they wait for it. It returns once they are taken down, or ctx ends.
func (s *Server) replace(ctx context.Context, client layout.ClientID, whose string) {
	var old []*session
	s.mu.Lock()
	for x := range s.sessions {
		select {
		case <-x.attached:
		default:
			if x.client == client && x.whose == whose {
				old = append(old, x)
			}
		}
	}
	s.mu.Unlock()
	for _, x := range old {
		x.fail(errReplaced)
	}
	for _, x := range old {
		select {
		case <-x.done:
		case <-ctx.Done():
			return
		}
	}
}

// count notes another session of an identity. It fails with errTooMany.
func (s *Server) count(whose string) error {
	if whose == "" {
		return nil
	}
	limit := s.cfg.MaxOfIdentity
	if limit == 0 {
		limit = max(1, int(s.capacity.Load())/2)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ofWhom[whose] >= limit {
		return fmt.Errorf("%w: %s, %d", errTooMany, whose, limit)
	}
	s.ofWhom[whose]++
	return nil
}

func (s *Server) uncount(whose string) {
	if whose == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ofWhom[whose]--; s.ofWhom[whose] == 0 {
		delete(s.ofWhom, whose)
	}
}

// fail ends the session. The first reason counts.
func (x *session) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err == nil {
		x.err = err
		close(x.stop)
	}
}

// attach gives the session one of its connections.
func (x *session) attach(r role, conn rdma.Conn) {
	x.mu.Lock()
	if x.err != nil || x.links[r] != nil {
		x.mu.Unlock()
		_ = conn.Close()
		return
	}
	l := &link{session: x, id: x.ids[r], conn: conn}
	l.out = newOutbox(4*x.s.mem.geo.SessionSlots+64, &x.s.followed, x.fail)
	x.links[r] = l
	x.runs.Add(2)
	if x.links[appendLink] != nil && x.links[readLink] != nil {
		close(x.attached)
	}
	x.mu.Unlock()
	go func() {
		defer x.runs.Done()
		l.out.run(conn, x.s.mem.staging.send, (x.seat*int(links)+int(r))*sendBytes, x.stop)
	}()
	go func() {
		defer x.runs.Done()
		l.receive()
	}()
}

// supervise waits for the end of the session and takes it down.
func (x *session) supervise() {
	timer := time.NewTimer(x.s.cfg.TokenLife)
	select {
	case <-x.attached:
	case <-x.stop:
	case <-timer.C:
		x.fail(errTokenLife)
	}
	timer.Stop()
	<-x.stop
	x.takeDown()
	close(x.done)
}

// takeDown kills the session's key, then its connections. What it published is taken in, and
// only when that is on flash are its slots free again: nothing of it can land any more (rule R6).
func (x *session) takeDown() {
	s := x.s
	log := s.cfg.Logger.With("client", x.client, "identity", x.whose, "session", x.ids[appendLink])
	slow := time.AfterFunc(teardownWarning, func() { log.Warn("a session's end hangs in the fabric") })
	defer slow.Stop()
	x.forget()
	for _, t := range x.tokens {
		s.tokens.Drop(t)
	}
	revoked := x.write.Close()
	for _, l := range x.links { // nobody attaches any more: x.err is set
		if l != nil {
			_ = l.conn.Close()
		}
	}
	x.runs.Wait()
	// Behind everything that the links have queued.
	for _, l := range x.links {
		if l != nil {
			s.send(event{kind: evDetach, link: l})
		}
	}
	_ = s.do(func(u *unit.Unit) {
		if revoked == nil {
			u.EndSession(x.slice)
		} else {
			u.SetSession(x.slice, 0)
		}
	})
	x.jobs.Wait()
	if revoked != nil {
		s.mem.stuck.Store(true)
		// The slice may still be written to: it is never handed out again.
		log.Error("a session's key cannot be revoked: its slots are lost until the unit restarts", "error", revoked)
	}
	s.mu.Lock()
	delete(s.sessions, x)
	s.mu.Unlock()
	s.freeSeat(x.seat)
	s.uncount(x.whose)
	s.m.ended(x.err)
	log.Debug("session ended", "why", x.err)
}

// teardownWarning is when the end of a session takes too long.
const teardownWarning = 5 * time.Second

// send queues an event, waiting for room. It reports false once the loop has ended.
func (s *Server) send(ev event) bool {
	select {
	case s.events <- ev:
		return true
	case <-s.loopDone:
		return false
	}
}

// receive takes messages until the connection breaks.
func (l *link) receive() {
	x := l.session
	x.s.send(event{kind: evAttach, link: l})
	handle := l.message // made once: a method value allocates
	for {
		if err := l.conn.Receive(handle); err != nil {
			x.fail(err)
			return
		}
	}
}

// message takes one message. A bad one ends the session.
func (l *link) message(b []byte) {
	if l.bad {
		return
	}
	l.session.heard.Add(1)
	if bell, ok := l.decoder.Doorbell(b); ok {
		if bell.N() > wire.MaxBell {
			l.refuse(fmt.Errorf("a client rang for %d addresses at once, of at most %d: %w", bell.N(), wire.MaxBell, wire.ErrBadMessage))
			return
		}
		l.queue(event{kind: evDoorbell, link: l, address: bell.Address, count: bell.N()})
		return
	}
	m, err := l.decoder.Decode(b)
	if err != nil {
		l.refuse(err)
		return
	}
	switch m := m.(type) {
	case wire.ColdRead:
		l.readCold(coldJob{link: l, read: m})
	case wire.ReadRun:
		if most := runPages(l.session.s.mem.geo); m.Count < 1 || m.Count > most {
			l.refuse(fmt.Errorf("a client asked for %d addresses at once, of at most %d: %w", m.Count, most, wire.ErrBadMessage))
			return
		}
		l.readCold(coldJob{link: l, run: m})
	case wire.Trim:
		if m.Prefix {
			l.session.s.trimPrefix(l, m)
			return
		}
		l.queue(event{kind: evTrim, link: l, address: m.Address, request: m.Request})
	case wire.Subscribe:
		l.queue(event{kind: evSubscribe, link: l, address: m.From, above: m.Above})
	case wire.MaxAddr:
		l.queue(event{kind: evMaxAddr, link: l, request: m.Request})
	default:
		l.refuse(fmt.Errorf("a client sent %T: %w", m, wire.ErrBadMessage))
	}
}

// readCold waits for room in the cold readers' queue, and the client with it, until the session ends.
func (l *link) readCold(job coldJob) {
	l.session.jobs.Add(1)
	select {
	case l.session.s.coldJobs <- job:
	case <-l.session.stop:
		l.session.jobs.Done()
	}
}

// queue waits for room in the loop's queue, and the client with it, until the session ends.
func (l *link) queue(ev event) {
	select {
	case l.session.s.events <- ev:
	case <-l.session.stop:
	}
}

func (l *link) refuse(err error) {
	l.bad = true
	l.session.fail(err)
}

// trimPrefix gives up all addresses below m.Address. It runs on the link's goroutine: only its own client waits for the meta file.
func (s *Server) trimPrefix(l *link, m wire.Trim) {
	var status wire.Status
	if s.do(func(u *unit.Unit) { status = u.CheckTrimPrefix(m.Address) }) != nil {
		return
	}
	if status == wire.StatusOK {
		if err := s.saveTrim(m.Address); err != nil {
			status = wire.StatusIO
			s.cfg.Logger.Error("trim prefix", "address", m.Address, "error", err)
		}
	}
	r := wire.Reply{Request: m.Request, Status: status}
	if status == wire.StatusOK {
		r.State = wire.Trimmed
	}
	l.out.reply(r)
}
