package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"corfu/client"
	"corfu/layout"
)

// processes is a cluster of separate processes: a layout server, a sequencer, 2 chains of 2 units.
type processes struct {
	*cli
	dir     string
	members []*member // the layout server last
}

type member struct {
	args    []string
	control string // bound at the first start, and again at every other
	process *daemonProcess
}

const layoutServer = 5 // index in members

func startProcesses(c *cli) *processes {
	c.t.Helper()
	p := &processes{cli: c, dir: testDir(c.t)}
	common := func(name string) []string {
		return []string{"--dir", filepath.Join(p.dir, name), "--http", "127.0.0.1:0"}
	}
	first := []string{"layout"}
	for i := 1; i <= 4; i++ {
		m := p.add(append([]string{"unit", "--id", fmt.Sprint(i), "--provider", testProvider()}, common(fmt.Sprintf("unit-%d", i))...))
		first = append(first, "--unit", fmt.Sprintf("%d=%s", i, m.control))
	}
	m := p.add(append([]string{"seq", "--provider", testProvider()}, common("seq")...))
	// What is killed comes back: nobody is to be dropped for it, however slow the machine is.
	p.add(append(append(first, "--fail-after", "30s", "--seq", "1="+m.control, "--chain", "1,2", "--chain", "3,4"), common("layout")...))
	c.env = append(c.env, "CORFU_LAYOUT="+p.layoutAddr())
	p.awaitOpen()
	return p
}

func (p *processes) add(args []string) *member {
	p.t.Helper()
	m := &member{args: args, control: "127.0.0.1:0"}
	p.startMember(m)
	p.members = append(p.members, m)
	return m
}

func (p *processes) startMember(m *member) {
	p.t.Helper()
	m.process = p.cli.start(append(m.args, "--control", m.control)...)
	m.control = m.process.word("control")
}

func (p *processes) layoutAddr() string { return p.members[layoutServer].control }

// awaitOpen waits until every member serves the layout in force.
func (p *processes) awaitOpen() {
	p.t.Helper()
	eventually(p.t, func() error {
		// Not as a process of its own: in the lab one takes a second to start.
		var out, errs bytes.Buffer
		args := []string{"layout", "status", "-o", "json", "--cluster", p.layoutAddr()}
		if run(context.Background(), args, nil, &out, &errs) != exitOK {
			return errors.New(errs.String())
		}
		var s statusJSON
		if err := json.Unmarshal(out.Bytes(), &s); err != nil {
			return err
		}
		for _, m := range s.Members {
			if m.State != "open" || m.Epoch != s.Epoch {
				return fmt.Errorf("epoch %d: %+v; logs:\n%s", s.Epoch, m, p.logs())
			}
		}
		if s.Epoch == 0 || s.EpochInProgress != 0 || len(s.Members) != layoutServer {
			return fmt.Errorf("not up: %+v", s)
		}
		return nil
	})
}

func (p *processes) logs() string {
	var b strings.Builder
	for _, m := range p.members {
		lines := strings.Split(strings.TrimSpace(m.process.log.String()), "\n")
		fmt.Fprintf(&b, "%s:\n  %s\n", m.args[:3], strings.Join(lines[max(0, len(lines)-8):], "\n  "))
	}
	return b.String()
}

// sum stands for the bytes of an entry; the zero sum for a position that never will hold one.
type sum [sha256.Size]byte

// witness is what the outside world was told. Nothing in it may ever be contradicted.
type witness struct {
	mu    sync.Mutex
	acked map[layout.Position]sum // appends that were acknowledged
	seen  map[layout.Position]sum // what a reader saw, junk being the zero sum
	wrong []string
	end   layout.Position // behind the last acknowledged one
}

func newWitness() *witness {
	return &witness{acked: map[layout.Position]sum{}, seen: map[layout.Position]sum{}}
}

func (w *witness) ack(p layout.Position, payload []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := sum(sha256.Sum256(payload))
	if _, twice := w.acked[p]; twice {
		w.wrong = append(w.wrong, fmt.Sprintf("position %d was given to two appends", p))
	}
	w.acked[p] = h
	w.end = max(w.end, p+1)
	w.compare(p, h)
}

// saw notes what a read answered; errors other than junk say nothing.
func (w *witness) saw(p layout.Position, payload []byte, err error) {
	h := sum{}
	if err == nil {
		h = sha256.Sum256(payload)
	} else if !errors.Is(err, client.ErrJunk) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.compare(p, h)
	w.seen[p] = h
}

// compare holds h against all that is known of p. With mu held.
func (w *witness) compare(p layout.Position, h sum) {
	if was, ok := w.acked[p]; ok && was != h {
		w.wrong = append(w.wrong, fmt.Sprintf("position %d: acknowledged as %x, now %x", p, was[:4], h[:4]))
	}
	if was, ok := w.seen[p]; ok && was != h {
		w.wrong = append(w.wrong, fmt.Sprintf("position %d: read as %x, now %x", p, was[:4], h[:4]))
	}
}

func (w *witness) count() (acked int, end layout.Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked), w.end
}

// load runs clients that append and read until stop is called.
type load struct {
	w       *witness
	stopped atomic.Bool
	running sync.WaitGroup
	logs    []*client.Log
	cancel  context.CancelFunc
}

// loadSize is how many clients there are, how many appenders each has, and how many appends have to be acknowledged
// before something is killed. The lab's one emulated processor runs them and all members.
func loadSize() (clients, appenders, acks int) {
	if inLab() {
		return 2, 2, 60
	}
	return 3, 4, 300
}

func startLoad(t *testing.T, layoutAddr string, w *witness) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{w: w, cancel: cancel}
	clients, appenders, _ := loadSize()
	for c := range clients {
		log := openClient(t, layoutAddr)
		l.logs = append(l.logs, log)
		for a := range appenders {
			l.running.Go(func() { l.append(ctx, log, fmt.Sprintf("client %d appender %d", c, a)) })
		}
		l.running.Go(func() { l.read(ctx, log) })
	}
	return l
}

func openClient(t *testing.T, layoutAddr string) *client.Log {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	log, err := client.Open(ctx, client.Options{
		LayoutServers: []string{layoutAddr}, Provider: testProvider(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func (l *load) append(ctx context.Context, log *client.Log, name string) {
	for i := 0; !l.stopped.Load(); i++ {
		payload := []byte(fmt.Sprintf("%s entry %d %s", name, i, strings.Repeat("x", i%3000)))
		if p, err := log.Append(ctx, payload); err == nil {
			l.w.ack(p, payload)
		} else if ctx.Err() == nil {
			time.Sleep(time.Millisecond) // no answer while members are away
		}
	}
}

// read reads anywhere below what is acknowledged and a little above: holes and entries that come just now.
func (l *load) read(ctx context.Context, log *client.Log) {
	for !l.stopped.Load() {
		_, end := l.w.count()
		p := layout.Position(rand.Uint64N(uint64(end) + 8))
		rctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		payload, err := log.Read(rctx, p)
		cancel()
		l.w.saw(p, payload, err)
		time.Sleep(time.Millisecond) // a reader that never rests takes the processor from everybody else
	}
}

func (l *load) stop(t *testing.T) {
	t.Helper()
	l.stopped.Store(true)
	l.cancel()
	l.running.Wait()
	for _, log := range l.logs {
		if err := log.Close(); err != nil {
			t.Log("close:", err)
		}
	}
}

// awaitAcks waits until more appends were acknowledged.
func awaitAcks(t *testing.T, w *witness) {
	t.Helper()
	_, _, n := loadSize()
	before, _ := w.count()
	eventually(t, func() error {
		if now, _ := w.count(); now < before+n {
			return fmt.Errorf("%d of %d appends were acknowledged", now-before, n)
		}
		return nil
	})
}

// checkAll reads every position with two clients and holds the answers against the witness and each other.
func checkAll(t *testing.T, layoutAddr string, w *witness) {
	t.Helper()
	_, end := w.count()
	for reader := range 2 {
		log := openClient(t, layoutAddr)
		for p := range end {
			ctx, cancel := context.WithTimeout(t.Context(), patience) // of one read: how many there are is up to the load's pace
			payload, err := log.Read(ctx, p)
			cancel()
			if err != nil && !errors.Is(err, client.ErrJunk) {
				t.Fatalf("reader %d, position %d: %v", reader, p, err)
			}
			w.saw(p, payload, err)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, s := range w.wrong {
		if i < 10 {
			t.Error(s)
		}
	}
	for p, h := range w.acked {
		if w.seen[p] != h {
			t.Errorf("position %d was acknowledged and is not there", p)
		}
	}
	t.Logf("%d acknowledged, %d positions read by two readers, %d contradictions", len(w.acked), len(w.seen), len(w.wrong))
}

// killRounds: in the lab starting six processes twice takes most of a minute.
func killRounds() int {
	if inLab() {
		return 1
	}
	return 2
}

// TestR3R19KillAllDuringLoad: what was acknowledged survives kill -9 of every process, and nobody reads anything else at its place.
func TestR3R19KillAllDuringLoad(t *testing.T) {
	p := startProcesses(newCLIAlone(t))
	w := newWitness()
	for range killRounds() {
		l := startLoad(t, p.layoutAddr(), w)
		awaitAcks(t, w)
		for _, m := range p.members {
			m.process.kill()
		}
		l.stop(t)
		for _, m := range p.members {
			p.startMember(m)
		}
		p.awaitOpen()
		checkAll(t, p.layoutAddr(), w)
	}
}

// TestR19KillOneUnitDuringLoad: the log goes on by itself once the unit is back, with the same clients.
func TestR19KillOneUnitDuringLoad(t *testing.T) {
	p := startProcesses(newCLIAlone(t))
	w := newWitness()
	l := startLoad(t, p.layoutAddr(), w)
	for _, victim := range []int{1, 2}[:killRounds()] { // a tail, then a head
		awaitAcks(t, w)
		p.members[victim].process.kill()
		p.startMember(p.members[victim])
		t.Logf("unit %d is up again", victim+1)
		p.awaitOpen()
		t.Log("all members are open")
		awaitAcks(t, w)
	}
	l.stop(t)
	checkAll(t, p.layoutAddr(), w)
}
