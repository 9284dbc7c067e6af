package server

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	"corfu/internal/messages"
	"corfu/rdma"
)

// fabricLink is the message connection to a member, over which it is sealed besides the control plane. It is opened over the
// control plane while that works, so that it stands when that does not. Nil: this server has no fabric.
type fabricLink struct {
	dev   rdma.Device
	cc    grpc.ClientConnInterface
	ctx   context.Context
	end   context.CancelFunc
	opens sync.WaitGroup

	mu      sync.Mutex
	conn    *messages.Conn
	opening bool
	next    time.Time // no attempt before
	backoff time.Duration
}

const (
	linkTimeout    = 2 * time.Second
	linkBackoffMax = 10 * time.Second
)

func newFabricLink(dev rdma.Device, cc grpc.ClientConnInterface) *fabricLink {
	if dev == nil {
		return nil
	}
	f := &fabricLink{dev: dev, cc: cc}
	f.ctx, f.end = context.WithCancel(context.Background())
	return f
}

// current is the connection, if one stands.
func (f *fabricLink) current() *messages.Conn {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn == nil || !f.conn.Alive() {
		return nil
	}
	return f.conn
}

// keep opens a connection in the background, if none stands and it is time. It is called with each heartbeat that is answered.
func (f *fabricLink) keep() {
	if f == nil || f.current() != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opening || time.Now().Before(f.next) || f.ctx.Err() != nil {
		return
	}
	old := f.conn
	f.conn, f.opening = nil, true
	f.opens.Go(func() {
		if old != nil {
			old.Close()
		}
		ctx, cancel := context.WithTimeout(f.ctx, linkTimeout)
		defer cancel()
		c, err := messages.Open(ctx, f.cc, f.dev, messages.Sealer)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.conn, f.opening = c, false
		if f.backoff = min(max(2*f.backoff, backoffMin), linkBackoffMax); err == nil {
			f.backoff = 0
		}
		f.next = time.Now().Add(f.backoff)
	})
}

func (f *fabricLink) close() {
	if f == nil {
		return
	}
	f.end()
	f.opens.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn != nil {
		f.conn.Close()
		f.conn = nil
	}
}
