package tcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"corfu/rdma"
)

// TestHostileRequests: whatever a peer sends that is no request costs it its connection, and
// nothing else happens: memory stays, nobody else notices, and nothing big is allocated.
func TestHostileRequests(t *testing.T) {
	r := newRig(t, Options{})
	m, reg := r.region(1 << 16)
	bystander, _ := r.pair(rdma.ConnOptions{})
	at := reg.Remote(0)
	good := frame(0, opBytes(rdma.OpFetchAdd, at, 8, make([]byte, 8)))
	patch := func(b []byte, off int, v ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[off:], v)
		return b
	}
	write := frame(0, opBytes(rdma.OpWrite, at, 100, bytes.Repeat([]byte{7}, 100)))
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(rand.Uint32() | 1)
	}
	cases := map[string][]byte{
		"noise":                      noise,
		"zeros":                      make([]byte, 64),
		"an answer":                  answerHeader{kind: typeDone}.append(nil),
		"no operations":              patch(good, 5, 0),
		"255 operations":             patch(good, 5, 255),
		"more operations than bytes": patch(good, 5, 2),
		"tag of the future":          patch(good, 8, 1),
		"longest length":             patch(good, 0, 0xff, 0xff, 0xff, 0xff),
		"length too long":            patch(good, 0, good[0]+1),
		"length too short":           patch(good, 0, good[0]-1),
		"unknown kind":               patch(good, headerSize, 9),
		"kind 0":                     patch(good, headerSize, 0),
		"atomic of 16 bytes":         patch(good, headerSize+16, 16),
		"WRITE longer than frame":    patch(write, headerSize+16, 101),
		"WRITE of 4 GiB":             patch(write, headerSize+16, 0xff, 0xff, 0xff, 0xff),
		"WRITE of nothing":           patch(write, headerSize+16, 0),
		"SEND to an address":         patch(write, headerSize, byte(rdma.OpSend)),
	}
	for name, b := range cases {
		p := r.raw(rdma.ConnOptions{})
		before := slices.Clone(m.Bytes())
		_, _ = p.forward.Write(b) // it may be cut off midway
		_ = p.forward.CloseWrite()
		p.cutOff()
		if !errors.Is(p.far.Err(), rdma.ErrBroken) {
			t.Errorf("%s: %v", name, p.far.Err())
		}
		if name != "length too short" && name != "length too long" && !bytes.Equal(before, m.Bytes()) {
			t.Errorf("%s: memory changed", name)
		}
	}
	list := rdma.NewBatch(1)
	list.FetchAdd(at, 1)
	check(t, bystander.Do(context.Background(), list))
}

// TestHostileAnswers: an answer that was not asked for breaks the connection, and the batch
// in flight ends with an unknown outcome, not with what the peer made up.
func TestHostileAnswers(t *testing.T) {
	r := newRig(t, Options{})
	m, _ := r.region(4096)
	data := func(op uint8, tag uint32, n int) []byte {
		return append(answerHeader{kind: typeData, op: op, tag: tag, body: uint32(n)}.append(nil), make([]byte, n)...)
	}
	words := func(h answerHeader, n int) []byte {
		h.words, h.body = uint8(n), uint32(8*n)
		return append(h.append(nil), make([]byte, 8*n)...)
	}
	cases := map[string][]byte{
		"noise":                 bytes.Repeat([]byte{0xe7}, 100),
		"a request":             frame(0, opBytes(rdma.OpSend, rdma.Remote{}, 1, []byte{1})),
		"done too early":        words(answerHeader{kind: typeDone}, 1),
		"another tag":           data(1, 1, 64),
		"data for an atomic":    data(0, 0, 64),
		"too much data":         data(1, 0, 65),
		"data twice":            append(data(1, 0, 64), data(1, 0, 64)...),
		"too few old values":    append(data(1, 0, 64), words(answerHeader{kind: typeDone}, 0)...),
		"too many old values":   append(data(1, 0, 64), words(answerHeader{kind: typeDone}, 2)...),
		"refusal beyond":        words(answerHeader{kind: typeNak, op: 2, status: statusAccess}, 1),
		"refusal, no old value": words(answerHeader{kind: typeNak, op: 1, status: statusAccess}, 0),
		"huge data":             answerHeader{kind: typeData, op: 1, body: 1 << 31}.append(nil),
		"cut short":             data(1, 0, 64)[:70],
	}
	for name, b := range cases {
		p := r.raw(rdma.ConnOptions{})
		list := rdma.NewBatch(2)
		list.FetchAdd(rdma.Remote{Addr: 8}, 1)
		list.Read(m.Slice(0, 64), rdma.Remote{Addr: 8})
		check(t, p.far.Post(context.Background(), list))
		_, err := io.ReadFull(p.reverse, make([]byte, 12+20+8+20))
		check(t, err)
		_, _ = p.reverse.Write(b)
		_ = p.reverse.CloseWrite()
		if err := p.far.Wait(context.Background(), list); !errors.Is(err, rdma.ErrBroken) {
			t.Errorf("%s: %v, want ErrBroken", name, err)
		}
		p.cutOff()
	}
}

// TestEarlyAnswer: a peer that answers a list before it has it all does not get the poster to
// free memory that is still being sent.
func TestEarlyAnswer(t *testing.T) {
	r := newRig(t, Options{})
	m, _ := r.region(64 << 20)
	p := r.raw(rdma.ConnOptions{})
	list := rdma.NewBatch(1)
	list.Write(m.Slice(0, m.Len()), rdma.Remote{Addr: 8})
	check(t, p.far.Post(context.Background(), list)) // more than the sockets hold
	_, err := p.reverse.Write(answerHeader{kind: typeDone}.append(nil))
	check(t, err)
	if err := p.far.Wait(context.Background(), list); !errors.Is(err, rdma.ErrBroken) {
		t.Errorf("%v, want ErrBroken", err)
	}
	p.cutOff()
}

// TestHostileHandshake: who does not say a proper hello is hung up on; who does is served meanwhile.
func TestHostileHandshake(t *testing.T) {
	r := newRig(t, Options{})
	proper := (&hello{version: version, role: roleForward}).encode()
	other := (&hello{version: version + 1, role: roleForward}).encode()
	cases := map[string]struct {
		say   [][]byte // on a socket each
		reply string   // reason of the rejection, if there is one
	}{
		"noise":         {say: [][]byte{bytes.Repeat([]byte{0xff}, 300)}},
		"http":          {say: [][]byte{[]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + string(make([]byte, 200)))}},
		"cut short":     {say: [][]byte{proper[:50]}},
		"nothing":       {say: [][]byte{nil}},
		"same role":     {say: [][]byte{proper, proper}},
		"other version": {say: [][]byte{other}, reply: fmt.Sprintf("version %d, not %d", version+1, version)},
	}
	for name, c := range cases {
		var socks []*net.TCPConn
		for _, b := range c.say {
			s, err := net.Dial("tcp", r.l.Addr())
			check(t, err)
			defer s.Close()
			_, err = s.Write(b)
			check(t, err)
			if len(b) < helloSize {
				check(t, s.(*net.TCPConn).CloseWrite())
			}
			socks = append(socks, s.(*net.TCPConn))
		}
		for _, s := range socks {
			check(t, s.SetReadDeadline(time.Now().Add(time.Minute)))
			got, err := io.ReadAll(s)
			if isTimeout(err) {
				t.Errorf("%s: socket still open", name)
			}
			if len(got) == 0 && c.reply == "" {
				continue
			}
			if rep, err := decodeReply(got); err != nil || rep.reason != c.reply {
				t.Errorf("%s: reply %+v, %v, want %q", name, rep, err, c.reply)
			}
		}
		r.pair(rdma.ConnOptions{})
	}
}

// TestHalfHandshake: sockets whose twin never comes keep nobody else waiting, and go when the listener does.
func TestHalfHandshake(t *testing.T) {
	r := newRig(t, Options{})
	l, err := r.dev.Listen(":0")
	check(t, err)
	var socks []net.Conn
	for i := range 50 {
		h := hello{version: version, role: uint8(1 + i%2)}
		h.token[0] = byte(i)
		s, err := sayHello(context.Background(), l.Addr(), &h)
		check(t, err)
		defer s.Close()
		silent, err := net.Dial("tcp", l.Addr())
		check(t, err)
		defer silent.Close()
		socks = append(socks, s, silent)
	}
	check(t, l.Close())
	for _, s := range socks {
		check(t, s.SetReadDeadline(time.Now().Add(time.Minute)))
		if _, err := s.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("socket of a closed listener: %v", err)
		}
	}
}

// TestBacklog: more requests than anyone accepts are turned away, not kept.
func TestBacklog(t *testing.T) {
	r := newRig(t, Options{})
	l, err := r.dev.Listen(":0")
	check(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	results := make(chan error)
	const n = backlog + 20
	for range n {
		go func() {
			_, err := r.dev.Dial(ctx, l.Addr(), nil, rdma.ConnOptions{})
			results <- err
		}()
	}
	var rejected *rdma.RejectError
	for range n - backlog {
		if err := <-results; !errors.As(err, &rejected) || rejected.Reason != "too many requests waiting" {
			t.Fatalf("dial: %v", err)
		}
	}
	check(t, l.Close())
	for range backlog {
		if err := <-results; !errors.As(err, &rejected) || rejected.Reason != "listener closed" {
			t.Fatalf("dial: %v", err)
		}
	}
}

// TestSlowWriter: a peer that stops in the middle of a WRITE does not hold up the revocation, and
// the rest of its WRITE is refused (rule R15).
func TestSlowWriter(t *testing.T) {
	r := newRig(t, Options{})
	m, err := r.dev.Alloc(1 << 20)
	check(t, err)
	defer m.Close()
	reg, err := r.dev.Register(m, 0, 1<<20, allRights)
	check(t, err)
	p := r.raw(rdma.ConnOptions{})
	list := frame(0, opBytes(rdma.OpWrite, reg.Remote(0), 1<<20, bytes.Repeat([]byte{7}, 1<<20)))
	p.send(list[:1<<19])
	for m.Load(1<<18) == 0 {
		runtime.Gosched()
	}
	start := time.Now()
	check(t, reg.Close())
	if took := time.Since(start); took > 30*time.Second { // the peer's deadline is a minute
		t.Errorf("Close took %v", took)
	}
	before := slices.Clone(m.Bytes())
	p.send(list[1<<19:])
	if h, _ := p.answer(); h.kind != typeNak || h.status != statusAccess || h.op != 0 {
		t.Errorf("answer %+v, want a refusal", h)
	}
	p.cutOff()
	if !bytes.Equal(before, m.Bytes()) {
		t.Error("memory changed after Close")
	}
}

// TestSlowReader: the same with a READ that the peer does not fetch.
func TestSlowReader(t *testing.T) {
	r := newRig(t, Options{})
	m, err := r.dev.Alloc(64 << 20)
	check(t, err)
	defer m.Close()
	reg, err := r.dev.Register(m, 0, m.Len(), allRights)
	check(t, err)
	p := r.raw(rdma.ConnOptions{})
	p.send(frame(0, opBytes(rdma.OpRead, reg.Remote(0), m.Len(), nil)))
	h, _ := p.answer()
	check(t, reg.Close())
	for h.kind == typeData {
		h, _ = p.answer()
	}
	if h.kind != typeNak || h.status != statusAccess {
		t.Errorf("answer %+v, want a refusal", h)
	}
	p.cutOff()
}
