package client_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
	"corfu/rdma"
	"corfu/rdma/fabric"
	"corfu/rdma/tcp"
)

// device opens the fabric to test on: tcp, or in the lab (CORFU_LAB=1) verbs, which must be there then.
func device(t testing.TB) rdma.Device {
	t.Helper()
	var dev rdma.Device
	var err error
	if os.Getenv("CORFU_LAB") == "1" {
		dev, _, err = fabric.Open(fabric.Options{Provider: fabric.Verbs})
	} else {
		dev, err = tcp.Open(tcp.Options{})
	}
	if err != nil {
		t.Fatalf("open the fabric: %v", err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Errorf("close the fabric: %v", err)
		}
	})
	return dev
}

func quiet(t testing.TB) *slog.Logger {
	if os.Getenv("CORFU_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// smallGeometry makes windows and staging run out within a test.
var smallGeometry = layout.Geometry{PageSize: 4096, Window: 256, SessionSlots: 16, MaxSessions: 16}

type cluster struct {
	*devcluster.Cluster
	t   testing.TB
	dev rdma.Device
}

func start(t testing.TB, o devcluster.Options) *cluster {
	t.Helper()
	c := &cluster{t: t}
	if o.Device == nil {
		o.Device = device(t)
	}
	if o.Geometry == (layout.Geometry{}) {
		o.Geometry = smallGeometry
	}
	if o.Dir == "" {
		o.Dir = dir(t)
	}
	if o.Logger == nil {
		o.Logger = quiet(t)
	}
	c.dev = o.Device
	dc, err := devcluster.Start(context.Background(), o)
	if err != nil {
		t.Fatalf("start the cluster: %v", err)
	}
	c.Cluster = dc
	t.Cleanup(func() {
		if err := dc.Close(); err != nil {
			t.Errorf("close the cluster: %v", err)
		}
	})
	return c
}

// dir is a directory for flash stores; in the lab on the disk that can do O_DIRECT.
func dir(t testing.TB) string {
	if d := os.Getenv("CORFU_LAB_DISK"); d != "" {
		d, err := os.MkdirTemp(d, "client")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(d) })
		return d
	}
	return t.TempDir()
}

func (c *cluster) open(o client.Options) *client.Log {
	c.t.Helper()
	o.LayoutServers, o.Device = []string{c.LayoutAddr()}, c.dev
	if o.Logger == nil {
		o.Logger = quiet(c.t)
	}
	l, err := client.Open(within(c.t), o)
	if err != nil {
		c.t.Fatalf("open the log: %v", err)
	}
	c.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			c.t.Errorf("close the log: %v", err)
		}
	})
	return l
}

// within bounds a test generously: it is for emulated machines too.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func durabilities(t *testing.T, test func(*testing.T, layout.Durability)) {
	client.Durabilities(t, test)
}
