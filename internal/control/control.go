// Package control opens the ends of the control plane: gRPC listeners and connections. In clear they stay on loopback,
// unless the caller insists.
package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"corfu/internal/certs"
)

// ErrClear: the address is not on loopback and the traffic would be in clear. Whoever reaches the control plane so can seal and
// wipe units: give it certificates, or say that the network is trusted.
var ErrClear = errors.New("refused outside loopback in clear (give --tls-ca, --tls-cert and --tls-key, or say --insecure)")

// FreePort is the address that servers listen on unless they are told: a port of loopback that is free.
const FreePort = "127.0.0.1:0"

// MaxMessage bounds a gRPC message, in bytes: senders of pages stay far below.
const MaxMessage = 4 << 20

// What a peer can take of a control port, at most.
const (
	maxConnections = 8192 // more wait in the kernel's queue
	maxStreams     = 256  // calls at a time on one connection
	maxHeaders     = 16 << 10
	handshakeTime  = certs.HandshakeTimeout // to be through with TLS and HTTP/2's preface
)

// Listen opens a TCP listener on "host:port"; port 0 takes a free one. secured says that the caller has credentials,
// trusted that the network needs none. It fails with ErrClear.
func Listen(addr string, secured, trusted bool) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("control address %q: %w", addr, err)
	}
	if !secured && !trusted && !Loopback(host) {
		return nil, fmt.Errorf("control address %q: %w", addr, ErrClear)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return netutil.LimitListener(l, maxConnections), nil
}

// ListenOr is Listen, unless there is a listener already.
func ListenOr(l net.Listener, addr string, secured, trusted bool) (net.Listener, error) {
	if l != nil {
		return l, nil
	}
	return Listen(addr, secured, trusted)
}

// Loopback tells whether a host, as an address names it, is this machine alone.
func Loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Serve makes a gRPC server on the listener's side; no options mean no credentials. Who may call what stands in one table (roles.go).
func Serve(options ...grpc.ServerOption) *grpc.Server {
	own := append(ours.serve(), grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage), grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaders), grpc.ConnectionTimeout(handshakeTime),
		grpc.ChainUnaryInterceptor(authorizeUnary), grpc.ChainStreamInterceptor(authorizeStream))
	return grpc.NewServer(append(own, options...)...)
}

// Registrar is where a server registers its services: with gRPC, and with the listener as well if that takes services itself. A simulated
// listener does, and calls them without a network in between.
func Registrar(s *grpc.Server, l net.Listener) grpc.ServiceRegistrar {
	if own, ok := l.(grpc.ServiceRegistrar); ok {
		return both{s, own}
	}
	return s
}

type both [2]grpc.ServiceRegistrar

// RegisterService implements grpc.ServiceRegistrar.
func (b both) RegisterService(d *grpc.ServiceDesc, impl any) {
	for _, r := range b {
		r.RegisterService(d, impl)
	}
}

// Stop ends a server gracefully, and its connections after the grace period.
func Stop(s *grpc.Server, grace time.Duration) {
	done := make(chan struct{})
	go func() { s.GracefulStop(); close(done) }()
	select {
	case <-done:
	case <-time.After(grace):
		s.Stop()
		<-done
	}
}

// unanswered is how long a peer may leave what was sent unacknowledged before the connection counts as broken. TCP itself waits twice as long from try to
// try, up to two minutes: a network that was cut for a while, or a machine that came back, would be noticed as much later.
const unanswered = 3 * time.Second

// giveUp sets it, before a connection is made.
func giveUp(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unanswered.Milliseconds()))
	}); e != nil {
		return e
	}
	return err
}

// Dial makes a connection to "host:port", which is established when it is first used and again whenever it broke.
// No options mean no credentials. A proxy of the environment is not for it.
func Dial(addr string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	if len(options) == 0 {
		options = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	// A peer that comes back is to be noticed at once: gRPC's own back-off goes up to two minutes.
	retry := grpc.ConnectParams{MinConnectTimeout: 2 * time.Second,
		Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}}
	// Escaped: a target is a URL, and an operator's address may be anything, such as that of a link with its zone, [fe80::1%eth0]:7000.
	return grpc.NewClient("passthrough:///"+url.PathEscape(addr), append(append(append(ours.dial(), passOn()...),
		grpc.WithNoProxy(), grpc.WithConnectParams(retry),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{Control: giveUp}).DialContext(ctx, "tcp", addr)
		}),
	), options...)...)
}
