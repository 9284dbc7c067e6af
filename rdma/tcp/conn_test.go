package tcp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"corfu/rdma"
)

// TestReceiverNotReady: a message beyond RecvDepth waits for a receiver that is slow, and
// breaks the connection at one that sleeps. Answers to the receiver's own requests do not wait behind it.
func TestReceiverNotReady(t *testing.T) {
	r := newRig(t, Options{})
	near, far := r.pair(rdma.ConnOptions{RecvDepth: 2})
	m, reg := r.region(4096)
	send := func(s string) *rdma.Batch {
		b := rdma.NewBatch(2)
		b.SendInline([]byte(s))
		b.FetchAdd(reg.Remote(0), 1)
		check(t, near.Post(context.Background(), b))
		return b
	}
	a, b, c := send("a"), send("b"), send("c")
	for _, done := range []*rdma.Batch{a, b} {
		check(t, near.Wait(context.Background(), done))
	}
	own := rdma.NewBatch(1)
	own.FetchAdd(reg.Remote(8), 1)
	check(t, far.Do(context.Background(), own))
	if n := m.Load(0); n != 2 || len(c.Done()) != 0 {
		t.Errorf("word is %d, third list complete: %v; want it to wait", n, len(c.Done()) != 0)
	}
	var got []string
	for len(got) < 3 {
		check(t, far.Receive(func(m []byte) { got = append(got, string(m)) }))
	}
	check(t, near.Wait(context.Background(), c))
	if !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("received %q", got)
	}

	send("d")
	send("e")
	start := time.Now()
	err := near.Wait(context.Background(), send("f"))
	var op *rdma.OpError
	if !errors.As(err, &op) || op.Err != rdma.ErrBroken || !strings.Contains(op.Detail, "receiver not ready") {
		t.Errorf("message to a receiver that sleeps: %v", err)
	}
	if took := time.Since(start); took < minTimeout/2 {
		t.Errorf("broken after %v, want %v", took, minTimeout)
	}
	<-far.Broken()
	if m.Load(0) != 5 {
		t.Errorf("word is %d: the operation behind the message was executed", m.Load(0))
	}
}

// TestStuckPeer: no poster ever waits for a socket, and a peer whose machine takes nothing
// any more breaks the connection.
func TestStuckPeer(t *testing.T) {
	r := newRig(t, Options{})
	m, _ := r.region(32 << 20)
	p := r.raw(rdma.ConnOptions{SendDepth: 2, AckTimeout: time.Second, RetryCount: 5}) // 6 s
	list := rdma.NewBatch(1)
	list.Write(m.Slice(0, m.Len()), rdma.Remote{Addr: 8})
	start := time.Now()
	check(t, p.far.Post(context.Background(), list))
	second := rdma.NewBatch(1)
	second.FetchAdd(rdma.Remote{Addr: 8}, 1)
	check(t, p.far.Post(context.Background(), second))
	select {
	case <-p.far.Broken():
		t.Errorf("two posts took %v, until the connection broke", time.Since(start))
	default:
	}
	for _, b := range []*rdma.Batch{list, second} {
		if err := p.far.Wait(context.Background(), b); !errors.Is(err, rdma.ErrBroken) {
			t.Errorf("%v, want ErrBroken", err)
		}
	}
	t.Logf("broken after %v: %v", time.Since(start), p.far.Err())
}

// TestRefusalOutrunsClose: the poster learns that it was refused, even if the peer closes at once.
func TestRefusalOutrunsClose(t *testing.T) {
	r := newRig(t, Options{})
	_, reg := r.region(4096)
	for range 200 {
		near, far := r.pair(rdma.ConnOptions{})
		list := rdma.NewBatch(1)
		list.FetchAdd(reg.Remote(4096), 1)
		check(t, near.Post(context.Background(), list))
		<-far.Broken()
		check(t, far.Close())
		if err := near.Wait(context.Background(), list); !errors.Is(err, rdma.ErrRemoteAccess) {
			t.Fatalf("%v, want ErrRemoteAccess", err)
		}
	}
}

// TestRefusalBehindAnswers: a refusal that stands behind answers not yet fetched is not lost,
// though requests behind it were never read.
func TestRefusalBehindAnswers(t *testing.T) {
	r := newRig(t, Options{})
	_, reg := r.region(2 << 20)
	p := r.raw(rdma.ConnOptions{})
	p.send(slices.Concat(
		frame(0, opBytes(rdma.OpRead, reg.Remote(0), 2<<20, nil)),
		frame(1, opBytes(rdma.OpRead, reg.Remote(1), 2<<20, nil)),
		bytes.Repeat(frame(2, opBytes(rdma.OpFetchAdd, reg.Remote(0), 8, make([]byte, 8))), 2000)))
	time.Sleep(50 * time.Millisecond) // it has written what fits
	h, n := answerHeader{}, 0
	for h.kind != typeNak {
		var body []byte
		h, body = p.answer()
		n += len(body)
	}
	if n != 2<<20 || h.tag != 1 {
		t.Errorf("%d bytes and %+v, want all of the READ and the refusal of list 1", n, h)
	}
	p.cutOff()
}

// TestOptions: all that is out of range is named at once.
func TestOptions(t *testing.T) {
	r := newRig(t, Options{})
	_, err := r.dev.Dial(context.Background(), r.l.Addr(), nil, rdma.ConnOptions{
		SendDepth: -1, RecvDepth: maxDepth + 1, MaxMessage: maxMessage + 1, MaxRDAtomic: maxDepth + 1, RetryCount: 7, AckTimeout: time.Hour,
	})
	if !errors.Is(err, rdma.ErrInvalid) {
		t.Fatalf("%v, want ErrInvalid", err)
	}
	for _, field := range []string{"SendDepth", "RecvDepth", "MaxMessage", "MaxRDAtomic", "RetryCount", "AckTimeout"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%v: nothing about %s", err, field)
		}
	}
	if got := timeout(rdma.ConnOptions{AckTimeout: time.Second, RetryCount: 4}); got != 5*time.Second {
		t.Errorf("timeout %v, want 5s", got)
	}
	if _, err := Open(Options{Addr: "no such host."}); !errors.Is(err, rdma.ErrInvalid) {
		t.Errorf("open: %v", err)
	}
}

// memorySocket is a peer of bytes: requests to read, and room for the answers.
type memorySocket struct {
	net.Conn
	r io.Reader
	w bytes.Buffer
}

func (s *memorySocket) Read(p []byte) (int, error)  { return s.r.Read(p) }
func (s *memorySocket) Write(p []byte) (int, error) { return s.w.Write(p) }

// FuzzResponder lets arbitrary bytes be requests. The key and the place of the region are put
// in where the input says "KEY!" and "ADDRESS!", so that some get through.
func FuzzResponder(f *testing.F) {
	d, err := Open(Options{})
	check(f, err)
	m, err := d.Alloc(3 * 4096)
	check(f, err)
	reg, err := d.Register(m, 4096, 4096, allRights)
	check(f, err)
	key, addr := le.AppendUint32(nil, uint32(reg.Key())), le.AppendUint64(nil, reg.Remote(0).Addr)
	at := rdma.Remote{Addr: le.Uint64([]byte("ADDRESS!")), Key: rdma.RKey(le.Uint32([]byte("KEY!")))}
	word := make([]byte, 8)
	f.Add(frame(0, opBytes(rdma.OpWrite, at, 5, []byte("bytes")), opBytes(rdma.OpCompareSwap, at, 8, append(word, word...))))
	f.Add(frame(0, opBytes(rdma.OpRead, at, 4096, nil), opBytes(rdma.OpFetchAdd, at, 8, word)))
	f.Add(append(frame(0, opBytes(rdma.OpSend, rdma.Remote{}, 3, []byte("abc"))), frame(1, opBytes(rdma.OpRead, at, 1<<30, nil))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.ReplaceAll(b, []byte("KEY!"), key)
		b = bytes.ReplaceAll(b, []byte("ADDRESS!"), addr)
		var msgs inbox
		msgs.setup(64)
		sock := &memorySocket{r: bytes.NewReader(b)}
		broken := make(chan struct{})
		var r responder
		r.setup(&d.regions, &msgs, sock, rdma.ConnOptions{MaxMessage: 512}, broken)
		r.notReady = 0
		if err := r.serve(); err == nil {
			t.Error("served without an end")
		}
		if !allZero(m.Bytes()[:4096]) || !allZero(m.Bytes()[8192:]) {
			t.Error("memory outside of the region changed")
		}
		for br := bufio.NewReader(&sock.w); ; {
			head, err := br.Peek(headerSize)
			if err != nil {
				return
			}
			h, err := decodeAnswerHeader(head)
			if err != nil {
				t.Fatalf("answer % x: %v", head, err)
			}
			if _, err := br.Discard(headerSize + int(h.body)); err != nil {
				t.Fatalf("answer %+v: %v", h, err)
			}
		}
	})
}

// FuzzAnswers lets arbitrary bytes be the answers to two lists in flight.
func FuzzAnswers(f *testing.F) {
	m, err := rdma.MapMemory(3*4096, false)
	check(f, err)
	word := make([]byte, 8)
	data := append(answerHeader{kind: typeData, op: 1, body: 64}.append(nil), make([]byte, 64)...)
	done := append(answerHeader{kind: typeDone, words: 1, body: 8}.append(nil), word...)
	second := append(answerHeader{kind: typeDone, words: 1, body: 8, tag: 1}.append(nil), word...)
	nak := append(answerHeader{kind: typeNak, op: 1, status: statusAccess, words: 1, body: 8, tag: 1}.append(nil), word...)
	f.Add(slices.Concat(data, done, second))
	f.Add(slices.Concat(data, done, nak))
	f.Fuzz(func(t *testing.T, b []byte) {
		clear(m.Bytes())
		c := &conn{opts: rdma.ConnOptions{}.WithDefaults(), broken: make(chan struct{}), err: io.EOF}
		c.init.setup(c, nil)
		in := &c.init
		in.answers.setup(bytes.NewReader(b))
		var lists [2]*rdma.Batch
		for i := range lists {
			lists[i] = rdma.NewBatch(2)
			lists[i].FetchAdd(rdma.Remote{Addr: 8}, 1)
			lists[i].Read(m.Slice(4096+64*i, 64), rdma.Remote{Addr: 8})
			check(t, in.room.Acquire(context.Background(), 2))
			lists[i].Begin()
			*in.at(in.posted) = lists[i]
			in.posted++
		}
		in.encode()
		if err := in.readAnswers(); err == nil {
			t.Error("read answers without an end")
		}
		in.abandon(io.EOF)
		for _, l := range lists {
			if len(l.Done()) != 1 {
				t.Error("a list without a completion")
			}
		}
		if !allZero(m.Bytes()[:4096]) || !allZero(m.Bytes()[4096+128:]) {
			t.Error("memory outside of the targets changed")
		}
	})
}
