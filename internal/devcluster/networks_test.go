package devcluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
	layoutserver "corfu/layout/server"
	"corfu/rdma"
)

// One of the two networks is broken: TCP or the fabric.

// inLab: over verbs, in a machine that is emulated.
var inLab = os.Getenv("CORFU_LAB") == "1"

// sums adds up a metric by the value of a label.
func sums(t *testing.T, r *prometheus.Registry, name, label string) map[string]float64 {
	t.Helper()
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range all {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			by := ""
			for _, l := range m.GetLabel() {
				if l.GetName() == label {
					by = l.GetValue()
				}
			}
			if v := m.GetCounter().GetValue(); v > 0 {
				got[by] += v
			}
		}
	}
	return got
}

// muteDevice makes connections that take what is sent and never bring an answer, as a fabric does whose switch is gone.
type muteDevice struct{ rdma.Device }

type muteConn struct{ rdma.Conn }

func (d muteDevice) Dial(ctx context.Context, addr string, private []byte, o rdma.ConnOptions) (rdma.Conn, error) {
	c, err := d.Device.Dial(ctx, addr, private, o)
	if err != nil {
		return nil, err
	}
	return muteConn{c}, nil
}

func (c muteConn) Do(ctx context.Context, _ *rdma.Batch) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.Broken():
		return rdma.ErrBroken
	}
}

// noFabric refuses all connections.
type noFabric struct{ rdma.Device }

func (noFabric) Dial(context.Context, string, []byte, rdma.ConnOptions) (rdma.Conn, error) {
	return nil, rdma.ErrBroken
}

// lost makes calls of the control plane get lost without a word.
type lost struct {
	mu  sync.Mutex
	hit func(addr, method string) bool
}

func (l *lost) set(fn func(addr, method string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hit = fn
}

func (l *lost) hits(cc *grpc.ClientConn, method string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hit != nil && l.hit(strings.TrimPrefix(cc.Target(), "passthrough:///"), method)
}

func (l *lost) options() []grpc.DialOption {
	unary := func(ctx context.Context, method string, q, a any, cc *grpc.ClientConn, call grpc.UnaryInvoker, o ...grpc.CallOption) error {
		if !l.hits(cc, method) {
			return call(ctx, method, q, a, cc, o...)
		}
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(unary)}
}

// TestSealGoesByWhicheverNetworkWorks: the fabric or TCP or both carry the seals of a reconfiguration, under load, at whose end
// everything is as it was told to be.
func TestSealGoesByWhicheverNetworkWorks(t *testing.T) {
	isSeal := func(_, method string) bool { return strings.HasSuffix(method, "/Seal") }
	for _, x := range []struct {
		name string
		dev  func(rdma.Device) rdma.Device
		lost func(addr, method string) bool
		want string
	}{
		{"both", func(d rdma.Device) rdma.Device { return d }, nil, "fabric"},
		{"TCP is silent", func(d rdma.Device) rdma.Device { return d }, isSeal, "fabric"},
		{"the fabric is silent", func(d rdma.Device) rdma.Device { return muteDevice{d} }, nil, "control"},
		{"the fabric is down", func(d rdma.Device) rdma.Device { return noFabric{d} }, nil, "control"},
		{"no fabric", func(rdma.Device) rdma.Device { return nil }, nil, "control"},
	} {
		if inLab && x.lost == nil {
			continue // a cluster takes long to start there, and the other ways are TCP's
		}
		t.Run(x.name, func(t *testing.T) {
			ctx, dev, reg := testContext(t), openDevice(t), prometheus.NewRegistry()
			l := &lost{}
			c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, Registerer: reg, Layouts: func(o *layoutserver.Config) {
				o.Device, o.DialOptions = x.dev(dev), l.options()
			}})
			load := startLoad(t, ctx, log)
			load.more(100)
			if x.want == "fabric" {
				awaitSealers(t, c, 3)
			}
			before := sums(t, reg, "corfu_layout_seals_total", "way")
			l.set(x.lost)
			began := time.Now()
			got, err := c.Reconfigure(ctx)
			took := time.Since(began)
			if err != nil {
				t.Fatal(err)
			}
			load.more(100)
			load.finish(ctx)
			after := sums(t, reg, "corfu_layout_seals_total", "way")
			for way, n := range before {
				if after[way] -= n; after[way] == 0 {
					delete(after, way)
				}
			}
			// A member that flushes for long may answer the second one first. On a slow machine there are more epochs.
			if x.name == "both" {
				after["fabric"] += after["control"]
				delete(after, "control")
			}
			if len(after) != 1 || after[x.want] < 3 {
				t.Errorf("seals came by %v, not by %v", after, x.want)
			}
			t.Logf("epoch %d after %v", got.Epoch, took)
		})
	}
}

// awaitSealers waits until the layout leader has a message connection to n members.
func awaitSealers(t *testing.T, c *devcluster.Cluster, n int) {
	t.Helper()
	eventually(t, "message connections", func() error {
		got := 0
		for _, u := range c.Units {
			got += u.Sealers()
		}
		if got += c.Seq.Sealers(); got < n {
			return fmt.Errorf("%d of %d", got, n)
		}
		return nil
	})
}

// TestUnitThatOnlyTheFabricReachesIsCutOff: to the leader's TCP a unit is dead. The log goes on without it, and the fabric seals it, so
// that it serves nobody in the old epoch (which would be harmless: rules R2, R12).
func TestUnitThatOnlyTheFabricReachesIsCutOff(t *testing.T) {
	if inLab {
		t.Skip("what is left to verbs of it TestSealGoesByWhicheverNetworkWorks shows")
	}
	ctx, dev := testContext(t), openDevice(t)
	l := &lost{}
	c, log := startHealing(t, ctx, dev, devcluster.Options{Chains: 1, Layouts: func(o *layoutserver.Config) { o.DialOptions = l.options() }})
	load := startLoad(t, ctx, log)
	load.more(100)
	awaitSealers(t, c, 3)
	dead := c.Units[1].ControlAddr()
	l.set(func(addr, _ string) bool { return addr == dead })
	got := awaitLayout(t, log, "an epoch without the unit", func(l *layout.Layout) bool { return !l.IsMember(2) })
	eventually(t, "the unit is sealed", func() error {
		err := c.Units[1].Health()
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("sealed at epoch %d", got.Epoch)) {
			return fmt.Errorf("health: %w", err)
		}
		return nil
	})
	load.more(100)
	load.finish(ctx)
	l.set(nil)
	awaitLayout(t, log, "it is back", func(l *layout.Layout) bool { return l.IsMember(2) })
}

// relay stands between a client and a layout server.
type relay struct {
	to string
	l  net.Listener

	mu    sync.Mutex
	mode  string // "": passes; "silent": takes and answers nothing; "down": refuses
	conns map[net.Conn]struct{}
}

func startRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{to: to, l: l, conns: map[net.Conn]struct{}{}}
	go r.run()
	t.Cleanup(func() { r.set("down"); _ = l.Close() })
	return r
}

func (r *relay) run() {
	for {
		in, err := r.l.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		mode := r.mode
		r.conns[in] = struct{}{}
		r.mu.Unlock()
		if mode == "down" {
			_ = in.Close()
			continue
		}
		out, err := net.Dial("tcp", r.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		r.mu.Lock()
		r.conns[out] = struct{}{}
		r.mu.Unlock()
		go r.pass(in, out)
		go r.pass(out, in)
	}
}

// pass copies while the relay passes.
func (r *relay) pass(from, to net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		r.mu.Lock()
		silent := r.mode == "silent"
		r.mu.Unlock()
		if err == nil && !silent {
			_, err = to.Write(b[:n])
		}
		if err != nil {
			if !errors.Is(err, io.EOF) || !silent {
				_, _ = from.Close(), to.Close()
			}
			return
		}
	}
}

func (r *relay) set(mode string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mode = mode
	if mode == "down" {
		for c := range r.conns {
			_ = c.Close()
		}
		clear(r.conns)
	}
}

// TestClientLearnsTheLayoutFromUnits: no way leads from the client to the layout servers, and the epoch changes, twice. Rule R8: it
// moves on, never back; rule R9: it resolves what is unknown and loses nothing.
func TestClientLearnsTheLayoutFromUnits(t *testing.T) {
	for _, mode := range []string{"down", "silent"} {
		if inLab && mode == "down" {
			continue
		}
		t.Run(mode, func(t *testing.T) {
			ctx, dev, reg := testContext(t), openDevice(t), prometheus.NewRegistry()
			c, _ := startHealing(t, ctx, dev, devcluster.Options{Chains: 1})
			r := startRelay(t, c.LayoutAddr())
			log, err := client.Open(ctx, client.Options{LayoutServers: []string{r.l.Addr().String()}, Device: dev, Registerer: reg})
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			load := startLoad(t, ctx, log)
			load.more(100)
			eventually(t, "message connections of both clients", func() error {
				if n := c.Units[0].Readers() + c.Units[1].Readers(); n < 4 {
					return fmt.Errorf("%d", n)
				}
				return nil
			})
			r.set(mode)
			for range 2 {
				l, err := c.Reconfigure(ctx)
				if err != nil {
					t.Fatal(err)
				}
				awaitLayout(t, log, "the new epoch", func(got *layout.Layout) bool { return got.Epoch == l.Epoch })
				load.more(100)
			}
			load.finish(ctx)
			if n := sums(t, reg, "corfu_client_layouts_from_units_total", "")[""]; n < 2 {
				t.Errorf("%v layouts came from units", n)
			}
		})
	}
}
