package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"corfu/internal/certs"
	"corfu/internal/control"
)

// errServers: the store belongs to other layout servers than the configuration names. Start it with the same ones;
// servers cannot be added or removed yet.
var errServers = errors.New("the store is that of other layout servers")

const (
	enqueueTimeout   = 5 * time.Second
	snapshotsKept    = 2
	snapshotEvery    = 1024 // commands
	trailingCommands = 256
	raftConns        = 3 // idle connections that are kept to each other server
)

// serverID is the name of a layout server in Raft's configuration. It stands for the address, too: Raft writes a member's address
// into its log, and those in the configuration file may change with every start.
func serverID(id uint16) raft.ServerID { return raft.ServerID(fmt.Sprintf("layout-%d", id)) }

// raftLog is Raft with its log in a file of its own.
type raftLog struct {
	*raft.Raft
	disk    *disk
	snaps   raft.SnapshotStore
	id      *register
	stream  *ownStream // nil: a single server
	gate    *gate      // nil: a single server
	reigns  reigns
	self    uint16
	servers []Peer
	release releases
}

// openRaft opens or makes the log in cfg.Dir. A single server's new one begins with that server; one of several is empty, and waits
// for the others (founding).
func openRaft(cfg Config, f raft.FSM) (*raftLog, error) {
	path := filepath.Join(cfg.Dir, raftFile)
	if _, err := inspect(cfg); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, err
	}
	open := cfg.openLog
	if open == nil {
		open = openBolt
	}
	store, err := open(path)
	if err != nil {
		return nil, err
	}
	s := &raftLog{disk: newDisk(store, cfg), self: cfg.ID, servers: cfg.peers()}
	if err := s.start(cfg, f, newLogger(cfg.Logger)); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	s.watch(cfg.Logger)
	return s, nil
}

// openBolt opens the file that was inspected, or makes it.
func openBolt(path string) (logStore, error) {
	// Without the time-out a second process in the same directory would wait for ever.
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{Timeout: lockPatience}})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s: %w", path, ErrRunning)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return bolt, nil
}

// start finds out who this server is, opens the transport, and starts Raft.
func (s *raftLog) start(cfg Config, f raft.FSM, logger hclog.Logger) error {
	snaps, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, snapshotsKept, logger)
	if err != nil {
		return err
	}
	s.snaps = snaps
	c, err := examine(s.disk, snaps, filepath.Join(cfg.Dir, raftFile), cfg.alone())
	if err != nil {
		return err
	}
	if s.id, err = readIdentity(s.disk, c.holds, c.log); err != nil {
		return err
	}
	transport, err := s.newTransport(cfg, logger)
	if err != nil {
		return err
	}
	if s.Raft, err = s.newRaft(raftConfig(cfg, logger), f, snaps, transport); err != nil {
		return errors.Join(err, transport.Close())
	}
	return nil
}

func (s *raftLog) newRaft(c *raft.Config, f raft.FSM, snaps raft.SnapshotStore, transport raft.Transport) (*raft.Raft, error) {
	known, err := raft.HasExistingState(s.disk, s.disk, snaps)
	if err != nil {
		return nil, err
	}
	switch {
	case !known && len(s.servers) == 1:
		if err := raft.BootstrapCluster(c, s.disk, s.disk, snaps, transport, s.wanted()); err != nil {
			return nil, err
		}
		if err := s.id.set(func(i *identity) { i.Standing, i.Cluster = standsMember, newClusterID() }); err != nil {
			return nil, err
		}
	case known:
		if err := s.checkServers(*c, snaps, transport, s.wanted()); err != nil {
			return nil, err
		}
	}
	return raft.NewRaft(c, f, s.disk, s.disk, snaps, transport)
}

// wanted is the first configuration: all servers of the list, with a vote.
func (s *raftLog) wanted() (c raft.Configuration) {
	for _, p := range s.servers {
		c.Servers = append(c.Servers, raft.Server{ID: serverID(p.ID), Address: raft.ServerAddress(serverID(p.ID))})
	}
	return c
}

// checkServers refuses a store of other servers. c is a copy: GetConfiguration marks it.
func (s *raftLog) checkServers(c raft.Config, snaps raft.SnapshotStore, transport raft.Transport, wanted raft.Configuration) error {
	stored, err := raft.GetConfiguration(&c, newFSM(), s.disk, s.disk, snaps, transport)
	if err != nil {
		return err
	}
	if has, want := ids(stored), ids(wanted); len(has) > 0 && !slices.Equal(has, want) {
		return fmt.Errorf("%w: it names %s, the configuration %s; name the same, or found another log in an empty directory",
			errServers, strings.Join(has, ", "), strings.Join(want, ", "))
	}
	return nil
}

func ids(c raft.Configuration) []string {
	var all []string
	for _, s := range c.Servers {
		all = append(all, string(s.ID))
	}
	slices.Sort(all)
	return all
}

// raftConfig derives Raft's time-outs from the election time-out.
func raftConfig(cfg Config, logger hclog.Logger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID, c.Logger, c.NoLegacyTelemetry = serverID(cfg.ID), logger, true
	c.SnapshotThreshold, c.TrailingLogs = snapshotEvery, trailingCommands
	if cfg.alone() {
		// There is nobody whose silence could be mistaken: elect at once.
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
		return c
	}
	c.HeartbeatTimeout, c.ElectionTimeout = cfg.Election, cfg.Election
	// A leader that hears of no majority gives up before the others elect another one.
	c.LeaderLeaseTimeout = cfg.Election * 3 / 4
	c.CommitTimeout = cfg.Election / 4 // until followers hear of what was committed
	return c
}

// transport is what raftLog needs of Raft's transports.
type transport interface {
	raft.Transport
	raft.WithClose
	raft.WithPreVote
}

// newTransport opens TCP towards the other servers; a single one gets a transport that leads nowhere.
func (s *raftLog) newTransport(cfg Config, logger hclog.Logger) (transport, error) {
	if cfg.alone() {
		_, t := raft.NewInmemTransport(raft.ServerAddress(serverID(cfg.ID)))
		return t, nil
	}
	l := cfg.RaftListener
	if l == nil {
		var err error
		if l, err = control.Listen(cfg.Raft, cfg.TLS != nil, cfg.Insecure); err != nil {
			return nil, fmt.Errorf("raft: %w", err)
		}
	}
	var stream raft.StreamLayer = tcpStream{l}
	if cfg.TLS != nil {
		stream = tlsStream{cfg.TLS.Listen(l, certs.Layout), cfg.TLS}
	}
	if cfg.network != nil {
		stream = cfg.network(stream)
	}
	s.stream = newOwnStream(newHandshake(stream, cfg, s.id.get, s.release.speaks))
	was := s.id.get()
	s.id.changed = func(now identity) { // the others are to hear it: they may have taken this server for one of their own
		if now.Cluster != was.Cluster || now.Log != was.Log {
			s.stream.again()
		}
		was = now
	}
	s.gate = newGate(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s.stream, MaxPool: raftConns, Logger: logger, ServerAddressProvider: addressBook(cfg.Servers),
		Timeout: 10 * cfg.Election, // to connect, and to answer a message
	}), s.mayTake, s.mayVote)
	return s.gate, nil
}

// mayTake reports whether this server takes what a leader sends.
func (s *raftLog) mayTake() bool { return s.id.get().Standing != standsEmpty }

// mayVote reports whether this server votes, stands for election and leads.
func (s *raftLog) mayVote() bool { return s.id.get().member() && s.disk.trouble() == nil }

// tlsStream carries Raft between those who have a layout server's certificate.
type tlsStream struct {
	net.Listener
	tls *certs.Source
}

// Dial implements raft.StreamLayer.
func (s tlsStream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.tls.Dial(ctx, string(addr), certs.Layout)
}

// tcpStream carries Raft in clear.
type tcpStream struct{ net.Listener }

// Dial implements raft.StreamLayer.
func (tcpStream) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(addr), timeout)
}

// addressBook gives the address of a server from the configuration, whatever Raft's log says.
type addressBook []Peer

// ServerAddr implements raft.ServerAddressProvider.
func (b addressBook) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	for _, p := range b {
		if serverID(p.ID) == id {
			return raft.ServerAddress(p.Raft), nil
		}
	}
	return "", fmt.Errorf("no layout server %s in the configuration", id)
}

// chatter is what Raft says of servers that are down, many times a second, or between two leaders. That a server is
// silent, and who leads, raftLog logs itself, once.
var chatter = map[string]bool{
	"failed to heartbeat to": true, "failed to appendEntries to": true, "failed to pipeline appendEntries": true,
	"failed to start pipeline replication to": true, "failed to make requestVote RPC": true, "failed to flush response": true,
	"failed to decode incoming command": true, "peer has newer term, stopping replication": true,
}

// newLogger takes what Raft says at level error, chatter left out, and what it repeats as long as a disk is full once in a while.
func newLogger(log *slog.Logger) hclog.Logger {
	seldom := &limiter{every: 10 * time.Second}
	return hclog.New(&hclog.LoggerOptions{Name: "raft", Level: hclog.Error, DisableTime: true, Output: slogWriter{log},
		Exclude: func(level hclog.Level, msg string, _ ...any) bool {
			if level < hclog.Error || chatter[msg] {
				return true
			}
			_, ok := seldom.allow(msg)
			return !ok
		}})
}

// slogWriter turns Raft's lines, "[ERROR] raft: text: k=v", into records.
type slogWriter struct{ log *slog.Logger }

func (w slogWriter) Write(b []byte) (int, error) {
	w.log.Error(strings.TrimSpace(strings.TrimPrefix(string(b), "[ERROR]")))
	return len(b), nil
}
