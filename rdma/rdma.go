package rdma

import (
	"context"
	"time"
)

// Access is what peers may do to a region.
type Access uint8

// The rights of a region; combine with |.
const (
	RemoteRead Access = 1 << iota
	RemoteWrite
	RemoteAtomic // CompareSwap and FetchAdd
)

// MaxPrivate is the longest private data of a connection request, in bytes: what
// rdma_cm leaves of the 92 bytes of an InfiniBand CM REQ for RDMA_PS_TCP
// (rdma_connect(3): 56), less one for its length, which rdma_cm does not carry.
const MaxPrivate = 55

// Info describes an open device.
type Info struct {
	Provider    string // "verbs" or "tcp"
	Name        string // "mlx5_0", "rxe0", "tcp"
	Addr        string // address that listeners bind to by default, without port
	MaxRDAtomic int    // READs and atomics in flight on one connection
}

// Device is an open fabric endpoint. Safe for many goroutines.
type Device interface {
	Info() Info

	// Alloc maps memory of at least size bytes, zeroed, for local and remote use.
	Alloc(size int) (*Memory, error)

	// Register lets peers reach [off, off+n) of m with the rights a, until the
	// Region is closed. Several regions may cover the same bytes.
	Register(m *Memory, off, n int, a Access) (Region, error)

	// Listen waits for connections on "host:port"; port 0 takes a free one.
	Listen(addr string) (Listener, error)

	// Dial connects to a listener. private (at most MaxPrivate bytes) reaches it as
	// Request.Private. A refusal is a *RejectError.
	Dial(ctx context.Context, addr string, private []byte, o ConnOptions) (Conn, error)

	// Close closes the device, once all its connections, regions and memory are closed.
	Close() error
}

// Region is memory that peers may reach.
type Region interface {
	Key() RKey

	// Remote is the place off bytes into the region, as peers name it.
	Remote(off int) Remote

	// Close revokes the key. After it returned, no remote operation on the region
	// takes effect (rule R15). It may not hang for ever: after 5 s an error says so,
	// and the memory must be leaked. Idempotent.
	Close() error
}

// Listener accepts connections.
type Listener interface {
	// Addr is "host:port" as peers dial it.
	Addr() string
	// Accept waits for the next request. It returns ErrClosed after Close.
	Accept(ctx context.Context) (Request, error)
	Close() error
}

// Request is a peer's wish to connect. Exactly one of Accept and Reject is called.
type Request interface {
	Private() []byte
	RemoteAddr() string
	Accept(ctx context.Context, o ConnOptions) (Conn, error)
	// Reject refuses, with a reason of at most 100 bytes for the peer's error.
	Reject(reason string) error
}

// ConnOptions are the sizes of a connection. Zero fields take the default.
type ConnOptions struct {
	SendDepth   int           // operations in flight; default 256, 1 to 8192
	RecvDepth   int           // messages that may arrive unread; default 256. The peer's protocol must not send more
	MaxMessage  int           // longest message received, in bytes; default 512, at most 1 MiB
	MaxRDAtomic int           // READs and atomics in flight, each way; default and limit: the device's
	Spin        time.Duration // how long Do and Wait poll before they sleep; default 20 µs; negative: not at all
	AckTimeout  time.Duration // until the transport sends again; default 67 ms (IB encodes 4.096 µs × 2^n)
	RetryCount  int           // sends again before the connection breaks; default 5, 1 to 6. 7 is "for ever" on some NICs
}

// DefaultConnOptions are what zero fields of ConnOptions stand for.
func DefaultConnOptions() ConnOptions {
	return ConnOptions{SendDepth: 256, RecvDepth: 256, MaxMessage: 512, Spin: 20 * time.Microsecond, AckTimeout: 67 * time.Millisecond, RetryCount: 5}
}

// WithDefaults fills in the zero fields.
func (o ConnOptions) WithDefaults() ConnOptions {
	d := DefaultConnOptions()
	if o.SendDepth == 0 {
		o.SendDepth = d.SendDepth
	}
	if o.RecvDepth == 0 {
		o.RecvDepth = d.RecvDepth
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = d.MaxMessage
	}
	if o.Spin == 0 {
		o.Spin = d.Spin
	}
	if o.AckTimeout == 0 {
		o.AckTimeout = d.AckTimeout
	}
	if o.RetryCount == 0 {
		o.RetryCount = d.RetryCount
	}
	return o
}

// Conn is a reliable connection (an RC queue pair). Post, Wait and Do are safe
// for many goroutines; whoever waits reaps for all. Receive is for one goroutine.
type Conn interface {
	// Post hands b to the device as one doorbell and returns. It blocks while the
	// send queue has no room for all of b. An error means that nothing was posted.
	Post(ctx context.Context, b *Batch) error

	// Wait returns once b is complete: nil or an *OpError. If ctx ends first it
	// returns ctx's error and b stays in flight: b and the memory it names may be
	// neither used nor freed until a later Wait took its completion, or until Close returned.
	Wait(ctx context.Context, b *Batch) error

	// Do is Post and Wait in one: a single cgo crossing if the answer comes within Spin.
	// If it fails before posting, b is not in flight (Batch.InFlight tells).
	Do(ctx context.Context, b *Batch) error

	// Receive waits for at least one message and calls fn for each that has arrived, in
	// order. msg is valid during the call only. It fails with ErrBroken or ErrClosed once no
	// message can come any more; messages that arrived before are delivered first.
	Receive(fn func(msg []byte)) error

	// Broken is closed once the connection is broken or closed. A peer that went without a word, as one whose machine lost its power,
	// is found out within half a minute, also where nothing is posted.
	Broken() <-chan struct{}

	// Err is why the connection broke, or nil.
	Err() error

	RemoteAddr() string

	// Close ends the connection. All batches in flight complete, with ErrBroken if
	// their outcome is unknown; after it returned the device touches no memory on the
	// connection's behalf. Idempotent.
	Close() error
}
