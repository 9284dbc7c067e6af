package devcluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/internal/wire/pb"
	"corfu/layout"
	layoutserver "corfu/layout/server"
	"corfu/rdma"
	unitserver "corfu/unit/server"
)

// The fabric of some members carries nothing, while TCP reaches them all.

// cuttable is a fabric whose ways to some addresses can be cut.
type cuttable struct {
	rdma.Device

	mu  sync.Mutex
	how map[string]string // by address; "": all that have none
}

// The ways to cut.
const (
	silent  = "silent"  // what is sent is lost
	refused = "refused" // nobody listens
)

func newCuttable(dev rdma.Device) *cuttable {
	return &cuttable{Device: dev, how: map[string]string{}}
}

func (d *cuttable) cut(how string, addrs ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range addrs {
		d.how[a] = how
	}
}

func (d *cuttable) mend() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.how)
}

func (d *cuttable) of(addr string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if how := d.how[addr]; how != "" {
		return how
	}
	return d.how[""]
}

func (d *cuttable) Dial(ctx context.Context, addr string, private []byte, o rdma.ConnOptions) (rdma.Conn, error) {
	switch d.of(addr) {
	case silent:
		<-ctx.Done()
		return nil, fmt.Errorf("tcp: dial %s: %w", addr, ctx.Err())
	case refused:
		return nil, fmt.Errorf("tcp: dial %s: %w", addr, syscall.ECONNREFUSED)
	}
	c, err := d.Device.Dial(ctx, addr, private, o)
	if err != nil {
		return nil, err
	}
	return &cutConn{c, d, addr}, nil
}

type cutConn struct {
	rdma.Conn
	d    *cuttable
	addr string
}

// lost waits until the operation is given up, if the way is cut.
func (c *cutConn) lost(ctx context.Context) error {
	switch c.d.of(c.addr) {
	case silent:
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.Broken():
			return rdma.ErrClosed
		}
	case refused:
		_ = c.Close()
		return rdma.ErrClosed
	}
	return nil
}

func (c *cutConn) Do(ctx context.Context, b *rdma.Batch) error {
	if err := c.lost(ctx); err != nil {
		return err
	}
	return c.Conn.Do(ctx, b)
}

func (c *cutConn) Post(ctx context.Context, b *rdma.Batch) error {
	if err := c.lost(ctx); err != nil {
		return err
	}
	return c.Conn.Post(ctx, b)
}

// clusterStatus is what the leader knows.
func clusterStatus(ctx context.Context, c *devcluster.Cluster) *pb.ClusterStatus {
	m, err := c.Status(ctx)
	if err != nil {
		return &pb.ClusterStatus{}
	}
	return m
}

// fabricOf returns the address that a unit tells clients.
func fabricOf(t *testing.T, ctx context.Context, c *devcluster.Cluster, id uint32) (addr string) {
	t.Helper()
	eventually(t, "the unit's fabric address", func() error {
		for _, u := range clusterStatus(ctx, c).Units {
			if u.Id == id && u.Fabric != "" {
				addr = u.Fabric
				return nil
			}
		}
		return fmt.Errorf("status does not name it")
	})
	return addr
}

// problem waits for a problem of the status that has all parts in what it says, or what is to be
// done.
func problem(t *testing.T, ctx context.Context, c *devcluster.Cluster, parts ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("status says %q", parts), func() error {
		m := clusterStatus(ctx, c)
		for _, p := range m.Problems {
			all := true
			for _, x := range parts {
				all = all && strings.Contains(p.What+"\n"+p.Todo, x)
			}
			if all {
				return nil
			}
		}
		return fmt.Errorf("%v", m.Problems)
	})
}

// TestUnitThatTheFabricDoesNotReachIsLeftOut: the heartbeats of unit 2 are answered, and nothing
// comes over the fabric. The log goes on without it after fail_after, and takes it back once the
// fabric carries again.
func TestUnitThatTheFabricDoesNotReachIsLeftOut(t *testing.T) {
	for _, how := range []string{silent, refused} {
		t.Run(how, func(t *testing.T) {
			if how == refused {
				notInLab(t, "a way that swallows everything says as much of verbs")
			}
			ctx, dev, reg := testContext(t), newCuttable(openDevice(t)), prometheus.NewRegistry()
			c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, Registerer: reg})
			load := startLoad(t, ctx, log)
			load.more(100)
			awaitSealers(t, c, 3)
			addr := fabricOf(t, ctx, c, 2)
			began := time.Now()
			dev.cut(how, addr)
			awaitLayout(t, log, "an epoch without the unit", func(l *layout.Layout) bool { return !l.IsMember(2) })
			t.Logf("left out after %v; fail_after is %v", time.Since(began), failAfter)
			load.more(100)
			problem(t, ctx, c, "unit 2", "over the fabric", addr, "fabric.advertise")
			if n := gauge(t, reg, "corfu_layout_fabric_unreachable", "unit 2"); n != 1 {
				t.Errorf("corfu_layout_fabric_unreachable of unit 2 is %v, not 1", n)
			}
			dev.mend()
			awaitLayout(t, log, "it is back", func(l *layout.Layout) bool { return l.IsMember(2) && rebuilt(l) })
			load.more(100)
			load.finish(ctx)
			if n := gauge(t, reg, "corfu_layout_fabric_unreachable", "unit 2"); n != 0 {
				t.Errorf("corfu_layout_fabric_unreachable of unit 2 is %v, not 0", n)
			}
		})
	}
}

// gauge returns what a metric shows for a member; -1: nothing.
func gauge(t *testing.T, r *prometheus.Registry, name, member string) float64 {
	t.Helper()
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "member" && l.GetValue() == member {
					return m.GetGauge().GetValue()
				}
			}
			if member == "" {
				return m.GetGauge().GetValue()
			}
		}
	}
	return -1
}

// TestLeaderThatTheFabricReachesNoMemberFrom: that is its own link. It blames nobody, and says so.
func TestLeaderThatTheFabricReachesNoMemberFrom(t *testing.T) {
	ctx, dev, reg := testContext(t), openDevice(t), prometheus.NewRegistry()
	own := newCuttable(dev)
	c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, Registerer: reg, Layouts: func(o *layoutserver.Config) { o.Device = own }})
	load := startLoad(t, ctx, log)
	load.more(100)
	awaitSealers(t, c, 3)
	before := log.Layout()
	own.cut(silent, "")
	problem(t, ctx, c, "this layout server reaches no member over the fabric", "own link")
	if n := gauge(t, reg, "corfu_layout_fabric_down", ""); n != 1 {
		t.Errorf("corfu_layout_fabric_down is %v, not 1", n)
	}
	load.more(500)
	if got := log.Layout(); got.Epoch != before.Epoch {
		t.Errorf("epoch %d became %d", before.Epoch, got.Epoch)
	}
	own.mend()
	eventually(t, "all is well again", func() error {
		if m := clusterStatus(ctx, c); m.FabricDown != "" || len(m.Problems) > 0 {
			return fmt.Errorf("%v", m.Problems)
		}
		return nil
	})
	load.more(500)
	load.finish(ctx)
	if got := log.Layout(); got.Epoch != before.Epoch {
		t.Errorf("epoch %d became %d when the link was mended", before.Epoch, got.Epoch)
	}
}

// TestLeaderWithoutFabricHandsOver: of three layout servers the leader reaches no member over the
// fabric. Another one leads, and nobody is left out.
func TestLeaderWithoutFabricHandsOver(t *testing.T) {
	notInLab(t, "who leads is settled over TCP; TestLeaderThatTheFabricReachesNoMemberFrom loses its links over verbs")
	ctx, dev := testContext(t), openDevice(t)
	var mu sync.Mutex
	links := map[uint16]*cuttable{}
	c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, LayoutServers: 3, Layouts: func(o *layoutserver.Config) {
		mu.Lock()
		defer mu.Unlock()
		if links[o.ID] == nil {
			links[o.ID] = newCuttable(dev)
		}
		o.Device = links[o.ID]
	}})
	load := startLoad(t, ctx, log)
	load.more(100)
	awaitSealers(t, c, 3)
	before := log.Layout()
	leads := func() (id uint32) {
		for _, s := range clusterStatus(ctx, c).LayoutServers {
			if s.Role == "leader" {
				id = s.Id
			}
		}
		return id
	}
	first := leads()
	began := time.Now()
	links[uint16(first)].cut(refused, "")
	eventually(t, "another leader", func() error {
		if now := leads(); now == 0 || now == first {
			return fmt.Errorf("server %d leads", now)
		}
		return nil
	})
	t.Logf("another leader after %v; fail_after is %v", time.Since(began), failAfter)
	load.more(500)
	load.finish(ctx)
	if got := log.Layout(); got.Epoch != before.Epoch {
		t.Errorf("epoch %d became %d: somebody was blamed", before.Epoch, got.Epoch)
	}
}

// TestMemberThatMustStayIsNamed: min_replicas keeps the unit that the fabric does not reach.
// Appends wait and take no positions; what is durable is read from the other replica (rule R11);
// status, metrics and the client's error say which unit it is, by which address, and why.
func TestMemberThatMustStayIsNamed(t *testing.T) {
	for _, how := range []string{silent, refused} {
		t.Run(how, func(t *testing.T) {
			if how == refused {
				notInLab(t, "a way that swallows everything says as much of verbs")
			}
			ctx, dev, reg := testContext(t), newCuttable(openDevice(t)), prometheus.NewRegistry()
			c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, MinReplicas: 2, Registerer: reg})
			awaitSealers(t, c, 3)
			const n = 50
			for i := range n {
				if _, err := log.Append(ctx, fmt.Appendf(nil, "entry %d", i)); err != nil {
					t.Fatal(err)
				}
			}
			addr := fabricOf(t, ctx, c, 2)
			own := prometheus.NewRegistry()
			fresh, err := client.Open(ctx, client.Options{LayoutServers: []string{c.LayoutAddr()}, Device: dev, Registerer: own})
			if err != nil {
				t.Fatal(err)
			}
			defer fresh.Close()
			began := time.Now()
			dev.cut(how, addr)
			problem(t, ctx, c, "appends wait", "unit 2", "over the fabric", addr, "fabric.advertise")
			t.Logf("named after %v; fail_after is %v", time.Since(began), failAfter)
			if w := gauge(t, reg, "corfu_layout_waiting", ""); w != 1 {
				t.Errorf("corfu_layout_waiting is %v, not 1", w)
			}
			for _, x := range []*client.Log{log, fresh} {
				bounded, cancel := context.WithTimeout(ctx, 3*time.Second)
				_, err := x.Append(bounded, []byte("more"))
				cancel()
				if err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "unit 2") {
					t.Errorf("append: %v; wanted unit 2 and %s in it", err, addr)
				}
			}
			if got := sums(t, own, "corfu_client_tokens_total", "")[""]; got != 0 {
				t.Errorf("a client that reaches half of the chain took %v positions", got)
			}
			began = time.Now()
			for p := range layout.Position(n) {
				b, err := fresh.Read(ctx, p)
				if err != nil || string(b) != fmt.Sprintf("entry %d", p) {
					t.Fatalf("read %d: %q, %v", p, b, err)
				}
			}
			t.Logf("%d reads beside the tail in %v", n, time.Since(began))
			dev.mend()
			if _, err := fresh.Append(ctx, []byte("again")); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestClientsReportWhatTheyCannotReach: the leader has no fabric. Unit 2 is left out on the word of
// a client, since nothing contradicts it.
func TestClientsReportWhatTheyCannotReach(t *testing.T) {
	for _, how := range []string{silent, refused} {
		t.Run(how, func(t *testing.T) {
			if how == silent {
				notInLab(t, "a way that refuses says as much of verbs")
			}
			ctx, dev, reg := testContext(t), newCuttable(openDevice(t)), prometheus.NewRegistry()
			c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, Registerer: reg, Layouts: func(o *layoutserver.Config) { o.Device = nil }})
			load := startLoad(t, ctx, log)
			load.more(100)
			addr := fabricOf(t, ctx, c, 2)
			began := time.Now()
			dev.cut(how, addr)
			awaitLayout(t, log, "an epoch without the unit", func(l *layout.Layout) bool { return !l.IsMember(2) })
			t.Logf("left out after %v; fail_after is %v", time.Since(began), failAfter)
			problem(t, ctx, c, "unit 2", "over the fabric", addr)
			load.more(100)
			dev.mend()
			awaitLayout(t, log, "it is back", func(l *layout.Layout) bool { return l.IsMember(2) && rebuilt(l) })
			load.more(100)
			load.finish(ctx)
		})
	}
}

// TestOneClientEvictsNobody: a client whose own fabric is cut reports a unit that the leader, or
// another client, reaches. It is named, and nobody is left out.
func TestOneClientEvictsNobody(t *testing.T) {
	notInLab(t, "reports are made and weighed over gRPC; TestClientsReportWhatTheyCannotReach makes one over verbs")
	for _, fabric := range []bool{true, false} {
		t.Run(fmt.Sprintf("leader has a fabric: %v", fabric), func(t *testing.T) {
			ctx, dev := testContext(t), openDevice(t)
			c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, Layouts: func(o *layoutserver.Config) {
				if !fabric {
					o.Device = nil
				}
			}})
			load := startLoad(t, ctx, log)
			load.more(100)
			if fabric {
				awaitSealers(t, c, 3)
			}
			before := log.Layout()
			own := newCuttable(dev)
			addr := fabricOf(t, ctx, c, 2)
			own.cut(silent, addr)
			bad, err := client.Open(ctx, client.Options{LayoutServers: []string{c.LayoutAddr()}, Device: own})
			if err != nil {
				t.Fatal(err)
			}
			defer bad.Close()
			bounded, cancel := context.WithTimeout(ctx, 6*failAfter)
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, err := bad.Append(bounded, []byte("it never comes that far"))
				ended <- err
			}()
			problem(t, ctx, c, "unit 2", addr, "others reach it")
			if err := <-ended; err == nil || !strings.Contains(err.Error(), addr) {
				t.Errorf("append: %v; wanted the address in it", err)
			}
			load.more(100)
			load.finish(ctx)
			if got := log.Layout(); got.Epoch != before.Epoch {
				t.Errorf("epoch %d became %d", before.Epoch, got.Epoch)
			}
		})
	}
}

// scarce is a fabric on which a member may make only so many connections more.
type scarce struct {
	rdma.Device
	left atomic.Int64
}

type scarceListener struct {
	rdma.Listener
	d *scarce
}

type scarceRequest struct {
	rdma.Request
	d *scarce
}

func (d *scarce) Listen(addr string) (rdma.Listener, error) {
	l, err := d.Device.Listen(addr)
	return scarceListener{l, d}, err
}

func (l scarceListener) Accept(ctx context.Context) (rdma.Request, error) {
	r, err := l.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return scarceRequest{r, l.d}, nil
}

func (r scarceRequest) Accept(ctx context.Context, o rdma.ConnOptions) (rdma.Conn, error) {
	if r.d.left.Add(-1) < 0 {
		_ = r.Reject("no RDMA resources: rdma.max of the member's cgroup")
		return nil, fmt.Errorf("ibv_create_cq: %w (rdma.max)", syscall.EAGAIN)
	}
	return r.Request.Accept(ctx, o)
}

// TestUnitThatTurnsClientsAwayIsLeftOut: unit 2 has no resources for more connections. Those that
// it has work, and new clients get none: by its own word it is left out, and named with what to
// look at.
func TestUnitThatTurnsClientsAwayIsLeftOut(t *testing.T) {
	ctx, dev := testContext(t), openDevice(t)
	poor := &scarce{Device: dev}
	poor.left.Store(1 << 30)
	c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, Units: func(o *unitserver.Config) {
		if o.ID == 2 {
			o.Device = poor
		}
	}})
	load := startLoad(t, ctx, log)
	load.more(100)
	awaitSealers(t, c, 3)
	poor.left.Store(0)
	began := time.Now()
	fresh, err := client.Open(ctx, client.Options{LayoutServers: []string{c.LayoutAddr()}, Device: dev})
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if _, err := fresh.Append(ctx, []byte("of a new client")); err != nil {
		t.Error(err)
	}
	t.Logf("a new client appends after %v; fail_after is %v", time.Since(began), failAfter)
	if fresh.Layout().IsMember(2) {
		t.Error("unit 2 was not left out")
	}
	problem(t, ctx, c, "unit 2", "turn connections away", "rdma.max")
	load.more(100)
	load.finish(ctx)
}

// mortal is a fabric whose device can be removed.
type mortal struct {
	rdma.Device
	gone chan struct{}
}

func (d mortal) Gone() <-chan struct{} { return d.gone }

func (d mortal) GoneErr() error {
	select {
	case <-d.gone:
		return errors.New("RDMA device rxe7 was removed")
	default:
		return nil
	}
}

func (d mortal) Dial(ctx context.Context, addr string, private []byte, o rdma.ConnOptions) (rdma.Conn, error) {
	if err := d.GoneErr(); err != nil {
		return nil, err
	}
	return d.Device.Dial(ctx, addr, private, o)
}

// TestClientWhoseDeviceIsRemoved: its operations end at once, with the device's name and what to
// do.
func TestClientWhoseDeviceIsRemoved(t *testing.T) {
	ctx, dev := testContext(t), openDevice(t)
	c, _ := startHealing(t, ctx, dev, devcluster.Options{Chains: 1})
	own := mortal{dev, make(chan struct{})}
	log, err := client.Open(ctx, client.Options{LayoutServers: []string{c.LayoutAddr()}, Device: own})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	close(own.gone)
	_, err = log.Append(ctx, []byte("x"))
	if !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "rxe7 was removed") {
		t.Errorf("append: %v; wanted the device's name in it", err)
	}
}

// foreign is a device that says it is of another provider.
type foreign struct{ rdma.Device }

func (d foreign) Info() rdma.Info {
	i := d.Device.Info()
	i.Provider = "verbs"
	return i
}

// TestProviderThatIsNotTheClusters: an operation fails within a second, with a line that names
// both. Auto follows the cluster.
func TestProviderThatIsNotTheClusters(t *testing.T) {
	if inLab {
		t.Skip("the cluster is on tcp here")
	}
	ctx, dev := testContext(t), openDevice(t)
	c, _ := startHealing(t, ctx, dev, devcluster.Options{Chains: 1})
	fabricOf(t, ctx, c, 1) // the leader knows what its members speak
	log, err := client.Open(ctx, client.Options{LayoutServers: []string{c.LayoutAddr()}, Device: foreign{dev}})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for what, do := range map[string]func() error{
		"append": func() error { _, err := log.Append(ctx, []byte("x")); return err },
		"read":   func() error { _, err := log.Read(ctx, 0); return err },
	} {
		began := time.Now()
		err := do()
		if err == nil || !strings.Contains(err.Error(), "tcp") || !strings.Contains(err.Error(), "verbs") {
			t.Errorf("%s: %v; wanted both providers in it", what, err)
		}
		t.Logf("%s: %v after %v", what, err, time.Since(began))
	}
	if _, err := client.Open(ctx, client.Options{LayoutServers: []string{c.LayoutAddr()}, Provider: "verbs"}); err == nil || !strings.Contains(err.Error(), "tcp") || !strings.Contains(err.Error(), "verbs") {
		t.Errorf("open: %v; wanted both providers in it", err)
	}
	auto, err := client.Open(ctx, client.Options{LayoutServers: []string{c.LayoutAddr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer auto.Close()
	if p, _ := auto.Provider(); p != "tcp" {
		t.Errorf("auto took %s", p)
	}
	if _, err := auto.Append(ctx, []byte("x")); err != nil {
		t.Error(err)
	}
}

// TestUnitThatSpeaksAnotherFabricIsLeftOut: the log goes on without it, and status names both
// providers.
func TestUnitThatSpeaksAnotherFabricIsLeftOut(t *testing.T) {
	if inLab {
		t.Skip("the cluster is on tcp here")
	}
	ctx, dev := testContext(t), openDevice(t)
	var odd atomic.Bool
	c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, Units: func(o *unitserver.Config) {
		if o.ID == 2 && odd.Load() {
			o.Device = foreign{dev}
		}
	}})
	awaitSealers(t, c, 3)
	odd.Store(true)
	if err := c.KillUnit(2); err != nil {
		t.Fatal(err)
	}
	if err := c.RestartUnit(ctx, 2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "appends go on", func() error {
		_, err := log.Append(ctx, []byte("x"))
		return err
	})
	problem(t, ctx, c, "unit 2", "verbs", "tcp")
}
