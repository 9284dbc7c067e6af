package rdmatest

import (
	"bytes"
	"errors"
	"fmt"

	"corfu/rdma"
)

// testMessages sends both ways at once, from memory and inline, and expects the
// messages whole and in order.
func testMessages(e *env) {
	const longest = 2048
	near, far := e.connect(e.listen(), rdma.ConnOptions{MaxMessage: longest, RecvDepth: 64})
	n := trials(3000, 300)
	local := e.alloc(2 * longest)
	message := func(i int) []byte {
		m := make([]byte, 1+i*37%longest)
		fill(m, uint64(i))
		return m
	}
	send := func(c rdma.Conn, buf rdma.Local) error {
		b := rdma.NewBatch(2)
		for i := range n {
			m := message(i)
			b.Reset()
			if len(m) <= rdma.MaxInline {
				b.SendInline(m)
				clear(m) // it may be used again at once
			} else {
				b.Send(rdma.Local{Mem: buf.Mem, Off: buf.Off, Len: copy(buf.Bytes(), m)})
			}
			if err := c.Do(e.ctx, b); err != nil {
				return err
			}
		}
		return nil
	}
	receive := func(c rdma.Conn) error {
		for i := 0; i < n; {
			var bad error
			err := c.Receive(func(got []byte) {
				if want := message(i); !bytes.Equal(got, want) && bad == nil {
					bad = fmt.Errorf("message %d: %d bytes, want %d, or other content", i, len(got), len(want))
				}
				i++
			})
			if err := errors.Join(err, bad); err != nil {
				return err
			}
		}
		return nil
	}
	e.parallel(4, func(i int) error {
		switch i {
		case 0:
			return send(near, local.Slice(0, longest))
		case 1:
			return receive(far)
		case 2:
			return send(far, local.Slice(longest, longest))
		}
		return receive(near)
	})
}

// testMessagesBeforeTheEnd closes the sender: what it sent is still delivered, then comes the error.
func testMessagesBeforeTheEnd(e *env) {
	near, far := e.connect(e.listen(), rdma.ConnOptions{RecvDepth: 100})
	for i := range 50 {
		e.do(near, func(b *rdma.Batch) {
			b.SendInline([]byte{byte(2 * i)})
			b.SendInline([]byte{byte(2*i + 1)})
		})
	}
	e.check(near.Close())
	e.broken("far", far)
	var got []byte
	var err error
	for err == nil {
		err = far.Receive(func(m []byte) { got = append(got, m...) })
	}
	if !errors.Is(err, rdma.ErrBroken) {
		e.Errorf("Receive after the peer closed: %v, want ErrBroken", err)
	}
	if err := near.Receive(func([]byte) { e.Error("a message") }); !errors.Is(err, rdma.ErrClosed) {
		e.Errorf("Receive after Close: %v, want ErrClosed", err)
	}
	want := make([]byte, 100)
	for i := range want {
		want[i] = byte(i)
	}
	e.same("messages", got, want)
}

// testMessageTooLong sends one byte more than the peer takes: both ends break and nothing arrives.
func testMessageTooLong(e *env) {
	near, far := e.connect(e.listen(), rdma.ConnOptions{MaxMessage: 256})
	local := e.alloc(4096)
	e.do(near, func(b *rdma.Batch) { b.Send(local.Slice(0, 256)) })
	b := rdma.NewBatch(1)
	b.Send(local.Slice(0, 257))
	if err := near.Do(e.ctx, b); !errors.Is(err, rdma.ErrRemoteAccess) && !errors.Is(err, rdma.ErrBroken) {
		e.Errorf("message too long: %v, want a refusal", err)
	}
	e.broken("near", near)
	e.broken("far", far)
	var lengths []int
	var err error
	for err == nil {
		err = far.Receive(func(m []byte) { lengths = append(lengths, len(m)) })
	}
	if fmt.Sprint(lengths) != "[256]" {
		e.Errorf("lengths received: %v, want [256]", lengths)
	}
}

// testMessagesWaitForReceiver sends as many as RecvDepth while nobody receives; one-sided
// operations go on meanwhile.
func testMessagesWaitForReceiver(e *env) {
	const depth = 32
	near, far := e.connect(e.listen(), rdma.ConnOptions{RecvDepth: depth})
	m := e.alloc(4096)
	r := e.register(m, 0, 4096, all)
	for i := range depth {
		e.do(near, func(b *rdma.Batch) {
			b.SendInline([]byte{byte(i)})
			b.FetchAdd(r.Remote(0), 1)
		})
	}
	if m.Load(0) != depth {
		e.Errorf("word is %d, want %d", m.Load(0), depth)
	}
	var got []byte
	for len(got) < depth {
		e.check(far.Receive(func(m []byte) { got = append(got, m...) }))
	}
	for i, b := range got {
		if int(b) != i {
			e.Fatalf("messages: %v", got)
		}
	}
}
