package rdmatest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"corfu/rdma"
)

const all = rdma.RemoteRead | rdma.RemoteWrite | rdma.RemoteAtomic

// env is a test, its device, and all it opened, closed in the order that a device needs.
type env struct {
	*testing.T
	ctx  context.Context // ends after patience, and longer with very many trials
	dev  rdma.Device
	rand *rand.Rand // of the test's goroutine

	mu    sync.Mutex
	close [4][]func() error // connections, listeners, regions, memory
}

func newEnv(t *testing.T, open Open) *env {
	seed := rand.Uint64()
	// The trials of a race may take an emulated processor minutes.
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience*time.Duration(max(1, *trialsFlag/20_000)))
	e := &env{T: t, ctx: ctx, dev: open(t), rand: rand.New(rand.NewPCG(seed, 0))}
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			t.Logf("seed %#x", seed)
		}
		for _, list := range e.close {
			for _, f := range list {
				e.check(f())
			}
		}
		if err := e.dev.Close(); err != nil {
			t.Errorf("close device: %v", err)
		}
	})
	return e
}

func (e *env) onClose(class int, f func() error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.close[class] = append(e.close[class], f)
}

// check ends the test on an error.
func (e *env) check(err error) {
	if err != nil {
		e.Helper()
		e.Fatal(err)
	}
}

func (e *env) alloc(size int) *rdma.Memory {
	e.Helper()
	m, err := e.dev.Alloc(size)
	e.check(err)
	e.onClose(3, m.Close)
	return m
}

func (e *env) register(m *rdma.Memory, off, n int, a rdma.Access) rdma.Region {
	e.Helper()
	r, err := e.dev.Register(m, off, n, a)
	e.check(err)
	e.onClose(2, r.Close)
	return r
}

func (e *env) listen() rdma.Listener {
	e.Helper()
	l, err := e.dev.Listen(net.JoinHostPort(e.dev.Info().Addr, "0"))
	e.check(err)
	e.onClose(1, l.Close)
	return l
}

// connect dials the listener. near is the end that dialled.
func (e *env) connect(l rdma.Listener, o rdma.ConnOptions) (near, far rdma.Conn) {
	e.Helper()
	near, far, err := e.tryConnect(l, o)
	e.check(err)
	return near, far
}

// tryConnect is connect for goroutines of a test. One at a time may use a listener.
func (e *env) tryConnect(l rdma.Listener, o rdma.ConnOptions) (near, far rdma.Conn, err error) {
	type result struct {
		c   rdma.Conn
		err error
	}
	accepted := make(chan result, 1)
	go func() {
		r, err := l.Accept(e.ctx)
		if err != nil {
			accepted <- result{nil, err}
			return
		}
		c, err := r.Accept(e.ctx, o)
		accepted <- result{c, err}
	}()
	near, err = e.dev.Dial(e.ctx, l.Addr(), nil, o)
	if err == nil {
		e.onClose(0, near.Close)
	}
	a := <-accepted
	if a.err == nil {
		far = a.c
		e.onClose(0, far.Close)
	}
	return near, far, errors.Join(err, a.err)
}

// pair is a connection with default sizes.
func (e *env) pair() (near, far rdma.Conn) {
	e.Helper()
	return e.connect(e.listen(), rdma.ConnOptions{})
}

// do runs one batch that must succeed.
func (e *env) do(c rdma.Conn, fill func(b *rdma.Batch)) *rdma.Batch {
	e.Helper()
	b := rdma.NewBatch(4)
	fill(b)
	e.check(c.Do(e.ctx, b))
	return b
}

// parallel runs f n times at once and ends the test on any error.
func (e *env) parallel(n int, f func(i int) error) {
	e.Helper()
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = f(i)
		}()
	}
	wg.Wait()
	e.check(errors.Join(errs...))
}

// broken waits until the connection says that it is broken.
func (e *env) broken(who string, c rdma.Conn) {
	e.Helper()
	select {
	case <-c.Broken():
	case <-e.ctx.Done():
		e.Fatalf("%s end: connection not broken", who)
	}
	if c.Err() == nil {
		e.Errorf("%s end: broken, but Err is nil", who)
	}
}

// refusesPosts checks that nothing more can be posted.
func (e *env) refusesPosts(who string, c rdma.Conn, target rdma.Remote) {
	e.Helper()
	b := rdma.NewBatch(1)
	b.FetchAdd(target, 1)
	if err := c.Post(e.ctx, b); !errors.Is(err, rdma.ErrClosed) || errors.Is(err, rdma.ErrBroken) {
		e.Errorf("%s end: post on a broken connection: %v, want ErrClosed alone", who, err)
	}
	if b.InFlight() {
		e.Errorf("%s end: batch in flight after a post that failed", who)
	}
}

// works checks that a connection is fit for a WRITE.
func (e *env) works(who string, c rdma.Conn, src rdma.Local, dst rdma.Remote) {
	e.Helper()
	b := rdma.NewBatch(1)
	b.Write(src, dst)
	if err := c.Do(e.ctx, b); err != nil {
		e.Errorf("%s: %v", who, err)
	}
}

// same reports where two copies of memory differ.
func (e *env) same(what string, got, want []byte) {
	e.Helper()
	if bytes.Equal(got, want) {
		return
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			e.Errorf("%s: byte %d is %#x, want %#x", what, i, got[i], want[i])
			return
		}
	}
	e.Errorf("%s: %d bytes, want %d", what, len(got), len(want))
}

// fill puts a pattern that depends on seed.
func fill(b []byte, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
}

// settle gives late operations time to show themselves.
func settle() { time.Sleep(20 * time.Millisecond) }
