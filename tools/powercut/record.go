package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"corfu/internal/wire"
	"corfu/layout"
)

// fact is the kind of a line. In the order in which a boot tells them:
//
//	boot N                          the program runs, the disk is mounted
//	flash POSITION COPIES OF WHAT   so many of the replicas have WHAT, and no other has anything else
//	flash-done                      that was all from the position asked for on
//	up EPOCH                        the cluster serves
//	read POSITION WHAT              a reader was given that
//	scan-done TAIL                  all positions from the one asked for up to the tail were read
//	load                            appenders and readers begin
//	ack POSITION WHAT               an append was acknowledged
//	lost WHAT                       an append failed for certain
//	closed                          the cluster was stopped; flash lines follow once more
//	end                             done
//	failed TEXT                     the program gave up
//	bad TEXT                        something that must not be, at any place among the others
type fact string

const (
	factBoot      fact = "boot"
	factFlash     fact = "flash"
	factFlashDone fact = "flash-done"
	factUp        fact = "up"
	factRead      fact = "read"
	factScanDone  fact = "scan-done"
	factLoad      fact = "load"
	factAck       fact = "ack"
	factLost      fact = "lost"
	factClosed    fact = "closed"
	factEnd       fact = "end"
	factFailed    fact = "failed"
	factBad       fact = "bad"
)

// what stands at a position: "v:" and the first 8 bytes of the payload's SHA-256; for an entry of n > 1 positions, at the
// first one, "v:", the same of the SHA-256 of its fragments' sums, and "/n"; inside of it "in:" and the first one; or one of the others.
type what string

const (
	junk    what = "junk"
	nothing what = "nothing"
	corrupt what = "corrupt"
	trimmed what = "trimmed"
	part    what = "part" // on flash: a fragment whose others are not all there, so that nothing is decided by it
)

func value(payload []byte) what {
	size := geometry.MaxPayload()
	if len(payload) <= size {
		return sumOf(sha256.Sum256(payload), 1)
	}
	var sums []byte
	n := 0
	for f := range slices.Chunk(payload, size-wire.FragmentSize) {
		s := sha256.Sum256(f)
		sums = append(sums, s[:]...)
		n++
	}
	return sumOf(sha256.Sum256(sums), n)
}

func sumOf(s [sha256.Size]byte, n int) what {
	w := what("v:" + hex.EncodeToString(s[:8]))
	if n > 1 {
		w += what("/" + strconv.Itoa(n))
	}
	return w
}

func inside(first layout.Position) what { return what(fmt.Sprintf("in:%d", first)) }

func (w what) isValue() bool { return strings.HasPrefix(string(w), "v:") }

// pages is how many positions a value takes; 0 for all else.
func (w what) pages() layout.Position {
	if !w.isValue() {
		return 0
	}
	_, number, large := strings.Cut(string(w), "/")
	if n, err := strconv.ParseUint(number, 10, 16); large && err == nil {
		return layout.Position(n)
	}
	return 1
}

// entry is the first position of the entry that w at another position is inside of.
func (w what) entry() (first layout.Position, ok bool) {
	number, ok := strings.CutPrefix(string(w), "in:")
	n, err := strconv.ParseUint(number, 10, 64)
	return layout.Position(n), ok && err == nil
}

// decided tells whether w is for ever: nobody may be given anything else there later.
func (w what) decided() bool {
	_, within := w.entry()
	return w.isValue() || within || w == junk
}

// line is one fact. Number is the boot, epoch or tail.
type line struct {
	fact     fact
	position layout.Position
	copies   int
	of       int
	what     what
	number   uint64
	text     string
}

func (l line) append(b []byte) []byte {
	b = append(b, l.fact...)
	switch l.fact {
	case factFlash:
		b = fmt.Appendf(b, " %d %d %d %s", l.position, l.copies, l.of, l.what)
	case factRead, factAck:
		b = fmt.Appendf(b, " %d %s", l.position, l.what)
	case factLost:
		b = fmt.Appendf(b, " %s", l.what)
	case factBoot, factUp, factScanDone:
		b = fmt.Appendf(b, " %d", l.number)
	case factBad, factFailed:
		b = fmt.Appendf(b, " %s", strings.Join(strings.Fields(l.text), " "))
	}
	return append(b, '\n')
}

// parseLine is the inverse of append, without the newline.
func parseLine(s string) (l line, err error) {
	name, rest, _ := strings.Cut(s, " ")
	l.fact = fact(name)
	f := strings.Fields(rest)
	number := func(i int) uint64 {
		if i >= len(f) {
			err = fmt.Errorf("line %q: too short", s)
			return 0
		}
		n, e := strconv.ParseUint(f[i], 10, 64)
		if e != nil {
			err = fmt.Errorf("line %q: %w", s, e)
		}
		return n
	}
	word := func(i int) what {
		if i != len(f)-1 {
			err = fmt.Errorf("line %q: %d words", s, len(f))
			return ""
		}
		return what(f[i])
	}
	switch l.fact {
	case factFlash:
		l.position, l.copies, l.of, l.what = layout.Position(number(0)), int(number(1)), int(number(2)), word(3)
	case factRead, factAck:
		l.position, l.what = layout.Position(number(0)), word(1)
	case factLost:
		l.what = word(0)
	case factBoot, factUp, factScanDone:
		l.number = number(0)
	case factBad, factFailed:
		l.text = rest
	case factFlashDone, factLoad, factClosed, factEnd:
		if rest != "" {
			err = fmt.Errorf("line %q: too long", s)
		}
	default:
		err = fmt.Errorf("line %q: unknown", s)
	}
	return l, err
}

// recorder writes lines to a file of the host, each whole and in order. The file must be such that
// what write took is outside when it returns (9p with cache=none).
type recorder struct {
	f *os.File

	mu      sync.Mutex
	wake    sync.Cond
	pending []byte
	busy    bool // a write is under way
	written uint64
	total   uint64
	err     error
}

func newRecorder(path string) (*recorder, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	r := &recorder{f: f}
	r.wake.L = &r.mu
	return r, nil
}

// tell returns once the line is outside. Lines told at the same time travel in one write: a write costs a
// round trip to the host.
func (r *recorder) tell(l line) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.pending)
	r.pending = l.append(r.pending)
	r.total += uint64(len(r.pending) - before)
	mine := r.total
	for r.written < mine && r.err == nil {
		if r.busy {
			r.wake.Wait()
			continue
		}
		r.flush()
	}
	return r.err
}

// note is tell without waiting: for many lines, before a tell.
func (r *recorder) note(l line) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.pending)
	r.pending = l.append(r.pending)
	r.total += uint64(len(r.pending) - before)
	if len(r.pending) > 64<<10 && !r.busy {
		r.flush()
	}
	return r.err
}

// flush writes what is pending; mu is held, and let go meanwhile.
func (r *recorder) flush() {
	out := r.pending
	r.pending, r.busy = nil, true
	r.mu.Unlock()
	_, err := r.f.Write(out)
	r.mu.Lock()
	r.busy = false
	if err != nil && r.err == nil {
		r.err = err
	}
	r.written += uint64(len(out))
	r.wake.Broadcast()
}

func (r *recorder) close() error { return r.f.Close() }

// cutLines takes whole lines from b and leaves the rest, which a cut may have torn.
func cutLines(b []byte) (lines []string, rest []byte) {
	for {
		l, after, found := bytes.Cut(b, []byte{'\n'})
		if !found {
			return lines, b
		}
		lines, b = append(lines, string(l)), after
	}
}
