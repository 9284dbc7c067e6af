package client

import (
	"context"

	"corfu/rdma"
)

// frame is what one operation needs of registered memory: a page, a few words, and a batch.
// It belongs to one goroutine at a time.
type frame struct {
	page  rdma.Local // one page; a unit may write to it (cold reads)
	words rdma.Local // frameWords words
	b     *rdma.Batch

	on     *pipe       // where b was posted last
	after  func()      // what to do when b, left in flight, is complete; nil: nothing
	cold   *pending    // cold read that may still write to page; nil: none
	remote rdma.Remote // the page as a unit names it
}

// frameWords bounds the words that one frame reads at once.
const frameWords = 8

// frameBatch is the most operations in a frame's batch.
const frameBatch = 4

// word is the i-th word of the frame, for a READ.
func (f *frame) word(i int) rdma.Local {
	return f.words.Mem.Slice(f.words.Off+i*rdma.WordSize, rdma.WordSize)
}

// value of the i-th word.
func (f *frame) value(i int) uint64 { return f.words.Mem.Load(f.words.Off + i*rdma.WordSize) }

// do runs the frame's batch on p.
func (f *frame) do(ctx context.Context, p *pipe) error {
	f.on = p
	return p.do(ctx, f.b)
}

// frames is the pool of frames.
type frames struct{ pool[frame] }

// framesAtOnce is how many frames share one registration.
const framesAtOnce = 32

func (fs *frames) get() (*frame, error) { return fs.take(fs.grow) }

// grow makes more frames: first all pages, then all words.
func (fs *frames) grow() error {
	const wordBytes = frameWords * rdma.WordSize
	pages := framesAtOnce * fs.pageSize
	mem, reg, err := fs.register(framesAtOnce, pages+framesAtOnce*wordBytes, pages)
	if err != nil {
		return err
	}
	for i := range framesAtOnce {
		off := i * fs.pageSize
		fs.free = append(fs.free, &frame{
			page:   mem.Slice(off, fs.pageSize),
			words:  mem.Slice(pages+i*wordBytes, wordBytes),
			b:      rdma.NewBatch(frameBatch),
			remote: reg.Remote(off),
		})
	}
	return nil
}

// put gives a frame back. If something may still touch its memory (the caller's context
// ended first), that is waited for elsewhere: the watchdog bounds it.
func (l *Log) put(f *frame) {
	if f.b.InFlight() || f.cold != nil {
		l.background(func(context.Context) {
			if f.b.InFlight() {
				_ = f.on.wait(context.Background(), f.b)
			}
			if f.after != nil {
				f.after()
				f.after = nil
			}
			if f.cold != nil {
				f.cold.drain()
				f.cold = nil
			}
			l.frames.put(f)
		})
		return
	}
	l.frames.put(f)
}
