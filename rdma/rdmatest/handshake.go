package rdmatest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"corfu/rdma"
)

func testPrivateData(e *env) {
	l := e.listen()
	for _, n := range []int{0, 1, 20, rdma.MaxPrivate} {
		private := make([]byte, n)
		fill(private, uint64(n))
		got := make(chan []byte, 1)
		go func() {
			r, err := l.Accept(e.ctx)
			if err != nil {
				e.Error(err)
				close(got)
				return
			}
			p := bytes.Clone(r.Private())
			c, err := r.Accept(e.ctx, rdma.ConnOptions{})
			if err != nil {
				e.Error(err)
			} else {
				e.onClose(0, c.Close)
			}
			got <- p
		}()
		c, err := e.dev.Dial(e.ctx, l.Addr(), private, rdma.ConnOptions{})
		e.check(err)
		e.onClose(0, c.Close)
		if p := <-got; !bytes.Equal(p, private) {
			e.Errorf("private data %x, want %x", p, private)
		}
	}
	_, err := e.dev.Dial(e.ctx, l.Addr(), make([]byte, rdma.MaxPrivate+1), rdma.ConnOptions{})
	if !errors.Is(err, rdma.ErrInvalid) {
		e.Errorf("too much private data: %v, want ErrInvalid", err)
	}
}

func testReject(e *env) {
	l := e.listen()
	for _, reason := range []string{"", "no such session", strings.Repeat("x", 100)} {
		go func() {
			r, err := l.Accept(e.ctx)
			if err == nil {
				err = r.Reject(reason)
			}
			if err != nil {
				e.Error(err)
			}
		}()
		_, err := e.dev.Dial(e.ctx, l.Addr(), []byte("let me in"), rdma.ConnOptions{})
		var rejected *rdma.RejectError
		if !errors.Is(err, rdma.ErrRejected) || !errors.As(err, &rejected) || rejected.Reason != reason {
			e.Errorf("dial: %v, want a rejection for %q", err, reason)
		}
	}
	// The listener is none the worse for it.
	near, _ := e.connect(l, rdma.ConnOptions{})
	m := e.alloc(4096)
	e.works("after a rejection", near, m.Slice(0, 8), e.register(m, 64, 64, all).Remote(0))
}

func testDialNobody(e *env) {
	l := e.listen()
	addr := l.Addr()
	e.check(l.Close())
	c, err := e.dev.Dial(e.ctx, addr, nil, rdma.ConnOptions{})
	if err == nil {
		_ = c.Close()
		e.Error("dialled a listener that is closed")
	}
}

// testDialContext dials a listener that answers nobody.
func testDialContext(e *env) {
	l := e.listen()
	ctx, cancel := context.WithTimeout(e.ctx, 100*time.Millisecond)
	defer cancel()
	c, err := e.dev.Dial(ctx, l.Addr(), nil, rdma.ConnOptions{})
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		e.Errorf("dial: %v, want the context's error", err)
	}
	if _, err := e.listen().Accept(ctx); !errors.Is(err, context.DeadlineExceeded) {
		e.Errorf("accept: %v, want the context's error", err)
	}
}

// testListenerClose closes a listener that someone waits at, and one that has connections.
func testListenerClose(e *env) {
	l := e.listen()
	near, _ := e.connect(l, rdma.ConnOptions{})
	done := make(chan error)
	go func() {
		_, err := l.Accept(e.ctx)
		done <- err
	}()
	time.Sleep(5 * time.Millisecond) // so that it waits, most of the time
	e.check(l.Close())
	e.check(l.Close())
	if err := <-done; !errors.Is(err, rdma.ErrClosed) {
		e.Errorf("accept: %v, want ErrClosed", err)
	}
	if _, err := l.Accept(e.ctx); !errors.Is(err, rdma.ErrClosed) {
		e.Errorf("accept after close: %v, want ErrClosed", err)
	}
	m := e.alloc(4096)
	e.works("connection of a closed listener", near, m.Slice(0, 8), e.register(m, 64, 64, all).Remote(0))
}
