package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire/pb"
)

// silence is how long a layout server may take to answer before another one is asked beside it.
const silence = 200 * time.Millisecond

// askedAtMost bounds how often one round asks one server on the word of another: two that take each other for the leader end it.
const askedAtMost = 2

// Layouts finds the leader among the layout servers. Only the leader answers what binds; the others refuse with a
// pb.NotLeader that says who leads, and forward nothing. Its methods may be called by any number of goroutines.
type Layouts struct {
	addrs []string
	dial  func(addr string) (grpc.ClientConnInterface, error)

	mu     sync.Mutex
	leader string // that answered last, or was last named; "": not known
	turn   int    // where Next stands
}

// NewLayouts takes the control addresses of the layout servers, "host:port", at least one; those that lead and are not among
// them are found too. dial gives the connection to an address; it is called for each call, and keeps and closes what it makes.
func NewLayouts(addrs []string, dial func(addr string) (grpc.ClientConnInterface, error)) *Layouts {
	return &Layouts{addrs: addrs, dial: dial}
}

// Ask calls fn with the leader and gives what it gives. Where servers are silent it asks others beside them, so that fn may run
// several times at once, each for another server; at most one of those leads. An error of fn that comes
// from a server that leads is returned as it is. If nobody leads, Ask returns after each was asked, with all their errors; its
// gRPC code is UNAVAILABLE then: ask again in a moment. Else it returns when ctx ends, with
// ctx's error as well.
func Ask[T any](ctx context.Context, l *Layouts, fn func(context.Context, pb.LayoutServiceClient) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		addr  string
		value T
		err   error
	}
	answers := make(chan answer)
	r := round{queue: l.order(), asked: map[string]int{}, busy: map[string]bool{}, errs: map[string]error{}}
	start := func(addr string) {
		if addr == "" {
			return
		}
		r.begin(addr)
		go func() {
			a := answer{addr: addr}
			var conn grpc.ClientConnInterface
			if conn, a.err = l.dial(addr); a.err != nil {
				a.err = &searchError{error: a.err}
			} else {
				a.value, a.err = fn(ctx, pb.NewLayoutServiceClient(conn))
			}
			select {
			case answers <- a:
			case <-ctx.Done():
			}
		}()
	}
	start(r.next())
	t := time.NewTicker(silence)
	defer t.Stop()
	var zero T
	for {
		select {
		case a := <-answers:
			if a.err == nil || status.Code(a.err) != codes.Unavailable {
				l.found(a.addr)
				return a.value, a.err
			}
			hint := l.Failed(a.addr, a.err)
			r.end(a.addr, a.err)
			if start(r.hinted(hint)); len(r.busy) == 0 {
				start(r.next())
			}
			if len(r.busy) == 0 {
				return zero, r.failure()
			}
		case <-t.C:
			start(r.again(l.addrs))
		case <-ctx.Done():
			return zero, fmt.Errorf("%w: %w", ctx.Err(), r.failure())
		}
	}
}

// round is one search for the leader.
type round struct {
	queue []string // not asked yet
	asked map[string]int
	busy  map[string]bool // asked, and silent so far
	turn  int
	order []string
	errs  map[string]error // the last of each
}

func (r *round) begin(addr string) {
	r.asked[addr]++
	r.busy[addr] = true
}

func (r *round) end(addr string, err error) {
	delete(r.busy, addr)
	if r.errs[addr] == nil {
		r.order = append(r.order, addr)
	}
	r.errs[addr] = err
}

// next is a server that was not asked yet; "": none is left.
func (r *round) next() string {
	for len(r.queue) > 0 {
		addr := r.queue[0]
		if r.queue = r.queue[1:]; r.asked[addr] == 0 {
			return addr
		}
	}
	return ""
}

// hinted is addr, if it is to be asked now.
func (r *round) hinted(addr string) string {
	if addr == "" || r.busy[addr] || r.asked[addr] >= askedAtMost {
		return ""
	}
	return addr
}

// again is whom to ask beside one that is silent: those not asked yet, and then all others in turn, since one of them may lead by now.
func (r *round) again(addrs []string) string {
	if addr := r.next(); addr != "" {
		return addr
	}
	for range addrs {
		addr := addrs[r.turn%len(addrs)]
		if r.turn++; !r.busy[addr] {
			r.asked[addr] = 0 // later than those who named it before
			return addr
		}
	}
	return ""
}

// failure says what became of the round, in the order in which the servers answered.
func (r *round) failure() error {
	var errs []error
	answered := false
	for _, addr := range r.order {
		err := r.errs[addr]
		answered = answered || notLeader(err) != nil
		if _, ours := err.(*searchError); !ours {
			err = errors.New(status.Convert(err).Message()) // without gRPC's own words around it
		}
		errs = append(errs, fmt.Errorf("layout server %s: %w", addr, err))
	}
	for addr := range r.busy {
		errs = append(errs, fmt.Errorf("layout server %s does not answer", addr))
	}
	return &searchError{errors.Join(errs...), answered}
}

// searchError is UNAVAILABLE to gRPC: nothing was done.
type searchError struct {
	error
	answered bool // by a server that does not lead
}

func (e *searchError) Unwrap() error { return e.error }

// GRPCStatus is what status.FromError looks for.
func (e *searchError) GRPCStatus() *status.Status { return status.New(codes.Unavailable, e.Error()) }

// Next is whom to ask, for callers that keep a stream: the leader if it is known, else each in turn.
func (l *Layouts) Next() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leader != "" {
		return l.leader
	}
	l.turn++
	return l.addrs[(l.turn-1)%len(l.addrs)]
}

// Failed notes that addr answered with err, or not at all, and gives the address of the leader, if err names it.
func (l *Layouts) Failed(addr string, err error) (hint string) {
	hint = LeaderOf(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leader == addr {
		l.leader = ""
	}
	if hint != "" && hint != addr {
		l.leader = hint
	}
	return hint
}

func (l *Layouts) found(addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leader = addr
}

// order is the leader, if it is known, and then all.
func (l *Layouts) order() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leader == "" {
		return l.addrs
	}
	return append([]string{l.leader}, l.addrs...)
}

// NotLeader is the error of a layout server that does not lead; id 0 and "" if it knows no leader.
func NotLeader(id uint16, addr, text string) error {
	s := status.New(codes.Unavailable, text)
	if d, err := s.WithDetails(&pb.NotLeader{Leader: uint32(id), Control: addr}); err == nil {
		s = d
	}
	return s.Err()
}

// LeaderOf is the control address of the leader that err names: "" if it names none.
func LeaderOf(err error) string { return notLeader(err).GetControl() }

// notLeader is the detail of a server's refusal; nil if err is none.
func notLeader(err error) *pb.NotLeader {
	if err == nil {
		return nil
	}
	for _, d := range status.Convert(err).Details() {
		if n, ok := d.(*pb.NotLeader); ok {
			return n
		}
	}
	return nil
}

// Answered tells whether err, of Ask, says that some server is there, and that none leads.
func Answered(err error) bool {
	var e *searchError
	return errors.As(err, &e) && e.answered
}
