package doctor

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"corfu/rdma"
	"corfu/rdma/selftest"
)

// settle is how long a server looks for late operations after it revoked a key.
const settle = 50 * time.Millisecond

const busyReason = "another doctor is being served"

// Server lends memory to testers, one after the other. The memory holds nothing else.
type Server struct {
	dev   rdma.Device
	l     rdma.Listener
	token string
	facts Facts
	log   *slog.Logger

	mu     sync.Mutex
	busy   bool
	trials []rdma.Conn // of the tester that is being served
}

// NewServer listens at addr ("host:port" of the fabric; port 0 takes a free one) for testers that know the token.
func NewServer(dev rdma.Device, addr, token string, facts Facts, log *slog.Logger) (*Server, error) {
	if len(token) > MaxToken {
		return nil, fmt.Errorf("a token has at most %d bytes", MaxToken)
	}
	l, err := dev.Listen(addr)
	if err != nil {
		return nil, err
	}
	return &Server{dev: dev, l: l, token: token, facts: facts, log: log}, nil
}

// Addr is where testers dial.
func (s *Server) Addr() string { return s.l.Addr() }

// Serve answers until ctx ends, and closes the listener.
func (s *Server) Serve(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.l.Close()
	for {
		r, err := s.l.Accept(ctx)
		if ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		switch p := r.Private(); {
		case subtle.ConstantTimeCompare(p, private(forTalk, s.token)) == 1:
			if !s.take() {
				_ = r.Reject(busyReason)
				continue
			}
			wg.Go(func() {
				defer s.give()
				if err := s.serveOne(ctx, r); err != nil && ctx.Err() == nil {
					s.log.Warn("doctor", "from", r.RemoteAddr(), "error", err)
				}
			})
		case subtle.ConstantTimeCompare(p, private(forTrial, s.token)) == 1:
			if err := s.addTrial(ctx, r); err != nil {
				s.log.Warn("trial connection", "from", r.RemoteAddr(), "error", err)
			}
		default:
			_ = r.Reject("not a doctor with this server's token")
		}
	}
}

func (s *Server) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	free := !s.busy
	s.busy = true
	return free
}

func (s *Server) give() {
	s.mu.Lock()
	trials := s.trials
	s.trials, s.busy = nil, false
	s.mu.Unlock()
	for _, c := range trials {
		_ = c.Close()
	}
}

func (s *Server) addTrial(ctx context.Context, r rdma.Request) error {
	s.mu.Lock()
	busy := s.busy
	s.mu.Unlock()
	if !busy {
		return r.Reject("ask first")
	}
	c, err := r.Accept(ctx, rdma.ConnOptions{})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.trials = append(s.trials, c)
	s.mu.Unlock()
	return nil
}

// loan is the memory as one tester has it.
type loan struct {
	mem    *rdma.Memory
	region rdma.Region
	order  *selftest.Order // while the CPU watches
	seen   chan watched
}

type watched struct {
	fresh int
	err   error
}

func (s *Server) serveOne(ctx context.Context, r rdma.Request) (err error) {
	c, err := r.Accept(ctx, talkOptions())
	if err != nil {
		return err
	}
	t, err := newTalk(s.dev, c)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	defer func() { err = errors.Join(err, t.close()) }()
	l := &loan{}
	if l.mem, err = s.dev.Alloc(memorySize); err != nil {
		return err
	}
	// Connections first, then the region, then the memory: nothing may land on what is gone.
	defer func() {
		l.unwatch()
		s.mu.Lock()
		trials := s.trials
		s.trials = nil
		s.mu.Unlock()
		for _, c := range trials {
			err = errors.Join(err, c.Close())
		}
		if l.region != nil {
			err = errors.Join(err, l.region.Close())
		}
		err = errors.Join(err, l.mem.Close())
	}()
	for {
		var q question
		if err := t.receive(ctx, &q); err != nil {
			return nil // the tester is done
		}
		a, err := s.answer(l, q.Do)
		if err != nil {
			a.Error = oneLine(err.Error())
		}
		if err := t.send(ctx, a); err != nil {
			return err
		}
	}
}

func (s *Server) answer(l *loan, do string) (a answer, err error) {
	switch do {
	case doFacts:
		a.Facts = &s.facts
	case doBegin:
		l.unwatch()
		if l.region != nil {
			if err := l.region.Close(); err != nil {
				return a, err
			}
		}
		clear(l.mem.Bytes())
		if l.region, err = s.dev.Register(l.mem, 0, memorySize, rdma.RemoteRead|rdma.RemoteWrite|rdma.RemoteAtomic); err != nil {
			l.region = nil
			return a, err
		}
		at := l.region.Remote(0)
		a.Addr, a.Key = at.Addr, uint32(at.Key)
	case doWatch:
		l.watch()
	case doUnwatch:
		w := l.unwatch()
		a.Fresh, err = w.fresh, w.err
	case doRevoke:
		return l.revoke()
	default:
		err = fmt.Errorf("question %q is not known here: is this an older corfu?", do)
	}
	return a, err
}

func (l *loan) watch() {
	l.unwatch()
	o := &selftest.Order{Memory: l.mem}
	seen := make(chan watched, 1)
	l.order, l.seen = o, seen
	go func() {
		fresh, err := o.WatchByCPU()
		seen <- watched{fresh, err}
	}()
}

func (l *loan) unwatch() watched {
	if l.order == nil {
		return watched{}
	}
	l.order.Stop()
	l.order = nil
	return <-l.seen
}

// revoke closes the region; after that nothing may change the memory (rule R15).
func (l *loan) revoke() (a answer, err error) {
	if l.region == nil {
		return a, errors.New("there is nothing to revoke")
	}
	if err := l.region.Close(); err != nil {
		return a, err
	}
	l.region = nil
	snapshot := slices.Clone(l.mem.Bytes())
	time.Sleep(settle) // nothing is waited for: late operations get the time to show themselves
	for i, b := range l.mem.Bytes() {
		if b != snapshot[i] {
			a.Late = fmt.Sprintf("byte %d changed after the key was revoked", i)
			break
		}
	}
	for i := range writers {
		a.Sums = append(a.Sums, int64(l.mem.Load(areaOff+i*selftest.RevokeArea)))
	}
	a.Count = l.mem.Load(countOff)
	return a, nil
}
