package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"corfu/internal/clusterstatus"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// faultyDisk is a log store whose writes hang, or find no room, when the test says so.
type faultyDisk struct {
	logStore
	mu   sync.Mutex
	full bool
	hung chan struct{} // writes wait for it to be closed; nil: they do not
}

func (d *faultyDisk) open(path string) (logStore, error) {
	s, err := openBolt(path)
	d.logStore = s
	return d, err
}

func (d *faultyDisk) set(full, hangs bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
	switch {
	case hangs && d.hung == nil:
		d.hung = make(chan struct{})
	case !hangs && d.hung != nil:
		close(d.hung)
		d.hung = nil
	}
}

func (d *faultyDisk) write(fn func() error) error {
	d.mu.Lock()
	full, hung := d.full, d.hung
	d.mu.Unlock()
	if hung != nil {
		<-hung
	}
	if full {
		return fmt.Errorf("write raft.db: %w", syscall.ENOSPC)
	}
	return fn()
}

func (d *faultyDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }
func (d *faultyDisk) StoreLogs(l []*raft.Log) error {
	return d.write(func() error { return d.logStore.StoreLogs(l) })
}
func (d *faultyDisk) Set(k, v []byte) error {
	return d.write(func() error { return d.logStore.Set(k, v) })
}
func (d *faultyDisk) SetUint64(k []byte, v uint64) error {
	return d.write(func() error { return d.logStore.SetUint64(k, v) })
}

// newTrioOnDisks is a trio whose disks can be spoilt, with an epoch. All disks are well again when
// the test ends.
func newTrioOnDisks(t *testing.T) *trio {
	c := trioWith(newCluster(t), mortal, map[uint16]*faultyDisk{1: {}, 2: {}, 3: {}})
	t.Cleanup(func() {
		for _, d := range c.disks {
			d.set(false, false)
		}
	})
	c.open(1)
	c.agree()
	return c
}

// problems waits until the status of the leader has the words, with a verdict.
func (c *trio) problems(verdict string, words ...string) {
	c.t.Helper()
	await(c.t, "status: "+strings.Join(words, ", "), func() error {
		m, err := service{s: c.leader()}.Cluster(context.Background(), &pb.ClusterStatusRequest{})
		if err != nil {
			return err
		}
		var all []string
		for _, p := range m.Problems {
			all = append(all, p.What)
		}
		text := strings.Join(all, "; ")
		for _, w := range words {
			if !strings.Contains(text, w) || m.Verdict != verdict {
				return fmt.Errorf("%s: %s", m.Verdict, text)
			}
		}
		return nil
	})
}

// TestAnotherLeadsWhereADiskHangs: the leader's disk stops answering while its heartbeats go on.
// Another one leads, and makes epochs; the status names the server and its directory. When the disk
// answers again all have the same.
func TestAnotherLeadsWhereADiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrioOnDisks(t)
		old := c.leader()
		id := old.cfg.ID
		c.disks[id].set(false, true)
		if _, err := old.store.apply(layout.NewClient{}); !errors.Is(err, errUnknown) && !errors.Is(err, errNotLeader) {
			t.Errorf("a command that the disk did not take: %v", err)
		}
		c.leader(id)
		if old.store.elected() {
			t.Error("the server with the hanging disk leads still")
		}
		if err := old.Ready(); err == nil || !strings.Contains(err.Error(), "the disk of "+old.cfg.Dir+" has not answered for") {
			t.Errorf("it is ready: %v", err)
		}
		c.newEpoch()
		c.problems(clusterstatus.Degraded, fmt.Sprintf("layout server %d: the disk of %s has not answered for", id, old.cfg.Dir), "no other may fail")
		c.disks[id].set(false, false)
		await(t, "it is well again", old.Ready)
		c.newEpoch()
		c.agree()
	})
}

// TestFullDiskAtOneServer: at the leader another one takes over, once; at a follower nothing
// changes but that it lags, and says so.
func TestFullDiskAtOneServer(t *testing.T) {
	for _, who := range []string{"leader", "follower"} {
		t.Run(who, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTrioOnDisks(t)
				ill := c.leader()
				for _, s := range c.servers {
					if s != ill && who == "follower" {
						ill = s
						break
					}
				}
				id := ill.cfg.ID
				c.disks[id].set(true, false)
				await(t, "the epoch is made by the others", func() error {
					_, err := c.leader(id).store.apply(layout.NewClient{})
					return err
				})
				c.newEpoch()
				c.problems(clusterstatus.Degraded, fmt.Sprintf("layout server %d: the disk of %s is full", id, ill.cfg.Dir))
				if err := ill.Ready(); err == nil || !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("it is ready: %v", err)
				}
				term := c.leader(id).store.raft.Standing().Term
				for range 3 {
					c.newEpoch()
				}
				if now := c.leader(id).store.raft.Standing().Term; now > term+1 { // a busy machine may cost an election
					t.Errorf("term %d became %d: elections do not end", term, now)
				}
				c.disks[id].set(false, false)
				await(t, "it is well again", ill.Ready)
				c.agree()
			})
		})
	}
}

// TestFullDisksOfAMajority: nothing can be recorded; the error comes in time, and the status names
// both servers.
func TestFullDisksOfAMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrioOnDisks(t)
		leader := c.leader()
		for id, d := range c.disks {
			if id != leader.cfg.ID {
				d.set(true, false)
			}
		}
		if _, err := leader.store.apply(layout.NewClient{}); err == nil {
			t.Error("a command was committed without a majority")
		}
		var words []string
		for id, s := range c.servers {
			if s != leader {
				words = append(words, fmt.Sprintf("layout server %d: the disk of %s is full", id, s.cfg.Dir))
			}
		}
		c.problems(clusterstatus.Down, append(words, "no epoch can be made and no client can begin")...)
		for _, d := range c.disks {
			d.set(false, false)
		}
		c.newEpoch()
		c.agree()
	})
}

// TestFullDiskOfASingleServer: it goes on leading and answering, says what it lacks, and goes on by
// itself when there is room.
func TestFullDiskOfASingleServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		d := &faultyDisk{}
		c.cfg.openLog = d.open
		c.start().open(1)
		defer d.set(false, false)
		term := c.server.store.raft.Standing().Term
		d.set(true, false)
		_, err := c.server.store.apply(layout.NewClient{})
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), c.cfg.Dir) {
			t.Errorf("a command: %v", err)
		}
		if l, err := c.client().Get(context.Background(), &pb.GetRequest{}); err != nil || l.Epoch != 1 {
			t.Errorf("the layout: %v, %v", l, err)
		}
		if now := c.server.store.raft.Standing().Term; now != term || !c.server.store.elected() {
			t.Errorf("term %d, was %d", now, term)
		}
		if err := c.server.Ready(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("it is ready: %v", err)
		}
		d.set(false, false)
		await(t, "it goes on", func() error {
			_, err := c.server.store.apply(layout.NewClient{})
			return err
		})
	})
}
