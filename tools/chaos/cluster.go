package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"corfu/internal/control"
	"corfu/internal/sleep"
	"corfu/internal/wire/pb"
)

const (
	controlPort = 7770
	raftPort    = 7772
	fabricPort  = 7774

	// storeBytes is how large a unit's disk is, where it has one of its own.
	storeBytes = 512 << 20

	// segmentPages are few, so that a full disk is felt at once; and windows are short, so that they pass.
	segmentPages = 256
	window       = 1024
)

// cluster is all members of a run.
type cluster struct {
	o      options
	s      shape
	net    *network // nil: all on one machine
	data   string   // where the members keep what is durable
	logs   string
	self   string // this program
	client []*member
	layout []*member
	seq    []*member
	unit   []*member // those that are part of the cluster; one that was lost for good is not
	lastID int       // of a unit
	hosts  int

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

func (c *cluster) all() (all []*member) {
	for _, list := range [][]*member{c.layout, c.seq, c.unit, c.client} {
		all = append(all, list...)
	}
	return all
}

// servers are the members of the cluster, without its clients.
func (c *cluster) servers() []*member { return c.all()[:len(c.layout)+len(c.seq)+len(c.unit)] }

func (c *cluster) layoutAddrs() string {
	var addrs []string
	for _, m := range c.layout {
		addrs = append(addrs, m.control())
	}
	return strings.Join(addrs, ",")
}

// newMember makes a member with a machine of its own, where there are machines, and does not start it.
func (c *cluster) newMember(r role, id int) (*member, error) {
	m := &member{role: r, id: id, exe: c.o.corfu, logs: c.logs, dir: filepath.Join(c.data, fmt.Sprintf("%s-%d", r, id))}
	c.hosts++
	switch {
	case c.net != nil:
		h, err := c.net.newHost()
		if err != nil {
			return nil, fmt.Errorf("%v: %w", m, err)
		}
		m.host, m.addr = h, h.addr
	case c.o.addr != "":
		m.addr = c.o.addr
	default:
		m.addr = fmt.Sprintf("127.0.77.%d", c.hosts)
	}
	if c.net == nil && c.o.addr != "" {
		m.port = 20 * c.hosts // one address for all: the ports tell them apart
	}
	return m, os.MkdirAll(m.dir, 0o755)
}

// newUnit makes a unit with a disk of its own, where mounts are allowed.
func (c *cluster) newUnit() (*member, error) {
	c.lastID++
	m, err := c.newMember(roleUnit, c.lastID)
	if err != nil {
		return nil, err
	}
	if c.net != nil {
		if err := unix.Mount("tmpfs", m.dir, "tmpfs", 0, fmt.Sprintf("size=%d", storeBytes)); err != nil {
			return nil, fmt.Errorf("%v: disk: %w", m, err)
		}
	}
	m.args = append([]string{"unit", "--id", fmt.Sprint(m.id), "--store", filepath.Join(m.dir, "store"), "--segment-pages", fmt.Sprint(segmentPages)}, c.fabric(m)...)
	return m, nil
}

// common are the flags of every daemon.
func (c *cluster) common(m *member) []string {
	return []string{"--control", m.control(), "--http", "off", "--insecure"}
}

func (c *cluster) fabric(m *member) []string {
	args := append(c.common(m), "--provider", c.o.provider)
	if c.o.provider == "tcp" {
		args = append(args, "--fabric-addr", m.addr, "--fabric-listen", fmt.Sprintf("%s:%d", m.addr, fabricPort+m.port))
	}
	return args
}

// build makes all members.
func (c *cluster) build() error {
	for id := range c.s.layouts {
		m, err := c.newMember(roleLayout, id+1)
		if err != nil {
			return err
		}
		c.layout = append(c.layout, m)
	}
	for id := range c.s.seqs {
		m, err := c.newMember(roleSeq, id+1)
		if err != nil {
			return err
		}
		m.args = append([]string{"seq", "--id", fmt.Sprint(m.id), "--dir", m.dir}, c.fabric(m)...)
		c.seq = append(c.seq, m)
	}
	for range c.s.chains*c.s.replicas + c.s.spares {
		m, err := c.newUnit()
		if err != nil {
			return err
		}
		c.unit = append(c.unit, m)
	}
	first := c.firstLayout()
	for _, m := range c.layout {
		m.args = append([]string{"layout", "--id", fmt.Sprint(m.id), "--dir", m.dir}, first...)
		if len(c.layout) == 1 {
			m.args = append(m.args, "--control", m.control())
		}
	}
	for id := range c.s.clients {
		m, err := c.newMember(roleClient, id+1)
		if err != nil {
			return err
		}
		m.exe = c.self
		m.args = []string{"client", "-servers", c.layoutAddrs(), "-provider", c.o.provider, "-pace", c.o.pace.String(),
			"-retain", fmt.Sprint(c.o.retain)}
		c.client = append(c.client, m)
	}
	return nil
}

// firstLayout are the flags that all layout servers have in common.
func (c *cluster) firstLayout() []string {
	args := []string{"--http", "off", "--insecure", "--window", fmt.Sprint(window), "--fail-after", c.o.failAfter.String()}
	if len(c.layout) > 1 {
		for _, m := range c.layout {
			args = append(args, "--server", fmt.Sprintf("%d=%s,%s:%d", m.id, m.control(), m.addr, raftPort+m.port))
		}
	}
	for i, m := range c.seq {
		flag := "--seq"
		if i > 0 {
			flag = "--standby"
		}
		args = append(args, flag, fmt.Sprintf("%d=%s", m.id, m.control()))
	}
	inChains := c.s.chains * c.s.replicas
	for i, m := range c.unit {
		flag := "--unit"
		if i >= inChains {
			flag = "--spare"
		}
		args = append(args, flag, fmt.Sprintf("%d=%s", m.id, m.control()))
	}
	for i := range c.s.chains {
		var ids []string
		for j := range c.s.replicas {
			ids = append(ids, fmt.Sprint(c.unit[i*c.s.replicas+j].id))
		}
		args = append(args, "--chain", strings.Join(ids, ","))
	}
	return args
}

// close ends everything.
func (c *cluster) close() {
	var all sync.WaitGroup
	for _, m := range c.all() {
		all.Go(m.kill)
	}
	all.Wait()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
}

// stopClients ends the clients in peace.
func (c *cluster) stopClients() {
	var all sync.WaitGroup
	for _, m := range c.client {
		all.Go(func() { m.end(syscall.SIGTERM, opTimeout+lastOps+10*time.Second) })
	}
	all.Wait()
}

func (c *cluster) dial(addr string) (grpc.ClientConnInterface, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.conns[addr]; conn != nil {
		return conn, nil
	}
	conn, err := control.Dial(addr)
	if err == nil {
		c.conns[addr] = conn
	}
	return conn, err
}

// status asks the leader of the layout servers.
func (c *cluster) status(ctx context.Context) (*pb.StatusReply, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return control.Ask(ctx, control.NewLayouts(strings.Split(c.layoutAddrs(), ","), c.dial),
		func(ctx context.Context, l pb.LayoutServiceClient) (*pb.StatusReply, error) {
			return l.Status(ctx, &pb.StatusRequest{})
		})
}

// whole fails unless all chains have all their units, everything is copied, and every member is open, or stands by.
func (c *cluster) whole(ctx context.Context) error {
	m, err := c.status(ctx)
	if err != nil {
		return err
	}
	l := m.GetLayout()
	if m.GetDeficit() > 0 || len(m.GetRebuilds()) > 0 || m.GetEpochInProgress() != 0 || m.GetPhase() != "" {
		return fmt.Errorf("epoch %d, going to %d, %q: chains lack %d replicas, %d copies under way", l.GetEpoch(), m.GetEpochInProgress(), m.GetPhase(), m.GetDeficit(), len(m.GetRebuilds()))
	}
	if got := len(l.GetUnits()) + len(l.GetSpares()); got != len(c.unit) || len(l.GetStandbys())+1 != len(c.seq) {
		return fmt.Errorf("the layout has %d units and %d sequencers, not %d and %d", got, len(l.GetStandbys())+1, len(c.unit), len(c.seq))
	}
	if got, want := len(m.GetMembers()), len(c.unit)+len(c.seq); got != want { // a leader that was just elected has heard nobody
		return fmt.Errorf("the leader of the layout servers tells of %d members, not %d", got, want)
	}
	var errs []error
	for _, x := range m.GetMembers() {
		open := x.GetState() == "open" && x.GetEpoch() == l.GetEpoch()
		if x.GetRole() != "" {
			open = x.GetState() != "unreachable"
		}
		if !open {
			errs = append(errs, fmt.Errorf("%s is %s at epoch %d, the cluster at %d: %s", x.GetName(), x.GetState(), x.GetEpoch(), l.GetEpoch(), x.GetError()))
		}
	}
	return errors.Join(errs...)
}

// awaitWhole waits until the cluster is whole.
func (c *cluster) awaitWhole(ctx context.Context, patience time.Duration) error {
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = c.whole(ctx); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := c.crashed(); err != nil {
			return err
		}
	}
	return fmt.Errorf("the cluster is not whole after %v: %w", patience, err)
}

// acks is how many appends each client process that is up was acknowledged, by its history.
func (c *cluster) acks() (n []int) {
	for _, m := range c.client {
		b, _ := os.ReadFile(m.historyPath(m.life))
		n = append(n, bytes.Count(b, []byte(`{"k":"ack"`)))
	}
	return n
}

// awaitAcks waits until every client had some more acknowledged.
func (c *cluster) awaitAcks(ctx context.Context, patience time.Duration) error {
	const more = 5
	before := c.acks()
	for end := time.Now().Add(patience); ctx.Err() == nil; _ = sleep.For(ctx, 100*time.Millisecond) {
		now, slow := c.acks(), -1
		for i := range now {
			if now[i] < before[i]+more {
				slow = i
			}
		}
		if slow < 0 {
			return nil
		}
		if time.Now().After(end) {
			log, _ := os.ReadFile(c.client[slow].logPath())
			return fmt.Errorf("client %d had %d appends acknowledged in %v, although nothing is wrong any more; its log:\n%s", slow+1, now[slow]-before[slow], patience, tailOf(string(log)))
		}
	}
	return context.Cause(ctx)
}

// crashed fails if a process ended that nobody ended.
func (c *cluster) crashed() error {
	for _, m := range c.all() {
		if m.died() {
			log, _ := os.ReadFile(m.logPath())
			return fmt.Errorf("%v ended by itself: %s ends with:\n%s", m, m.logPath(), tailOf(string(log)))
		}
	}
	return nil
}

// command runs the program as an operator would.
func (c *cluster) command(ctx context.Context, timeout time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout+5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.o.corfu, append(args, "--insecure", "--timeout", timeout.String())...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.Env = append(os.Environ(), "CORFU_LAYOUT="+c.layoutAddrs())
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("corfu %s: %w: %s%s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()), tailOf(string(out)))
	}
	return string(out), err
}

// tailOf is the end of a long text.
func tailOf(s string) string {
	if len(s) > 2000 {
		return "…" + s[len(s)-2000:]
	}
	return s
}
