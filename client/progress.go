package client

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/internal/wire"
	"corfu/layout"
)

// progress is how far one unit is, as it said over one session. It is asked with a Subscribe, which it
// answers once (wire.Progress), so that it has never more to send than was asked for. What it says is a
// hint, and decides nothing: a page is judged by its own word (rule R11).
type progress struct {
	offered bool // the unit takes Subscribe
	heard   prometheus.Counter

	mu      sync.Mutex
	below   layout.Address // a reader may have what stands below, save what lies below all that was asked for
	top     layout.Address // first above all that a reader may have
	asked   bool           // the unit has a Subscribe that it has not answered, or gets it
	sent    wire.Subscribe // the last one
	sending bool           // a goroutine sends; what is asked meanwhile it sends, too
	again   bool
	waiting map[*follower]struct{}
}

// join has f woken by whatever comes, and by the end of the session.
func (p *progress) join(f *follower) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		p.waiting = map[*follower]struct{}{}
	}
	p.waiting[f] = struct{}{}
}

func (p *progress) leave(f *follower) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, f)
}

// wake wakes all that wait. mu is held.
func (p *progress) wake() {
	for f := range p.waiting {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// ended wakes all that wait: the session broke.
func (p *progress) ended() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wake()
}

// took takes what the unit says.
func (p *progress) took(m wire.Progress) {
	p.heard.Inc()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.below, p.top = max(p.below, m.Below), max(p.top, m.Top)
	p.asked = false
	p.wake()
}

// know returns below and top for one whose next address is a.
func (p *progress) know(a layout.Address) (below, top layout.Address) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(a, p.below), max(a, p.top)
}

// want returns the Subscribe that has to go to the unit for one whose next address is a, if one has to go.
func (p *progress) want(a layout.Address, last layout.Address) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	from := max(a, p.below)
	if p.asked && p.sent.From >= from {
		return false
	}
	p.sent = wire.Subscribe{From: from, Above: from}
	if p.top > from { // a hole is known: nothing that stands higher is news
		p.sent.Above = last
	}
	p.asked = true
	if p.sending {
		p.again = true
		return false
	}
	p.sending = true
	return true
}

// next returns what is to be sent; more is false once that was sent.
func (p *progress) next(first bool) (m wire.Subscribe, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !first && !p.again {
		p.sending = false
		return m, false
	}
	p.again = false
	return p.sent, true
}

// subscribe asks the unit to say when a reader may have address a, or something above it, unless it
// was asked. It does not wait.
func (l *Log) subscribe(s *unitSession, a layout.Address) {
	if !s.progress.want(a, s.geometry.MaxAddress()+1) {
		return
	}
	l.background(func(ctx context.Context) {
		for m, more := s.progress.next(true); more; m, more = s.progress.next(false) {
			if err := l.sendSubscribe(ctx, s, m); err != nil {
				s.fail(err) // else nobody would ask anew
				return
			}
		}
	})
}

func (l *Log) sendSubscribe(ctx context.Context, s *unitSession, m wire.Subscribe) error {
	f, err := l.frames.get()
	if err != nil {
		return err
	}
	defer l.put(f)
	var msg [24]byte
	f.b.Reset()
	f.b.SendInline(m.Append(msg[:0]))
	return s.check(f.do(ctx, s.reads))
}
