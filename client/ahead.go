package client

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"corfu/layout"
)

const (
	// blocksAtOnce is how many blocks of a range are read at once, once as many have been taken: a
	// reader that takes a few entries, or that is told at once of a trim, causes no more.
	blocksAtOnce = 4
	// firstBlock is how many positions the first block has; each block has four times as many as the
	// one before, up to what a run takes. So the first entry comes soon.
	firstBlock = 8
	// singleReads is how many positions of a block are read one by one at once.
	singleReads = 32
)

// errHole: nothing is at the position yet, and the reader is one that neither waits nor fills.
var errHole = errors.New("a hole")

// ahead reads pages of consecutive positions, a few blocks of them at once, and returns them in
// order. A block is read by lists (runs.go), and what they do not decide by single reads. Of those
// that wait for a hole only the one whose turn it is may fill it. So an entry of many pages, which
// may be written in the time of many hole time-outs, is not torn by its readers as long as it goes
// on: what they wait for is always the next of its pages.
type ahead struct {
	l       *Log
	ctx     context.Context
	stop    context.CancelFunc
	at      layout.Position // whose turn it is
	started layout.Position // those below are being read
	to      layout.Position
	size    int      // of the next block
	depth   int      // blocks that may be read at once now
	blocks  []*block // in order; the first one has at
}

// block is a row of positions that are read together.
type block struct {
	first layout.Position
	pages []blockPage
	ready chan struct{} // closed once the lists are through: pages that are known do not change
}

// blockPage is one position of a block.
type blockPage struct {
	known  bool        // the lists decided it
	got    pageAt      // if known
	single chan pageAt // else: what a single read found; room for one
	permit atomic.Pointer[permit]
}

// pageAt is what was read at a position.
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
	h := &ahead{l: l, at: from, started: from, to: to, size: firstBlock, depth: 1}
	h.ctx, h.stop = context.WithCancel(ctx)
	h.start()
	return h
}

// start begins to read more blocks, as far as there may be more.
func (h *ahead) start() {
	for len(h.blocks) < h.depth && h.started < h.to {
		n := min(h.size, h.l.runs.most(), int(min(uint64(h.to-h.started), 1<<20)))
		h.size = min(4*h.size, 1<<20)
		v := h.l.current()
		n = v.inSegment(h.started, n)
		b := &block{first: h.started, pages: make([]blockPage, n), ready: make(chan struct{})}
		h.blocks = append(h.blocks, b)
		h.started += layout.Position(n)
		go h.read(v, b)
	}
}

// inSegment is how many of the n positions from p on lie in one segment; at least one.
func (v *view) inSegment(p layout.Position, n int) int {
	for i := range v.layout.Segments {
		if s := v.layout.Segments[i].Start; s > p {
			return int(min(uint64(n), uint64(s-p)))
		}
	}
	return n
}

// read reads a block.
func (h *ahead) read(v *view, b *block) {
	if h.l.enter() == nil { // a single read says why not
		h.l.readBlock(h.ctx, v, b.first, len(b.pages), func(i int, e entry, err error) {
			b.pages[i].known, b.pages[i].got = true, pageAt{e, v.epoch(), err}
		})
		h.l.exit()
	}
	var rest []int
	for i := range b.pages {
		if !b.pages[i].known {
			b.pages[i].single = make(chan pageAt, 1)
			rest = append(rest, i)
		}
	}
	close(b.ready)
	var next atomic.Int32 // in order: the position whose turn it is never waits for one behind it
	for range min(len(rest), singleReads) {
		go func() {
			for h.ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(rest) {
					return
				}
				x := &b.pages[rest[i]]
				r := reading{l: h.l, p: b.first + layout.Position(rest[i]), permit: &x.permit}
				e, err := r.enter(h.ctx)
				x.single <- pageAt{e, r.epoch, err}
			}
		}()
	}
}

// next returns what is at the next position; may is the permit to fill it.
func (h *ahead) next(may permit) pageAt {
	b := h.blocks[0]
	select {
	case <-b.ready:
	case <-h.ctx.Done():
		return pageAt{err: h.ctx.Err()}
	}
	x := &b.pages[h.at-b.first]
	may.position = h.at
	if h.at++; h.at == b.first+layout.Position(len(b.pages)) {
		h.blocks = h.blocks[1:]
		h.depth = min(h.depth+1, blocksAtOnce)
		h.start()
	}
	if x.known {
		return x.got
	}
	select {
	case r := <-x.single:
		return r
	default:
	}
	x.permit.Store(&may)
	select {
	case r := <-x.single:
		return r
	case <-h.ctx.Done():
		return pageAt{err: h.ctx.Err()}
	}
}
