package server

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	"corfu/internal/control"
	"corfu/internal/wire/pb"
)

const (
	// othersPatience is how long another layout server may take to say how it is.
	othersPatience = 300 * time.Millisecond
	// othersFresh is for how long an answer stands: a page that many look at asks no more often.
	othersFresh = time.Second
)

// others are the connections to the other layout servers, for those who look on; consensus has its own.
type others struct {
	options []grpc.DialOption

	mu     sync.Mutex // held while they are asked: whoever comes meanwhile gets the same answer
	asked  time.Time
	known  []*pb.LayoutServerStatus
	connMu sync.Mutex
	conns  map[string]*grpc.ClientConn
	closed bool
}

// dial gives the connection to a layout server.
func (o *others) dial(addr string) (*grpc.ClientConn, error) {
	o.connMu.Lock()
	defer o.connMu.Unlock()
	if o.closed {
		return nil, context.Canceled
	}
	if c := o.conns[addr]; c != nil {
		return c, nil
	}
	c, err := control.Dial(addr, o.options...)
	if err != nil {
		return nil, err
	}
	if o.conns == nil {
		o.conns = map[string]*grpc.ClientConn{}
	}
	o.conns[addr] = c
	return c, nil
}

// states tells how all layout servers are, s itself included.
func (o *others) states(ctx context.Context, s *Server) []*pb.LayoutServerStatus {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.asked) < othersFresh {
		return o.known
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), othersPatience) // its answer is not the caller's alone
	defer cancel()
	list := make([]*pb.LayoutServerStatus, len(s.store.servers))
	var wg sync.WaitGroup
	for i, p := range s.store.servers {
		wg.Go(func() {
			if p.ID == s.store.self {
				p.Control = s.ControlAddr()
				a, _ := stateService{s: s}.State(ctx, nil)
				list[i] = serverStatus(p, a)
				return
			}
			conn, err := o.dial(p.Control)
			var a *pb.LayoutServerState
			if err == nil {
				a, err = pb.NewLayoutServerServiceClient(conn).State(ctx, &pb.LayoutServerStateRequest{})
			}
			if err != nil {
				list[i] = unreachableServer(p, err)
				return
			}
			list[i] = serverStatus(p, a)
		})
	}
	wg.Wait()
	o.known, o.asked = list, time.Now()
	return list
}

func (o *others) close() {
	o.connMu.Lock()
	defer o.connMu.Unlock()
	o.closed = true
	for _, c := range o.conns {
		_ = c.Close()
	}
}
