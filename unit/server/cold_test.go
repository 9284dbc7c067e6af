package server_test

import (
	"testing"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/rdma/tcp"
	"corfu/unit/flash"
)

// slowDisk is a segment file whose reads and synced writes arrive at the test, each at a gate that may be open.
type slowDisk struct {
	flash.File
	reads, writes *gate
}

func (f slowDisk) Read(b []byte, off int64) error {
	f.reads.pass()
	return f.File.Read(b, off)
}

func (f slowDisk) Write(bufs [][]byte, off int64, sync bool) error {
	if sync {
		f.writes.pass()
	}
	return f.File.Write(bufs, off, sync)
}

// gate holds what passes while it is shut. Shut before anything passes, opened once.
type gate struct {
	shut chan bool          // holds whether it is shut
	held chan chan struct{} // who waits
}

func newGate() *gate {
	g := &gate{make(chan bool, 1), make(chan chan struct{}, 100)}
	g.shut <- false
	return g
}

func (g *gate) set(shut bool) {
	<-g.shut
	g.shut <- shut
}

func (g *gate) pass() {
	shut := <-g.shut
	c := make(chan struct{})
	if shut {
		g.held <- c
	}
	g.shut <- shut
	if shut {
		<-c
	}
}

// one lets the one that waits longest go.
func (g *gate) one() { close(<-g.held) }

// open lets all go.
func (g *gate) open() {
	g.set(false)
	for {
		select {
		case c := <-g.held:
			close(c)
		default:
			return
		}
	}
}

// coldRig has pages 0 … n−1 on a disk with gates, and 4 cold readers, 1 beside a flush.
func coldRig(t *testing.T, n layout.Address) (m *mini, reads, writes *gate) {
	r := newRig(t, tcp.Options{})
	r.stop()
	reads, writes = newGate(), newGate()
	r.cfg.ColdReaders = 4
	r.cfg.ScrubRate = -1 // a scrub reads from the disk, too, and the tests count who does
	r.cfg.Flash.Wrap = func(_ string, f flash.File) flash.File { return slowDisk{f, reads, writes} }
	r.start()
	t.Cleanup(func() { reads.open(); writes.open() }) // before the rig's own: it stops with nothing held
	r.open(1, true)
	m = r.session(1)
	for a := range n {
		m.put(a)
	}
	return m, reads, writes
}

// ask asks for the page of a and does not wait for the answer.
func (m *mini) ask(id wire.RequestID, a layout.Address) {
	m.t.Helper()
	to := m.region.Remote(0)
	m.send(m.read, wire.ColdRead{Request: id, Address: a, Buffer: wire.Buffer{Addr: to.Addr, Key: uint32(to.Key)}}.Append(nil))
}

// answers counts the replies of 1 … n that came.
func (m *mini) answers(n wire.RequestID) (count int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range n {
		if _, ok := m.replies[id+1]; ok {
			count++
		}
	}
	return count
}

const flood = 40

// A flood of cold reads that all hang in the disk takes up as many reads as there are cold readers, and pages go on to
// become durable; later every read is answered.
func TestFlushGoesOnBesideAFloodOfColdReads(t *testing.T) {
	m, reads, _ := coldRig(t, 3)
	reads.set(true)
	for id := range wire.RequestID(flood) {
		m.ask(id+1, layout.Address(id%3))
	}
	eventually(t, "reads on the disk", func() bool { return len(reads.held) == 4 })
	for a := layout.Address(3); a < 10; a++ {
		m.put(a)
	}
	if n := len(reads.held); n != 4 || m.answers(flood) != 0 {
		t.Fatalf("%d reads on the disk and %d answers, want 4 and 0", n, m.answers(flood))
	}
	reads.open()
	for id := range wire.RequestID(flood) {
		if got := m.reply(id + 1); got != (wire.Reply{Request: id + 1, State: wire.Durable}) {
			t.Fatalf("answer %+v", got)
		}
	}
}

// Cold reads go on while a flush hangs in the disk, one at a time: the rest leaves the disk to it.
func TestColdReadsGoOnBesideAFlushThatHangs(t *testing.T) {
	m, reads, writes := coldRig(t, 3)
	writes.set(true)
	_, _, err := m.write(3, 99, true)
	must(t, err)
	eventually(t, "the write on the disk", func() bool { return len(writes.held) == 1 })
	reads.set(true)
	for id := range wire.RequestID(flood) {
		m.ask(id+1, layout.Address(id%3))
	}
	for i := range 10 {
		eventually(t, "a read on the disk", func() bool { return len(reads.held) == 1 && m.answers(flood) == i })
		reads.one()
	}
	// Before the look: it uses the memory that the answers come to.
	eventually(t, "the next read", func() bool { return len(reads.held) == 1 && m.answers(flood) == 10 })
	if w := m.look(3); w.State() != wire.Written {
		t.Fatalf("word of what hangs is %v", w)
	}
	writes.open()
	m.ack(3)
	eventually(t, "all readers on the disk", func() bool { return len(reads.held) == 4 })
	reads.open()
	for id := range wire.RequestID(flood) {
		m.reply(id + 1)
	}
}
