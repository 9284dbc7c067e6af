package server

import (
	"time"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma"
	"corfu/unit"
)

// readRunBytes is how many bytes of pages one ReadRun brings at most: enough that a disk and a network
// work at their rate, and small beside the memory of a unit.
const readRunBytes = 256 << 10

// runPages is the most addresses that a ReadRun may ask for.
func runPages(g layout.Geometry) int { return max(1, readRunBytes/g.PageSize) }

// coldMemory is what the cold readers have: for each the pages of a run, which a disk can be read
// into, and behind all of them a word for each page.
func coldMemory(g layout.Geometry, readers int) int {
	return readers * runPages(g) * (g.PageSize + rdma.WordSize)
}

// coldPages is the memory of reader i for n pages.
func (s *Server) coldPages(i, n int) rdma.Local {
	g := s.mem.geo
	return s.mem.cold.Slice(i*runPages(g)*g.PageSize, n*g.PageSize)
}

// coldStates is the memory of reader i for the states of n pages.
func (s *Server) coldStates(i, n int) rdma.Local {
	g := s.mem.geo
	return s.mem.cold.Slice(runPages(g)*(s.cfg.ColdReaders*g.PageSize+i*rdma.WordSize), n*rdma.WordSize)
}

// readRun answers a ReadRun: pages, states and the reply go in one list, in this order.
func (s *Server) readRun(i int, job coldJob, batch *rdma.Batch) {
	start := time.Now()
	n := job.run.Count
	pages, states := s.coldPages(i, n), s.coldStates(i, n)
	r := wire.Reply{Request: job.run.Request, Value: s.base.Load()}
	if err := s.lookupRun(job.run.Address, n, pages.Bytes(), states); err != nil {
		s.cfg.Logger.Error("cold read", "address", job.run.Address, "count", n, "error", err)
		s.m.coldErrors.Inc()
		r.Status = wire.StatusIO
	}
	batch.Reset()
	if r.Status == wire.StatusOK {
		key := rdma.RKey(job.run.Pages.Key)
		batch.Write(pages, rdma.Remote{Addr: job.run.Pages.Addr, Key: key})
		batch.Write(states, rdma.Remote{Addr: job.run.States, Key: key})
	}
	var b [16]byte
	batch.SendInline(r.Append(b[:0]))
	s.answerCold(job.link, batch, n, start)
}

// lookupRun is lookup for n consecutive addresses: a segment is read at once, and what is not an
// ordinary page below the window is looked up by itself.
func (s *Server) lookupRun(a layout.Address, n int, pages []byte, states rdma.Local) error {
	size := s.mem.geo.PageSize
	for k := 0; k < n; {
		got, err := s.store.ReadRun(a+layout.Address(k), pages[k*size:n*size])
		if err := s.judgeRun(a, k, k+max(got, 1), err == nil, pages, states); err != nil {
			return err
		}
		k += max(got, 1)
	}
	return nil
}

// judgeRun finds the states of addresses a+from to a+to−1; read says that their pages were read.
func (s *Server) judgeRun(a layout.Address, from, to int, read bool, pages []byte, states rdma.Local) (err error) {
	size := s.mem.geo.PageSize
	for k := from; k < to; k++ {
		page := pages[k*size : (k+1)*size]
		state := wire.Empty
		if read {
			state = s.plain(a+layout.Address(k), page)
		}
		if state == wire.Empty {
			if state, err = s.lookup(a+layout.Address(k), page); err != nil {
				return err
			}
		}
		if state != wire.Durable {
			clear(page) // it may be one that was trimmed
		}
		states.Mem.Store(states.Off+k*rdma.WordSize, uint64(state))
	}
	return nil
}

// plain returns the state of an address whose page was read, if nothing but the page is needed to
// tell: it lies below the window, above what was trimmed, verifies, and no repair writes it. EMPTY
// means that lookup has to say.
func (s *Server) plain(a layout.Address, page []byte) wire.State {
	if a >= layout.Address(s.base.Load()) || a < layout.Address(s.trimmed.Load()) || s.isRepairing(a) {
		return wire.Empty
	}
	p, log, mapped := s.position(a)
	if !mapped {
		return wire.Empty
	}
	state, _ := unit.Classify(page, log, p)
	if state == wire.Corrupt {
		return wire.Empty
	}
	return state
}
