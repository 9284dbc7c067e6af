package sim

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"corfu/internal/sleep"
)

// The control plane: gRPC's generated clients and servers, with the network between them taken out. A client connection gets
// interceptors that never call the transport; a server gets a listener that takes services itself. So a call is two packets
// of the simulated network, which may be late, lost or doubled, and never a socket, which would stop the bubble's clock.

// endpoint is what listens at one address.
type endpoint struct {
	host   *Host
	addr   string
	closed chan struct{}
	once   sync.Once

	// turn is held by a call while it runs, but for where it waits for messages of a stream. It stands for the locks that
	// a server takes: a goroutine that waits for a mutex would stop the bubble's clock. Nil: calls run beside each other.
	turn    chan struct{}
	methods map[string]method
}

// method is one method of a service.
type method struct {
	impl   any
	unary  grpc.MethodHandler
	stream grpc.StreamHandler
}

var (
	_ net.Listener          = (*endpoint)(nil)
	_ grpc.ServiceRegistrar = (*endpoint)(nil)
)

// Control opens a control listener of the host. alone: one call at a time.
func (h *Host) Control(addr string, alone bool) *endpoint {
	e := &endpoint{host: h, addr: addr, closed: make(chan struct{}), methods: map[string]method{}}
	if alone {
		e.turn = make(chan struct{}, 1)
	}
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	h.f.services[addr] = e
	return e
}

func (e *endpoint) RegisterService(d *grpc.ServiceDesc, impl any) {
	e.host.f.mu.Lock()
	defer e.host.f.mu.Unlock()
	for _, m := range d.Methods {
		e.methods["/"+d.ServiceName+"/"+m.MethodName] = method{impl: impl, unary: m.Handler}
	}
	for _, s := range d.Streams {
		e.methods["/"+d.ServiceName+"/"+s.StreamName] = method{impl: impl, stream: s.Handler}
	}
}

func (e *endpoint) take() {
	if e.turn != nil {
		e.turn <- struct{}{}
	}
}

func (e *endpoint) give() {
	if e.turn != nil {
		<-e.turn
	}
}

func (e *endpoint) Accept() (net.Conn, error) {
	<-e.closed
	return nil, net.ErrClosed
}

func (e *endpoint) Close() error {
	e.once.Do(func() {
		close(e.closed)
		f := e.host.f
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.services[e.addr] == e {
			delete(f.services, e.addr)
		}
	})
	return nil
}

func (e *endpoint) Addr() net.Addr { return address(e.addr) }

type address string

func (a address) Network() string { return "sim" }
func (a address) String() string  { return string(a) }

// DialOptions make gRPC connections of the host travel through the simulation.
func (h *Host) DialOptions() []grpc.DialOption {
	p := &plane{h: h, rand: h.f.chance("control " + h.name)}
	return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(p.call), grpc.WithStreamInterceptor(p.open)}
}

// plane is a host's side of the control plane.
type plane struct {
	h    *Host
	rand *rand.Rand // under the fabric's lock
}

var (
	errNobody = status.Error(codes.Unavailable, "sim: nobody answers there")
	errCut    = status.Error(codes.Unavailable, "sim: connection lost")
)

// travel takes one packet from a host to another, and fails if it gets lost: after a while, or with the caller's context.
func (p *plane) travel(ctx context.Context, from, to string, lossy bool) error {
	f := p.h.f
	f.mu.Lock()
	d := f.latency(p.rand)
	lost := lossy && p.rand.Float64() < f.weird.Lost
	f.mu.Unlock()
	if sleep.For(ctx, d) != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	f.mu.Lock()
	cut := f.blocked[[2]string{from, to}]
	f.mu.Unlock()
	if !lost && !cut {
		return nil
	}
	if sleep.For(ctx, cutPatience) != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return errCut
}

// cutPatience is how long it takes to learn that a control connection is dead.
const cutPatience = 300 * time.Millisecond

func (p *plane) find(cc *grpc.ClientConn, name string) (*endpoint, method, error) {
	f := p.h.f
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.services[strings.TrimPrefix(cc.Target(), "passthrough:///")]
	if e == nil || p.h.dead {
		return nil, method{}, errNobody
	}
	m, ok := e.methods[name]
	if !ok {
		return nil, m, errNobody // it is about to start
	}
	return e, m, nil
}

// call is a unary call.
func (p *plane) call(ctx context.Context, name string, req, reply any, cc *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
	f := p.h.f
	f.runs(p.h.name)
	f.held(p.h.name, name)
	e, m, err := p.find(cc, name)
	if err != nil {
		_ = sleep.For(ctx, latencyMax)
		return err
	}
	if err := p.travel(ctx, p.h.name, e.host.name, true); err != nil {
		return err
	}
	f.mu.Lock()
	double := p.rand.Float64() < f.weird.Duplicate
	after := f.latency(p.rand) * time.Duration(1+p.rand.IntN(200))
	f.mu.Unlock()
	q := proto.Clone(req.(proto.Message))
	if double {
		go func() {
			time.Sleep(after)
			_, _ = e.serve(context.Background(), m, q)
		}()
	}
	type answer struct {
		m   any
		err error
	}
	done := make(chan answer, 1)
	far, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		a, err := e.serve(far, m, q)
		done <- answer{a, err}
	}()
	var a answer
	select {
	case a = <-done:
		cancel()
	case <-ctx.Done():
		cancel() // the server learns of it; a handler may go on all the same
		return status.FromContextError(ctx.Err()).Err()
	case <-e.closed:
		cancel()
		return errCut
	}
	if err := p.travel(ctx, e.host.name, p.h.name, true); err != nil {
		return err
	}
	f.runs(p.h.name)
	if a.err != nil {
		return status.Convert(a.err).Err()
	}
	proto.Merge(reply.(proto.Message), a.m.(proto.Message))
	return nil
}

// serve runs a handler at the server.
func (e *endpoint) serve(ctx context.Context, m method, q proto.Message) (any, error) {
	e.host.f.runs(e.host.name)
	e.take()
	defer e.give()
	select {
	case <-e.closed:
		return nil, errNobody
	default:
	}
	return m.unary(m.impl, ctx, func(into any) error {
		proto.Merge(into.(proto.Message), q)
		return nil
	}, nil)
}

// open opens a stream.
func (p *plane) open(ctx context.Context, _ *grpc.StreamDesc, cc *grpc.ClientConn, name string, _ grpc.Streamer, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	f := p.h.f
	f.runs(p.h.name)
	f.held(p.h.name, name)
	e, m, err := p.find(cc, name)
	if err == nil {
		err = p.travel(ctx, p.h.name, e.host.name, false)
	} else {
		_ = sleep.For(ctx, latencyMax)
	}
	if err != nil {
		return nil, err
	}
	far, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &stream{p: p, e: e, ctx: ctx, far: far, cancel: cancel, up: newHalf(), down: newHalf()}
	context.AfterFunc(ctx, s.cut)
	go s.watch()
	go func() {
		f.runs(e.host.name)
		e.take()
		err := m.stream(m.impl, serverSide{s: s})
		e.give()
		s.cancel()
		s.down.end(err)
	}()
	return s, nil
}

// stream is the client's side of a stream, and what both share.
type stream struct {
	grpc.ClientStream
	p        *plane
	e        *endpoint
	ctx, far context.Context
	cancel   context.CancelFunc
	up, down *half
}

// watch ends the stream with either host.
func (s *stream) watch() {
	select {
	case <-s.e.closed:
		s.cut()
	case <-s.far.Done():
	}
}

// cut breaks the stream.
func (s *stream) cut() {
	s.cancel()
	s.up.end(errCut)
	s.down.end(errCut)
}

func (s *stream) send(ctx context.Context, h *half, from, to string, m any) error {
	// It travels behind what was sent before, since its sender waits for its time.
	if err := s.p.travel(ctx, from, to, false); err != nil {
		s.cut()
		return io.EOF
	}
	return h.put(s.p.h.f.mutate(proto.Clone(m.(proto.Message))))
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) SendMsg(m any) error {
	s.p.h.f.runs(s.p.h.name)
	return s.send(s.ctx, s.up, s.p.h.name, s.e.host.name, m)
}

func (s *stream) CloseSend() error {
	s.up.end(io.EOF)
	return nil
}

func (s *stream) RecvMsg(m any) error {
	err := s.down.take(m)
	s.p.h.f.runs(s.p.h.name)
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return err
	case s.ctx.Err() != nil:
		return status.FromContextError(s.ctx.Err()).Err()
	}
	return status.Convert(err).Err()
}

// serverSide is the server's side.
type serverSide struct {
	grpc.ServerStream
	s *stream
}

var _ grpc.ServerStream = serverSide{}

func (x serverSide) Context() context.Context { return x.s.far }

func (x serverSide) SendMsg(m any) error {
	x.s.e.give()
	defer x.s.e.take()
	if x.s.send(x.s.far, x.s.down, x.s.e.host.name, x.s.p.h.name, m) != nil {
		return errCut
	}
	return nil
}

func (x serverSide) RecvMsg(m any) error {
	x.s.e.give()
	defer x.s.e.take()
	err := x.s.up.take(m)
	x.s.p.h.f.runs(x.s.e.host.name)
	return err
}

// half is one direction of a stream.
type half struct {
	mu   sync.Mutex
	list []proto.Message
	err  error
	wake chan struct{}
}

func newHalf() *half { return &half{wake: make(chan struct{}, 1)} }

func (h *half) put(m proto.Message) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return io.EOF
	}
	h.list = append(h.list, m)
	h.signal()
	return nil
}

// end ends the direction: what was sent is still taken, then err (nil: io.EOF). The first end counts.
func (h *half) end(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		if h.err = err; err == nil {
			h.err = io.EOF
		}
	}
	h.signal()
}

func (h *half) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *half) take(into any) error {
	for {
		h.mu.Lock()
		if len(h.list) > 0 {
			m := h.list[0]
			h.list = h.list[1:]
			h.mu.Unlock()
			proto.Merge(into.(proto.Message), m)
			return nil
		}
		err := h.err
		h.mu.Unlock()
		if err != nil {
			return err
		}
		<-h.wake
	}
}
