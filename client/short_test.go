package client_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/internal/sleep"
	"corfu/rdma"
	unitserver "corfu/unit/server"
)

// farDevice takes its time to connect, as rdma_cm does between real machines.
type farDevice struct {
	rdma.Device
	takes time.Duration
}

func (d farDevice) Dial(ctx context.Context, addr string, private []byte, o rdma.ConnOptions) (rdma.Conn, error) {
	if err := sleep.For(ctx, d.takes); err != nil {
		return nil, err
	}
	return d.Device.Dial(ctx, addr, private, o)
}

// A program whose calls have less time each than a session takes to open gets there all the same, after a few of them: the session that one of them
// began is there for the next.
func TestShortDeadlinesDoNotKeepSessionsFromOpening(t *testing.T) {
	client.NotInLab(t, "who opens a session, and for how long")
	c := start(t, devcluster.Options{})
	p, err := c.open(client.Options{}).Append(within(t), []byte("read in a hurry"))
	if err != nil {
		t.Fatal(err)
	}
	const enough = 100 * time.Millisecond // for a read, not for two connections
	c.dev = farDevice{c.dev, enough * 3 / 4}
	l := c.open(client.Options{})
	until(t, "a read that has no time to open a session", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), enough)
		defer cancel()
		_, err = l.Read(ctx, p)
		return err == nil
	})
}

// deafDevice reaches nobody, and knows it at once: a port that is down, a route that is missing.
type deafDevice struct {
	rdma.Device
	tries *atomic.Int32
}

func (d deafDevice) Dial(context.Context, string, []byte, rdma.ConnOptions) (rdma.Conn, error) {
	d.tries.Add(1)
	return nil, rdma.ErrUnavailable
}

// A client that reaches units over the control plane and not over the fabric goes on trying. It must not take their sessions from everybody else.
func TestClientWithoutFabricLeavesRoomForOthers(t *testing.T) {
	client.NotInLab(t, "sessions that nobody connects to")
	// What nobody connects to would be held for longer than the test takes.
	one := smallGeometry
	one.SessionSlots = 1 // so that there are no more sessions than that
	c := start(t, devcluster.Options{Geometry: one, Units: func(o *unitserver.Config) { o.TokenLife = time.Hour }})
	p, err := c.open(client.Options{}).Append(within(t), []byte("for all"))
	if err != nil {
		t.Fatal(err)
	}
	sound := c.dev
	tries := new(atomic.Int32)
	c.dev = deafDevice{sound, tries}
	deaf := c.open(client.Options{})
	c.dev = sound
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	var g sync.WaitGroup
	g.Go(func() { _, _ = deaf.Read(ctx, p) })
	until(t, "more tries than there are sessions", func() bool { return int(tries.Load()) > smallGeometry.MaxSessions })
	if got, err := c.open(client.Options{}).Read(ctx, p); err != nil || string(got) != "for all" {
		t.Errorf("another client reads %q, %v", got, err)
	}
	cancel()
	g.Wait()
}
