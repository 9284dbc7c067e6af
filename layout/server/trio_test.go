package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"corfu/internal/control"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

const (
	mortal = 300 * time.Millisecond
	calm   = 1500 * time.Millisecond
)

// trio is a cluster with three layout servers, whose Raft connections can be cut.
type trio struct {
	*cluster
	net     *network
	peers   []Peer
	servers map[uint16]*Server // that run
	asked   *control.Layouts
	disks   map[uint16]*faultyDisk // of those servers whose disks a test spoils
}

// newTrio starts three servers. Those whose leader is to die want a short election time-out; where one election too many, on a
// machine that has no time for its heartbeats, would spoil what is shown, a long one.
func newTrio(t *testing.T, election time.Duration) *trio { return trioOf(newCluster(t), election) }

func trioOf(of *cluster, election time.Duration) *trio { return trioWith(of, election, nil) }

func trioWith(of *cluster, election time.Duration, disks map[uint16]*faultyDisk) *trio {
	t := of.t
	c := &trio{cluster: of, disks: disks, servers: map[uint16]*Server{}, net: &network{cut: map[uint16]bool{}, conns: map[net.Conn][2]uint16{}}}
	var listeners [][2]net.Listener
	for id := uint16(1); id <= 3; id++ {
		l := [2]net.Listener{memoryListen(t, ""), memoryListen(t, "")}
		listeners = append(listeners, l)
		c.peers = append(c.peers, Peer{id, l[0].Addr().String(), l[1].Addr().String()})
	}
	c.net.peers, c.cfg.Election = c.peers, election
	var addrs []string
	conns := map[string]*grpc.ClientConn{}
	for i, p := range c.peers {
		addrs = append(addrs, p.Control)
		conn, err := control.Dial(p.Control, memoryDial()...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		conns[p.Control] = conn
		c.startServer(p.ID, listeners[i][0], listeners[i][1])
	}
	c.asked = control.NewLayouts(addrs, func(addr string) (grpc.ClientConnInterface, error) { return conns[addr], nil })
	c.client = func() pb.LayoutServiceClient { return asking{l: c.asked} }
	t.Cleanup(func() {
		for id := range c.servers {
			c.stopServer(id)
		}
	})
	return c
}

func listen(t *testing.T, addr string) (l net.Listener) {
	t.Helper()
	await(t, "listen at "+addr, func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	return l
}

func (c *trio) startServer(id uint16, control, raft net.Listener) {
	c.t.Helper()
	cfg := c.cfg
	cfg.ID, cfg.Servers, cfg.Dir = id, c.peers, filepath.Join(c.cfg.Dir, fmt.Sprint(id))
	cfg.ControlListener, cfg.RaftListener, cfg.network = control, raft, c.net.of(id)
	cfg.Logger = cfg.Logger.With("server", id)
	if d := c.disks[id]; d != nil {
		cfg.openLog = d.open
	}
	s, err := Start(context.Background(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.servers[id] = s
}

// restart starts a server that was stopped, or killed.
func (c *trio) restart(id uint16) {
	c.t.Helper()
	c.net.join(id)
	p := c.peers[id-1]
	c.startServer(id, memoryListen(c.t, p.Control), memoryListen(c.t, p.Raft))
}

func (c *trio) stopServer(id uint16) {
	c.t.Helper()
	if err := c.servers[id].Close(); err != nil {
		c.t.Error(err)
	}
	delete(c.servers, id)
}

// leader waits until one of the servers, but for those named, leads and says so.
func (c *trio) leader(but ...uint16) *Server {
	c.t.Helper()
	var leader *Server
	await(c.t, "a leader", func() error {
		for id, s := range c.servers {
			if len(but) > 0 && id == but[0] {
				continue
			}
			if _, err := s.store.verify(); err == nil && s.manager.status().leader {
				leader = s
				return nil
			}
		}
		return errors.New("none")
	})
	return leader
}

// agree waits until all servers hold the same state, byte for byte, and gives it.
func (c *trio) agree() *layout.State {
	c.t.Helper()
	var first []byte
	await(c.t, "all servers agree", func() error {
		first = nil
		for id, s := range c.servers {
			var b []byte
			s.store.fsm.view(func(st *layout.State) { b = st.Snapshot() })
			if first == nil {
				first = b
			} else if !bytes.Equal(first, b) {
				return fmt.Errorf("server %d holds another state", id)
			}
		}
		return nil
	})
	st, err := layout.Restore(first)
	if err != nil {
		c.t.Fatal(err)
	}
	return st
}

// asking is a client that finds the leader.
type asking struct {
	pb.LayoutServiceClient
	l *control.Layouts
}

func (a asking) Get(ctx context.Context, q *pb.GetRequest, o ...grpc.CallOption) (*pb.Layout, error) {
	return control.Ask(ctx, a.l, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.Layout, error) { return c.Get(ctx, q, o...) })
}

func (a asking) Status(ctx context.Context, q *pb.StatusRequest, o ...grpc.CallOption) (*pb.StatusReply, error) {
	return control.Ask(ctx, a.l, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.StatusReply, error) {
		return c.Status(ctx, q, o...)
	})
}

func (a asking) Reconfigure(ctx context.Context, q *pb.ReconfigureRequest, o ...grpc.CallOption) (*pb.Layout, error) {
	return control.Ask(ctx, a.l, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.Layout, error) {
		return c.Reconfigure(ctx, q, o...)
	})
}

// network stands between Raft and TCP: a server that is cut off reaches no other, and none reaches it.
type network struct {
	peers []Peer

	mu    sync.Mutex
	cut   map[uint16]bool
	conns map[net.Conn][2]uint16
}

type faultyStream struct {
	raft.StreamLayer
	n  *network
	id uint16
}

func (n *network) of(id uint16) func(raft.StreamLayer) raft.StreamLayer {
	return func(s raft.StreamLayer) raft.StreamLayer { return &faultyStream{s, n, id} }
}

// Dial implements raft.StreamLayer.
func (s *faultyStream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	var to uint16
	for _, p := range s.n.peers {
		if p.Raft == string(addr) {
			to = p.ID
		}
	}
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	if s.n.cut[s.id] || s.n.cut[to] {
		return nil, errors.New("cut off")
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := memory.dial(ctx, string(addr))
	if err == nil {
		s.n.conns[conn] = [2]uint16{s.id, to}
	}
	return conn, err
}

func (n *network) isolate(id uint16) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[id] = true
	for conn, ends := range n.conns {
		if ends[0] == id || ends[1] == id {
			_ = conn.Close()
			delete(n.conns, conn)
		}
	}
}

func (n *network) join(id uint16) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, id)
}
