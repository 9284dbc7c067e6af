package tcp

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"corfu/rdma"
)

const allRights = rdma.RemoteRead | rdma.RemoteWrite | rdma.RemoteAtomic

// rig is a device and what the tests of this package use of it.
type rig struct {
	testing.TB
	dev *Device
	l   rdma.Listener
}

func newRig(t testing.TB, o Options) *rig {
	t.Helper()
	d, err := Open(o)
	check(t, err)
	l, err := d.Listen(":0")
	check(t, err)
	t.Cleanup(func() {
		check(t, l.Close())
		check(t, d.Close())
	})
	return &rig{t, d, l}
}

func check(t testing.TB, err error) {
	if err != nil {
		t.Helper()
		t.Fatal(err)
	}
}

// accept takes the next request in the background.
func (r *rig) accept(o rdma.ConnOptions) <-chan *conn {
	ch := make(chan *conn, 1)
	go func() {
		defer close(ch)
		q, err := r.l.Accept(context.Background())
		if err != nil {
			r.Error(err)
			return
		}
		c, err := q.Accept(context.Background(), o)
		if err != nil {
			r.Error(err)
			return
		}
		ch <- c.(*conn)
	}()
	return ch
}

// pair connects the device to itself.
func (r *rig) pair(o rdma.ConnOptions) (near, far *conn) {
	r.Helper()
	ch := r.accept(o)
	c, err := r.dev.Dial(context.Background(), r.l.Addr(), nil, o)
	check(r, err)
	near, far = c.(*conn), <-ch
	r.Cleanup(func() {
		check(r, near.Close())
		check(r, far.Close())
	})
	return near, far
}

// region allocates and registers n bytes.
func (r *rig) region(n int) (*rdma.Memory, rdma.Region) {
	r.Helper()
	m, err := r.dev.Alloc(n)
	check(r, err)
	reg, err := r.dev.Register(m, 0, n, allRights)
	check(r, err)
	r.Cleanup(func() {
		check(r, reg.Close())
		check(r, m.Close())
	})
	return m, reg
}

// rawPeer is a peer that does what it likes, on bare sockets.
type rawPeer struct {
	*rig
	forward, reverse *net.TCPConn // its requests go out on forward
	far              *conn        // the victim
}

// raw connects a peer whose handshake is proper.
func (r *rig) raw(o rdma.ConnOptions) *rawPeer {
	r.Helper()
	ch := r.accept(o)
	f, v, err := handshake(context.Background(), r.l.Addr(), nil)
	check(r, err)
	p := &rawPeer{r, f, v, <-ch}
	check(r, f.SetDeadline(time.Now().Add(time.Minute)))
	r.Cleanup(func() {
		_ = f.Close()
		_ = v.Close()
		check(r, p.far.Close())
	})
	return p
}

func (p *rawPeer) send(b []byte) {
	p.Helper()
	_, err := p.forward.Write(b)
	check(p, err)
}

// answer reads one answer and its body.
func (p *rawPeer) answer() (answerHeader, []byte) {
	p.Helper()
	var b [headerSize]byte
	_, err := io.ReadFull(p.forward, b[:])
	check(p, err)
	h, err := decodeAnswerHeader(b[:])
	check(p, err)
	body := make([]byte, h.body)
	_, err = io.ReadFull(p.forward, body)
	check(p, err)
	return h, body
}

// cutOff waits until the victim has closed both sockets.
func (p *rawPeer) cutOff() {
	p.Helper()
	for _, s := range []*net.TCPConn{p.forward, p.reverse} {
		check(p, s.SetReadDeadline(time.Now().Add(time.Minute)))
		if _, err := io.Copy(io.Discard, s); isTimeout(err) {
			p.Fatal("socket still open")
		}
	}
	select {
	case <-p.far.Broken():
	case <-time.After(time.Minute):
		p.Fatal("connection not broken")
	}
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error)
	return ok && n.Timeout()
}

// frame puts a request together.
func frame(tag uint32, ops ...[]byte) []byte {
	h := requestHeader{ops: len(ops), tag: tag}
	var body []byte
	for _, op := range ops {
		body = append(body, op...)
	}
	h.body = uint32(len(body))
	return append(h.append(nil), body...)
}

func opBytes(kind rdma.Kind, at rdma.Remote, length int, data []byte) []byte {
	return append(wireOp{kind: kind, remote: at, length: uint32(length)}.append(nil), data...)
}
