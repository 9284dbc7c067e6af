package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	raftwal "github.com/hashicorp/raft-wal"
	"go.etcd.io/bbolt"
)

// hashicorp/raft, replicas in this process joined by TCP on loopback; the
// client calls Apply on the leader directly (no client RPC hop). Visible =
// applied on a follower (the only replica when there is one).
type hraftSys struct {
	cfg    Config
	nodes  []*raft.Raft
	hubs   []*applyHub
	stores []raft.LogStore
	closes []io.Closer
	trans  []*raft.NetworkTransport
	leader int
	start  uint64
	dir    string
}

type hfsm struct{ h *applyHub }

func (f *hfsm) Apply(l *raft.Log) interface{} {
	if l.Type == raft.LogCommand {
		f.h.emit(l.Data)
	}
	return nil
}

type nosnap struct{}

func (nosnap) Persist(s raft.SnapshotSink) error { return s.Close() }
func (nosnap) Release()                          {}

func (f *hfsm) Snapshot() (raft.FSMSnapshot, error) { return nosnap{}, nil }
func (f *hfsm) Restore(r io.ReadCloser) error       { return r.Close() }

// inprocDir: flash on the data folder; memory on tmpfs unless the store has a
// no-sync switch of its own.
func inprocDir(cfg Config, ownSwitch bool) string {
	if cfg.Mode == "memory" && !ownSwitch {
		return "/dev/shm/corfu-peers"
	}
	return cfg.Data
}

func openHRaft(cfg Config) (System, error) {
	wal := cfg.Sys == "hraft-wal"
	s := &hraftSys{cfg: cfg, dir: inprocDir(cfg, !wal)}
	os.RemoveAll(s.dir)
	type both interface {
		raft.LogStore
		raft.StableStore
	}
	var servers []raft.Server
	for i := 0; i < cfg.Repl; i++ {
		dir := filepath.Join(s.dir, fmt.Sprint("n", i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		var st both
		if wal {
			w, err := raftwal.Open(dir)
			if err != nil {
				return nil, err
			}
			st = w
			s.closes = append(s.closes, w)
		} else {
			b, err := raftboltdb.New(raftboltdb.Options{
				Path:        filepath.Join(dir, "raft.db"),
				NoSync:      cfg.Mode == "memory",
				BoltOptions: &bbolt.Options{NoFreelistSync: true, Timeout: time.Second},
			})
			if err != nil {
				return nil, err
			}
			st = b
			s.closes = append(s.closes, b)
		}
		cache, err := raft.NewLogCache(512, st)
		if err != nil {
			return nil, err
		}
		addr := fmt.Sprintf("127.0.0.1:%d", 27311+i)
		tr, err := raft.NewTCPTransport(addr, nil, 3, 10*time.Second, io.Discard)
		if err != nil {
			return nil, err
		}
		c := raft.DefaultConfig()
		c.LocalID = raft.ServerID(fmt.Sprint("n", i))
		c.SnapshotThreshold = 1 << 60
		c.TrailingLogs = 1 << 60
		c.BatchApplyCh = true // as Vault sets it: lets one pipelining client get group commit
		c.Logger = hclog.NewNullLogger()
		hub := &applyHub{}
		servers = append(servers, raft.Server{ID: c.LocalID, Address: raft.ServerAddress(addr)})
		n, err := raft.NewRaft(c, &hfsm{hub}, cache, st, raft.NewDiscardSnapshotStore(), tr)
		if err != nil {
			return nil, err
		}
		s.nodes, s.hubs, s.stores, s.trans = append(s.nodes, n), append(s.hubs, hub), append(s.stores, st), append(s.trans, tr)
	}
	if err := s.nodes[0].BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		return nil, err
	}
	if err := s.find(); err != nil {
		return nil, err
	}
	time.Sleep(500 * time.Millisecond)
	return s, nil
}

// find looks for the present leader (it can change when the machine is busy:
// the defaults give a leader up after 500 ms without a quorum).
func (s *hraftSys) find() error {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for i, n := range s.nodes {
			if n.State() == raft.Leader && n.Barrier(5*time.Second).Error() == nil {
				s.leader = i
				return nil
			}
		}
	}
	return fmt.Errorf("no leader")
}

func (s *hraftSys) Fresh(int) error {
	s.start = s.nodes[s.leader].LastIndex() + 1
	return nil
}

func (s *hraftSys) NewClient(i int) (Client, error) {
	if i == 0 {
		if err := s.find(); err != nil {
			return nil, err
		}
	}
	return &hraftClient{s.nodes[s.leader]}, nil
}

func (s *hraftSys) Close() {
	for i, n := range s.nodes {
		n.Shutdown().Error()
		s.trans[i].Close()
	}
	for _, c := range s.closes {
		c.Close()
	}
	os.RemoveAll(s.dir)
}

type hraftClient struct{ r *raft.Raft }

func (c *hraftClient) Append(p []byte) error { return c.r.Apply(p, 0).Error() }
func (c *hraftClient) Pipe(depth int, stop time.Time, gen func() []byte, ack func(time.Time)) error {
	return fifoPipe(depth, stop, gen, ack, func(p []byte) (func() error, error) {
		return c.r.Apply(p, 0).Error, nil
	})
}
func (c *hraftClient) Close() {}

func (s *hraftSys) Consume(fromStart bool, stop <-chan struct{}, fn func([]byte) bool) error {
	if !fromStart {
		return s.hubs[(s.leader+1)%len(s.hubs)].consume(stop, fn)
	}
	last, err := s.stores[s.leader].LastIndex()
	if err != nil {
		return err
	}
	for i := s.start; i <= last; i++ {
		l := new(raft.Log)
		if err := s.stores[s.leader].GetLog(i, l); err != nil {
			return err
		}
		if l.Type == raft.LogCommand && !fn(l.Data) {
			return nil
		}
	}
	return nil
}
