package client

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"corfu/layout"
)

// readAhead is how many positions are read at once.
const readAhead = 32

// errHole: nothing is at the position yet, and the reader is one that neither waits nor fills.
var errHole = errors.New("a hole")

// ahead reads pages of consecutive positions, several at once, and gives them in order. Of those that wait for a hole
// only the one whose turn it is may fill it. So an entry of many pages, which is written in the time of many hole time-outs
// maybe, is not torn by its readers as long as it goes on: what they wait for is always the next of its pages.
type ahead struct {
	ctx      context.Context
	stop     context.CancelFunc
	from, at layout.Position // first, and the one whose turn it is
	slots    []aheadSlot     // position p is read by slot (p − from) mod the number of slots
}

type aheadSlot struct {
	c      chan pageAt
	permit atomic.Pointer[permit]
}

// pageAt is what a slot read.
type pageAt struct {
	entry entry
	epoch layout.Epoch // in which it was read
	err   error        // of Read
}

// permit says that it is a position's turn: its reader may fill it.
type permit struct {
	position layout.Position
	since    time.Time // the hole time-out counts from here at the earliest
	now      bool      // it does not count at all: the position is known to be given up
}

// ahead begins to read positions from up to, but not including, to; there is at least one. stop must be called.
func (l *Log) ahead(ctx context.Context, from, to layout.Position) *ahead {
	n := int(min(readAhead, uint64(to-from)))
	h := &ahead{from: from, at: from, slots: make([]aheadSlot, n)}
	h.ctx, h.stop = context.WithCancel(ctx)
	for i := range h.slots {
		h.slots[i].c = make(chan pageAt, 1)
		go h.read(l, &h.slots[i], from+layout.Position(i), to)
	}
	return h
}

// read reads every n-th position; it waits until what it read was taken.
func (h *ahead) read(l *Log, s *aheadSlot, p, to layout.Position) {
	for ; p < to && h.ctx.Err() == nil; p += layout.Position(len(h.slots)) {
		r := reading{l: l, p: p, permit: &s.permit}
		e, err := r.enter(h.ctx)
		select {
		case s.c <- pageAt{e, r.epoch, err}:
		case <-h.ctx.Done():
			return
		}
	}
}

// next gives what stands at the next position; may is the permit to fill it.
func (h *ahead) next(may permit) pageAt {
	s := &h.slots[int(uint64(h.at-h.from)%uint64(len(h.slots)))]
	may.position = h.at
	h.at++
	select {
	case r := <-s.c:
		return r
	default:
	}
	s.permit.Store(&may)
	select {
	case r := <-s.c:
		return r
	case <-h.ctx.Done():
		return pageAt{err: h.ctx.Err()}
	}
}
