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
	bolt    *raftboltdb.BoltStore
	reigns  reigns
	self    uint16
	servers []Peer
}

// openRaft opens or makes the log in cfg.Dir and, a new one, bootstraps it with the servers of the configuration.
func openRaft(cfg Config, f raft.FSM) (*raftLog, error) {
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, err
	}
	if err := settle(filepath.Join(cfg.Dir, "raft.db")); err != nil {
		return nil, err
	}
	// Without the time-out a second process in the same directory would wait for ever.
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(cfg.Dir, "raft.db"),
		BoltOptions: &bbolt.Options{Timeout: time.Second}})
	if err != nil {
		return nil, fmt.Errorf("open %s (is another layout server running there?): %w", filepath.Join(cfg.Dir, "raft.db"), err)
	}
	s := &raftLog{bolt: bolt, self: cfg.ID, servers: cfg.peers()}
	if err := s.start(cfg, f, newLogger(cfg.Logger)); err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	s.watch(cfg.Logger)
	return s, nil
}

// settle syncs the log that is there. One that was killed between a write and its sync leaves a vote or entries in a cache: they count as stored
// for who reads them, and must not be gone after a power cut.
func settle(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// start opens the transport, bootstraps a new store, and starts Raft.
func (s *raftLog) start(cfg Config, f raft.FSM, logger hclog.Logger) error {
	snaps, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, snapshotsKept, logger)
	if err != nil {
		return err
	}
	transport, err := newTransport(cfg, logger)
	if err != nil {
		return err
	}
	if s.Raft, err = s.newRaft(raftConfig(cfg, logger), f, snaps, transport); err != nil {
		return errors.Join(err, transport.Close())
	}
	return nil
}

func (s *raftLog) newRaft(c *raft.Config, f raft.FSM, snaps raft.SnapshotStore, transport raft.Transport) (*raft.Raft, error) {
	var wanted raft.Configuration
	for _, p := range s.servers {
		wanted.Servers = append(wanted.Servers, raft.Server{ID: serverID(p.ID), Address: raft.ServerAddress(serverID(p.ID))})
	}
	known, err := raft.HasExistingState(s.bolt, s.bolt, snaps)
	if err != nil {
		return nil, err
	}
	if !known {
		// Every server bootstraps itself with the same configuration, in the same order: their first log entries are equal, as
		// hashicorp/raft asks (BootstrapCluster: "with an identical configuration listing all Voter servers"), and none has to be the first.
		if err := raft.BootstrapCluster(c, s.bolt, s.bolt, snaps, transport, wanted); err != nil {
			return nil, err
		}
	} else if err := s.checkServers(*c, snaps, transport, wanted); err != nil {
		return nil, err
	}
	return raft.NewRaft(c, f, s.bolt, s.bolt, snaps, transport)
}

// checkServers refuses a store of other servers. c is a copy: GetConfiguration marks it.
func (s *raftLog) checkServers(c raft.Config, snaps raft.SnapshotStore, transport raft.Transport, wanted raft.Configuration) error {
	stored, err := raft.GetConfiguration(&c, newFSM(), s.bolt, s.bolt, snaps, transport)
	if err != nil {
		return err
	}
	if has, want := ids(stored), ids(wanted); !slices.Equal(has, want) {
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
}

// newTransport opens TCP towards the other servers; a single one gets a transport that leads nowhere.
func newTransport(cfg Config, logger hclog.Logger) (transport, error) {
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
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: newOwnStream(stream), MaxPool: raftConns, Logger: logger, ServerAddressProvider: addressBook(cfg.Servers),
		Timeout: 10 * cfg.Election, // to connect, and to answer a message
	}), nil
}

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

// newLogger takes what Raft says at level error, chatter left out.
func newLogger(log *slog.Logger) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: "raft", Level: hclog.Error, DisableTime: true, Output: slogWriter{log},
		Exclude: func(_ hclog.Level, msg string, _ ...any) bool { return chatter[msg] }})
}

// slogWriter turns Raft's lines, "[ERROR] raft: text: k=v", into records.
type slogWriter struct{ log *slog.Logger }

func (w slogWriter) Write(b []byte) (int, error) {
	w.log.Error(strings.TrimSpace(strings.TrimPrefix(string(b), "[ERROR]")))
	return len(b), nil
}
