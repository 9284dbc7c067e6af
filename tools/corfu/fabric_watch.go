package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"corfu/rdma"
	"corfu/rdma/fabric"
)

// fabricWatch looks after a daemon's way to the fabric while it runs.
type fabricWatch struct {
	dev   rdma.Device
	fixed bool // the operator named the address that clients are told
	again func() (rdma.Info, error)
	log   *slog.Logger
	every time.Duration // between looks at the address; zero means 1 s
}

const (
	addressEvery = time.Second
	addressLooks = 3 // in a row without the address: a network that is set up anew takes it away for a moment
)

// run returns once the daemon has to end: its device was removed, or the address that it tells
// clients went away and a new start would choose another. Where none would be chosen, or the
// operator named the address, it says so, and the daemon waits for it.
func (w *fabricWatch) run(ctx context.Context, told string) error {
	host, _, _ := net.SplitHostPort(told)
	addr, err := netip.ParseAddr(host)
	named := err != nil || addr.IsLoopback() // nothing to look for
	missing := 0
	tick := time.NewTicker(cmp.Or(w.every, addressEvery))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-gone(w.dev):
			return fmt.Errorf("%w: the daemon ends, so that the device can be removed, and a new start opens it", goneErr(w.dev))
		case <-tick.C:
		}
		if named {
			continue
		}
		if held, err := fabric.Held(addr); err != nil || held {
			if missing >= addressLooks {
				w.log.Info("the fabric address is back", "address", addr)
			}
			missing = 0
			continue
		}
		if missing++; missing != addressLooks {
			continue
		}
		i, err := w.again()
		if err == nil && !w.fixed && i.Addr != host {
			return fmt.Errorf("the fabric address %v, which clients are told, is no longer one of this machine: the daemon ends, and a new start chooses %s (fabric.advertise names one that stays)", addr, i.Addr)
		}
		w.log.Error("FABRIC: the address that clients are told is no longer one of this machine: no client can connect until it is back", "address", addr,
			"setting", "fabric.advertise")
	}
}

// gone returns a channel that is closed once the device was removed; nil: it cannot be.
func gone(dev rdma.Device) <-chan struct{} {
	if d, ok := dev.(interface{ Gone() <-chan struct{} }); ok {
		return d.Gone()
	}
	return nil
}

func goneErr(dev rdma.Device) error {
	if d, ok := dev.(interface{ GoneErr() error }); ok {
		return d.GoneErr()
	}
	return errors.New("the device was removed")
}

// untilOver waits until ctx ends, or watch says that the daemon has to.
func untilOver(ctx context.Context, watch func(context.Context) error) error {
	if watch == nil {
		<-ctx.Done()
		return nil
	}
	return watch(ctx)
}

// closeTimeout bounds the end of a daemon whose device is gone: what its kernel never answers must
// not keep the process.
const closeTimeout = 10 * time.Second

// closeSoon closes a daemon, and gives up waiting for it where cause says that it ends for a fault.
func closeSoon(cause error, closing func() error) error {
	if cause == nil {
		return closing()
	}
	return closeWithin(cause, closeTimeout, closing)
}

// closeWithin closes within a limit, and returns the cause: what closing says follows from it.
func closeWithin(cause error, limit time.Duration, closing func() error) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = closing()
	}()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
	return cause
}

// of returns what looks after a daemon; nil: nothing does.
func (w *fabricWatch) of(d daemon) func(context.Context) error {
	if w == nil || w.dev == nil {
		return nil
	}
	told := ""
	if x, ok := d.(interface{ FabricAddr() string }); ok {
		told = x.FabricAddr()
	}
	return func(ctx context.Context) error { return w.run(ctx, told) }
}

// openTold opens a member's fabric, checks what it is to tell clients, and says who looks after it.
func (a *app) openTold(c fabricConfig, control string, insecure bool, log *slog.Logger) (rdma.Device, string, *fabricWatch, error) {
	dev, reason, err := a.openFabric(c, control, insecure)
	if err != nil {
		return nil, "", nil, err
	}
	if err := fabric.CheckAdvertise(c.Advertise, control, dev); err != nil {
		return nil, "", nil, errors.Join(usagef("fabric.advertise %w", err), dev.Close())
	}
	told := cmp.Or(c.Advertise, rdma.Told(cmp.Or(c.Listen, ":0"), "", dev.Info()))
	if host, at := hostOf(told), hostOf(control); local(host) && !local(at) {
		log.Warn("clients on other machines are told a loopback address of the fabric, and dial themselves: name another one (fabric.advertise, fabric.addr), or an RDMA device",
			"told", host, "control", control)
	}
	w := &fabricWatch{dev: dev, fixed: c.Advertise != "" || c.Addr != "", log: log, again: func() (rdma.Info, error) {
		x, _, err := a.openFabric(c, control, insecure)
		if err != nil {
			return rdma.Info{}, err
		}
		return x.Info(), x.Close()
	}}
	return dev, reason, w, nil
}

func local(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && a.IsLoopback())
}
