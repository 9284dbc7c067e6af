package server

import (
	"context"
	"time"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma"
	"corfu/unit"
)

// coldJob is an address to be looked up on flash: for a cold read, or to answer
// a doorbell for an address below the window; or a run of addresses.
type coldJob struct {
	link *link
	read wire.ColdRead
	ack  bool
	run  wire.ReadRun // Count 0: none
}

const (
	coldDepth   = 256
	coldTimeout = 5 * time.Second // for the client to take its page
	coldTries   = 3               // at a page that is just being replaced by its trim mark
)

// coldReader i looks up what is on flash.
func (s *Server) coldReader(i int) {
	defer s.coldDone.Done()
	batch := rdma.NewBatch(3)
	for job := range s.coldJobs {
		switch {
		case job.ack:
			s.coldAck(i, job)
		case job.run.Count > 0:
			s.readRun(i, job, batch)
		default:
			s.coldRead(i, job, batch)
		}
		job.link.session.jobs.Done()
	}
}

// coldPage is the page buffer of reader i, registered for local use.
func (s *Server) coldPage(i int) rdma.Local { return s.coldPages(i, 1) }

// lookup tells the state of an address that is decided and durable, EMPTY otherwise (rule R3);
// with DURABLE the page is in page.
func (s *Server) lookup(a layout.Address, page []byte) (wire.State, error) {
	state, known := wire.Empty, false
	if a >= layout.Address(s.base.Load()) || a < layout.Address(s.trimmed.Load()) {
		// In the window only the core knows what is durable.
		if err := s.do(func(u *unit.Unit) { state, known = u.StateOf(a) }); err != nil {
			return wire.Empty, err
		}
		if known && state != wire.Durable {
			return state, nil
		}
	}
	p, log, mapped := s.position(a)
	for range coldTries {
		if err := s.store.ReadPage(a, page); err != nil || !mapped {
			if err != nil {
				s.suspect(a)
			}
			return wire.Empty, err
		}
		if state, _ = unit.Classify(page, log, p); state == wire.Corrupt {
			break
		}
		// What a repair writes is durable once it has ended.
		if state != wire.Empty && !s.isRepairing(a) {
			return state, nil
		}
	}
	// It is decided here, and not to be read. The unit takes note, so that it is repaired.
	s.suspect(a)
	return wire.Corrupt, nil
}

func (s *Server) coldAck(i int, job coldJob) {
	state, err := s.lookup(job.read.Address, s.coldPage(i).Bytes())
	if err != nil || state == wire.Empty {
		return // the client rings again
	}
	job.link.out.ack(wire.Ack{Address: job.read.Address, Use: unit.NoUse, State: state})
}

// coldRead writes the page into the client's buffer and replies behind it, in one list.
func (s *Server) coldRead(i int, job coldJob, batch *rdma.Batch) {
	start := time.Now()
	page := s.coldPage(i)
	state, err := s.lookup(job.read.Address, page.Bytes())
	r := wire.Reply{Request: job.read.Request, State: state}
	switch {
	case err != nil:
		s.cfg.Logger.Error("cold read", "address", job.read.Address, "error", err)
		s.m.coldErrors.Inc()
		r.State, r.Status = wire.Empty, wire.StatusIO
	case state == wire.Empty:
		r.Status = wire.StatusTooNew
	case state == wire.Trimmed:
		// Asked of the core behind the look: a trim that made it TRIMMED is in it.
		_ = s.do(func(u *unit.Unit) { r.Value = uint64(u.View().TrimmedBelow) })
	}
	batch.Reset()
	if state == wire.Durable {
		batch.Write(page, rdma.Remote{Addr: job.read.Buffer.Addr, Key: rdma.RKey(job.read.Buffer.Key)})
	}
	var b [16]byte
	batch.SendInline(r.Append(b[:0]))

	s.answerCold(job.link, batch, 1, start)
}

// answerCold sends what was read of n addresses, and counts it.
func (s *Server) answerCold(l *link, batch *rdma.Batch, n int, start time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), coldTimeout)
	defer cancel()
	if err := l.conn.Do(ctx, batch); err != nil {
		s.m.coldErrors.Inc()
		l.session.fail(err)
		if batch.InFlight() {
			// The end of the session closes the connection, which completes the batch.
			_ = l.conn.Wait(context.Background(), batch)
		}
		return
	}
	s.m.coldReads.Add(float64(n))
	s.coldReads.Add(uint64(n))
	l.session.coldReads.Add(uint64(n))
	s.m.coldSeconds.Observe(time.Since(start).Seconds())
}
