package server

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// Consensus puts commands in one order and hands them to an FSM: all that the layout store asks of Raft. Its errors are
// raft.ErrNotLeader and raft.ErrEnqueueTimeout, of which nothing was done; after any other a command may yet take effect.
type Consensus interface {
	// Apply commits a command and gives what the FSM of this server answered.
	Apply(command []byte) (any, error)
	// Verify fails unless this server leads at some moment of the call.
	Verify() error
	// Leader tells whether this server leads, as far as it knows, and in which term.
	Leader() (term uint64, leads bool)
	// Barrier returns once the FSM has every command that was committed before the call.
	Barrier() error
	Close() error
}

const (
	enqueueTimeout   = 5 * time.Second
	snapshotsKept    = 2
	snapshotEvery    = 1024 // commands
	trailingCommands = 256
)

// raftLog is Raft with its log in a file of its own.
type raftLog struct {
	*raft.Raft
	bolt *raftboltdb.BoltStore
}

// openRaft opens or makes the log in cfg.Dir and, a new one, bootstraps it with this server as its only member.
func openRaft(cfg Config, f raft.FSM) (*raftLog, error) {
	if err := os.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, err
	}
	// Below errors Raft tells of its elections, which are no news where there is one server.
	logger := hclog.New(&hclog.LoggerOptions{Name: "raft", Level: hclog.Error, DisableTime: true, Output: slogWriter{cfg.Logger}})
	// Without the time-out a second process in the same directory would wait for ever.
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(cfg.Dir, "raft.db"),
		BoltOptions: &bbolt.Options{Timeout: time.Second}})
	if err != nil {
		return nil, fmt.Errorf("open %s (is another layout server running there?): %w", filepath.Join(cfg.Dir, "raft.db"), err)
	}
	s := &raftLog{bolt: bolt}
	if err := s.start(cfg, f, logger); err != nil {
		return nil, errors.Join(err, bolt.Close())
	}
	return s, nil
}

func (s *raftLog) start(cfg Config, f raft.FSM, logger hclog.Logger) error {
	snaps, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, snapshotsKept, logger)
	if err != nil {
		return err
	}
	// The name stands for the address too: Raft writes a member's address into its log, and a single server's may change with
	// every start. Nobody ever dials it.
	id := fmt.Sprintf("layout-%d", cfg.ID)
	addr, transport := raft.NewInmemTransport(raft.ServerAddress(id))
	c := raft.DefaultConfig()
	c.LocalID, c.Logger, c.NoLegacyTelemetry = raft.ServerID(id), logger, true
	c.SnapshotThreshold, c.TrailingLogs = snapshotEvery, trailingCommands
	// Alone there is nobody whose silence could be mistaken: elect at once.
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	known, err := raft.HasExistingState(s.bolt, s.bolt, snaps)
	if err != nil {
		return err
	}
	if !known {
		members := raft.Configuration{Servers: []raft.Server{{ID: c.LocalID, Address: addr}}}
		if err := raft.BootstrapCluster(c, s.bolt, s.bolt, snaps, transport, members); err != nil {
			return err
		}
	}
	s.Raft, err = raft.NewRaft(c, f, s.bolt, s.bolt, snaps, transport)
	return err
}

func (s *raftLog) Apply(command []byte) (any, error) {
	f := s.Raft.Apply(command, enqueueTimeout)
	if err := f.Error(); err != nil {
		return nil, err
	}
	return f.Response(), nil
}

func (s *raftLog) Verify() error { return s.VerifyLeader().Error() }

func (s *raftLog) Leader() (uint64, bool) { return s.CurrentTerm(), s.State() == raft.Leader }

func (s *raftLog) Barrier() error { return s.Raft.Barrier(enqueueTimeout).Error() }

func (s *raftLog) Close() error { return errors.Join(s.Shutdown().Error(), s.bolt.Close()) }

// slogWriter turns Raft's lines, "[ERROR] raft: text: k=v", into records.
type slogWriter struct{ log *slog.Logger }

func (w slogWriter) Write(b []byte) (int, error) {
	w.log.Error(strings.TrimSpace(strings.TrimPrefix(string(b), "[ERROR]")))
	return len(b), nil
}
