package client

import (
	"context"
	"fmt"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma"
)

// Positions that follow each other lie at consecutive addresses of each chain. A block of them is
// read with one list for each chain: the index words of its addresses at the tail, and the ring
// slots behind them; or, where they have left the window, with one message, which the tail answers
// with all pages and their states. Each page is judged by its own word, as a single read does
// (rule R11). What a list does not decide (a hole, a page that is not durable yet, a trim, a copy
// that does not verify) is left to the single read.

const (
	// runBytes bounds the pages of one block.
	runBytes = 256 << 10
	// maxReadRun bounds what a ReadRun asks for, whatever a unit offers: its count has 16 bits.
	maxReadRun = 1 << 15
)

// run is what reading a block needs of registered memory: its pages, and a word for each. It
// belongs to one goroutine at a time.
type run struct {
	pages, words             rdma.Local
	remotePages, remoteWords rdma.Remote // as a unit names them
	parts                    []runPart
}

// runPart is the part of a block that lies in one chain: n pages of the run from page off on.
type runPart struct {
	b      *rdma.Batch
	s      *unitSession
	asked  *pending // the ReadRun, until it is answered; nil: none
	sent   error    // of the post
	first  layout.Position
	stride int // positions from one page to the next
	a      layout.Address
	off, n int
	cold   bool
}

// runs is the pool of runs.
type runs struct{ pool[run] }

// most is how many pages a run has room for.
func (rs *runs) most() int { return max(1, runBytes/rs.pageSize) }

func (rs *runs) get() (*run, error) { return rs.take(rs.grow) }

// grow makes one more run.
func (rs *runs) grow() error {
	pages := rs.most() * rs.pageSize
	n := pages + rs.most()*rdma.WordSize
	mem, reg, err := rs.register(rs.most(), n, n)
	if err != nil {
		return err
	}
	rs.free = append(rs.free, &run{pages: mem.Slice(0, pages), words: mem.Slice(pages, n-pages),
		remotePages: reg.Remote(0), remoteWords: reg.Remote(pages)})
	return nil
}

// putRun gives a run back. If something may still write to its memory (the caller's context ended
// first), that is waited for elsewhere: the watchdog bounds it.
func (l *Log) putRun(r *run) {
	for i := range r.parts {
		if x := &r.parts[i]; x.b.InFlight() || x.asked != nil {
			l.background(func(context.Context) {
				r.quiesce()
				l.runs.put(r)
			})
			return
		}
	}
	l.runs.put(r)
}

// quiesce returns once no NIC touches the run's memory any more.
func (r *run) quiesce() {
	for i := range r.parts {
		x := &r.parts[i]
		if x.b.InFlight() {
			_ = x.s.reads.wait(context.Background(), x.b)
		}
		if x.asked != nil {
			x.asked.drain()
			x.asked = nil
		}
	}
}

// readBlock reads positions first … first+n−1, which lie in one segment of v's layout, and calls
// found with those that are decided: the entry, or ErrJunk. The rest is left to single reads.
func (l *Log) readBlock(ctx context.Context, v *view, first layout.Position, n int, found func(i int, e entry, err error)) {
	r, err := l.runs.get()
	if err != nil {
		return // a single page may still be had
	}
	defer l.putRun(r)
	if r.split(v, first, n) != nil {
		return
	}
	for i := range r.parts {
		l.post(ctx, r, &r.parts[i])
	}
	for i := range r.parts {
		x := &r.parts[i]
		if r.await(ctx, x) != nil {
			continue
		}
		// Where the window had passed, which the words show, the pages are asked for by message now: one by one they would take many times as long.
		if l.judge(v, r, x, first, found) && x.passed() {
			l.post(ctx, r, x)
			if r.await(ctx, x) == nil {
				l.judge(v, r, x, first, found)
			}
		}
	}
}

// split makes the parts of a block: one for each chain to the tail of which there is a session.
func (r *run) split(v *view, first layout.Position, n int) error {
	list := r.parts[:cap(r.parts)]
	r.parts = r.parts[:0]
	at, err := v.layout.Locate(first)
	if err != nil {
		return err
	}
	stride := len(v.layout.Segments[at.Segment].Chains)
	for i, off := 0, 0; i < min(n, stride); i++ {
		place, err := v.layout.Locate(first + layout.Position(i))
		if err != nil {
			return err
		}
		count := (n - i + stride - 1) / stride
		k := v.units[place.Chain.Tail()]
		if s := k.cur.Load(); s != nil && k.alive(s) {
			x := runPart{s: s, first: first + layout.Position(i), stride: stride, a: place.Address, off: off, n: count}
			if j := len(r.parts); j < len(list) {
				x.b = list[j].b
			} else {
				x.b = rdma.NewBatch(4) // words and slots, each in two pieces at most
			}
			r.parts = append(r.parts, x)
		}
		off += count
	}
	return nil
}

// word is where the word of page i of the run lies.
func (r *run) word(i int) int { return r.words.Off + i*rdma.WordSize }

// post asks for what a part needs.
func (l *Log) post(ctx context.Context, r *run, x *runPart) {
	l.m.runs.Inc()
	s, g := x.s, x.s.geometry
	x.cold = x.passed()
	x.b.Reset()
	if x.cold {
		x.asked = s.requests.add()
		m := wire.ReadRun{Request: x.asked.id, Count: x.n, Address: x.a, States: r.remoteWords.Addr + uint64(x.off*rdma.WordSize),
			Pages: wire.Buffer{Addr: r.remotePages.Addr + uint64(x.off*g.PageSize), Key: uint32(r.remotePages.Key)}}
		x.b.SendInline(m.Append(make([]byte, 0, 40)))
	} else {
		x.pieces(g, func(i, n int) {
			x.b.Read(r.words.Mem.Slice(r.word(x.off+i), n*rdma.WordSize), s.word(x.a+layout.Address(i)))
		})
		// Behind all words: a page is READ after the word that says that it is durable.
		x.pieces(g, func(i, n int) {
			x.b.Read(r.pages.Mem.Slice(r.pages.Off+(x.off+i)*g.PageSize, n*g.PageSize), s.ringSlot(x.a+layout.Address(i)))
		})
	}
	if x.sent = x.s.check(s.reads.post(ctx, x.b)); x.sent != nil && x.asked != nil {
		x.asked.drop() // it never went
		x.asked = nil
	}
}

// passed reports whether the window has left the part's first address behind, as far as is known, and the unit takes a ReadRun for it.
func (x *runPart) passed() bool { return x.s.readRun >= x.n && x.a < layout.Address(x.s.base.Load()) }

// pieces calls fn with the pages of the part that have consecutive slots: twice where the window
// wraps around.
func (x *runPart) pieces(g layout.Geometry, fn func(i, n int)) {
	for i := 0; i < x.n; {
		n := min(x.n-i, g.Window-g.Slot(x.a+layout.Address(i)))
		fn(i, n)
		i += n
	}
}

// await waits until the part's pages and words are there.
func (r *run) await(ctx context.Context, x *runPart) error {
	err := x.sent
	if err == nil {
		err = x.s.check(x.s.reads.wait(ctx, x.b))
	}
	if err != nil || !x.cold {
		return err
	}
	m, err := x.asked.wait(ctx, x.s.broken, x.s.patience)
	switch {
	case err == errTimeout:
		x.s.fail(err)
		return err
	case err != nil:
		return err // the unit may still write to the run
	}
	x.asked = nil
	x.s.sawBase(layout.Address(m.Value))
	if m.Status != wire.StatusOK {
		return fmt.Errorf("client: %s: %d addresses from %d on: status %v", x.s.who, x.n, x.a, m.Status)
	}
	return nil
}

// sawBase notes that addresses below a have left the unit's window.
func (s *unitSession) sawBase(a layout.Address) {
	for {
		old := s.base.Load()
		if uint64(a) <= old || s.base.CompareAndSwap(old, uint64(a)) {
			return
		}
	}
}

// judge calls found with what the part's words and pages decide. It reports whether the window has passed some of them.
func (l *Log) judge(v *view, r *run, x *runPart, first layout.Position, found func(i int, e entry, err error)) (behind bool) {
	g := x.s.geometry
	for i := range x.n {
		a, p := x.a+layout.Address(i), x.first+layout.Position(i*x.stride)
		w := wire.Word(r.words.Mem.Load(r.word(x.off + i)))
		state := wire.State(w)
		if !x.cold {
			if state = w.State(); w.Generation() != g.Generation(a) {
				if w.Generation() > g.Generation(a) {
					// The slot is that of an address whole windows above a: the one a window below that has left.
					x.s.sawBase(layout.Address(w.Generation()-1)*layout.Address(g.Window) + layout.Address(g.Slot(a)) + 1)
					behind = true
				}
				continue
			}
		}
		switch state {
		case wire.DurableJunk:
			found(int(p-first), entry{}, at(p, ErrJunk))
		case wire.Durable:
			e := entry{durable: true, word: w}
			slot := r.pages.Off + (x.off+i)*g.PageSize
			if e.take(v, p, r.pages.Mem.Bytes()[slot:slot+g.PageSize]); e.kind == entryPage {
				v.sawEntry(p, &e)
				found(int(p-first), e, nil)
			}
		default:
			continue
		}
		l.m.reads.Inc()
		if x.cold {
			l.m.coldReads.Inc()
		}
	}
	return behind
}
