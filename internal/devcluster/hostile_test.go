package devcluster_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"corfu/client"
	"corfu/internal/certs"
	"corfu/internal/certs/certstest"
	"corfu/internal/control"
	"corfu/internal/devcluster"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma"
)

// hostile has a client's certificate and keeps no rule. What it does goes over the same fabric as everybody's.
type hostile struct {
	*testing.T
	ctx  context.Context
	c    *devcluster.Cluster
	dev  rdma.Device
	reg  *prometheus.Registry
	log  *client.Log // an honest client's
	dial []grpc.DialOption
	mem  *rdma.Memory // two pages of its own
	load *appender
	mine []layout.Position // of what unharmed appended

	clients uint32 // that it was
}

// startHostile starts a cluster of one chain under TLS, an honest client that appends all the time, and a hostile one.
func startHostile(t *testing.T) *hostile {
	h := &hostile{T: t, ctx: testContext(t), dev: openDevice(t), reg: prometheus.NewRegistry()}
	set := certstest.New(t, "corfu")
	var err error
	h.c, err = devcluster.Start(h.ctx, devcluster.Options{Device: h.dev, Dir: t.TempDir(), Geometry: small, FailAfter: 5 * time.Second, Chains: 1, Registerer: h.reg,
		TLS: func(role certs.Role, name string) (*certs.Source, error) { return set.Source(role, name), nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.c.Close(); err != nil {
			t.Error(err)
		}
	})
	h.log, err = client.Open(h.ctx, client.Options{LayoutServers: h.c.LayoutAddrs(), Device: h.dev, TLS: client.TLS(set.Files(certs.Client, "honest"))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.log.Close() })
	h.dial = control.DialOptions(set.Source(certs.Client, "hostile"))
	if h.mem, err = h.dev.Alloc(2 * small.PageSize); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.mem.Close(); err != nil {
			t.Error(err)
		}
	})
	h.load = startAppender(h.ctx, h.log)
	t.Cleanup(func() {
		h.load.stop()
		if err := <-h.load.ended; err != nil {
			t.Error(err)
		}
	})
	h.load.more(t, 20)
	return h
}

// pause ends the honest client's appends until resume.
func (h *hostile) pause() {
	h.Helper()
	h.load.stop()
	if err := <-h.load.ended; err != nil {
		h.Error(err)
	}
	h.load.ended <- nil // for the end of the test
}

func (h *hostile) resume() { h.load = startAppender(h.ctx, h.log) }

// conn is a control connection of the hostile client.
func (h *hostile) conn(addr string) *grpc.ClientConn {
	h.Helper()
	c, err := control.Dial(addr, h.dial...)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = c.Close() })
	return c
}

func (h *hostile) request() *pb.OpenSessionRequest {
	l := h.log.Layout()
	h.clients++ // as many as it likes: of one alone the unit keeps no second session that waits for its connections
	return &pb.OpenSessionRequest{Log: l.Log[:], Epoch: uint64(l.Epoch), Client: 1000 + h.clients}
}

// unit opens a session with a unit; the epoch may just change.
func (h *hostile) unit(id layout.UnitID) (s *pb.UnitSession) {
	h.Helper()
	c := pb.NewUnitServiceClient(h.conn(h.c.Units[id-1].ControlAddr()))
	eventually(h.T, "a session with the unit", func() (err error) {
		s, err = c.OpenSession(h.ctx, h.request())
		return err
	})
	return s
}

func (h *hostile) connect(addr string, token []byte) rdma.Conn {
	h.Helper()
	c, err := h.dev.Dial(h.ctx, addr, token, rdma.ConnOptions{})
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = c.Close() })
	return c
}

// do executes one list.
func (h *hostile) do(c rdma.Conn, fill func(*rdma.Batch)) (*rdma.Batch, error) {
	ctx, cancel := context.WithTimeout(h.ctx, time.Minute)
	defer cancel()
	b := rdma.NewBatch(8)
	fill(b)
	return b, c.Do(ctx, b)
}

// swap changes the word at a place, whatever stands there, and gives what that was.
func (h *hostile) swap(c rdma.Conn, at rdma.Remote, to uint64) uint64 {
	h.Helper()
	local := h.mem.Slice(0, rdma.WordSize)
	for range 1000 {
		if _, err := h.do(c, func(b *rdma.Batch) { b.Read(local, at) }); err != nil {
			h.Fatal(err)
		}
		old := h.mem.Load(0)
		b, err := h.do(c, func(b *rdma.Batch) { b.CompareSwap(at, old, to) })
		if err != nil {
			h.Fatal(err)
		}
		if b.Old(0) == old {
			return old
		}
	}
	h.Fatal("the word changes all the time")
	return 0
}

// metric is the sum over all members.
func (h *hostile) metric(name string) (sum float64) {
	h.Helper()
	all, err := h.reg.Gather()
	if err != nil {
		h.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			for _, m := range f.Metric {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// rises waits until a metric is above what it was.
func (h *hostile) rises(name string, was float64) {
	h.Helper()
	eventually(h.T, name+" rises", func() error {
		if now := h.metric(name); now <= was {
			return fmt.Errorf("%v", now)
		}
		return nil
	})
}

// notInLab is for tests that say nothing of verbs which others do not; why names what does, or what
// the test is about instead.
func notInLab(t *testing.T, why string) {
	t.Helper()
	if inLab {
		t.Skip(why)
	}
}

// unharmed: appends go on, for more than two windows where that is quick, and what is appended is read.
func (h *hostile) unharmed() {
	h.Helper()
	n := 2*int64(small.Window) + 50
	if inLab {
		n = 50
	}
	h.load.more(h.T, n)
	p, err := h.log.Append(h.ctx, []byte("still here"))
	if err != nil {
		h.Fatal(err)
	}
	h.mine = append(h.mine, p)
	for _, p := range h.mine { // the earlier ones have left the window
		if b, err := h.log.Read(h.ctx, p); err != nil || string(b) != "still here" {
			h.Errorf("read %d: %q, %v", p, b, err)
		}
	}
}
