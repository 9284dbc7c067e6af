package main

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"corfu/rdma"
)

// TestDaemonWhoseFabricAddressWentAway: it ends with one line where a new start would choose
// another address, and else says so and waits.
func TestDaemonWhoseFabricAddressWentAway(t *testing.T) {
	const told = "192.0.2.200:7701" // no interface has it (RFC 5737)
	for _, x := range []struct {
		name  string
		fixed bool
		next  string
		ends  bool
	}{
		{"another one would be chosen", false, "192.0.2.7", true},
		{"none would be chosen", false, "192.0.2.200", false},
		{"the operator named it", true, "192.0.2.7", false},
	} {
		t.Run(x.name, func(t *testing.T) {
			var said bytes.Buffer
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			w := &fabricWatch{fixed: x.fixed, every: time.Millisecond, log: slog.New(slog.NewTextHandler(writer(func(b []byte) {
				said.Write(b)
				cancel()
			}), nil)), again: func() (rdma.Info, error) { return rdma.Info{Addr: x.next}, nil }}
			err := w.run(ctx, told)
			switch {
			case x.ends && (err == nil || !strings.Contains(err.Error(), "192.0.2.200") || !strings.Contains(err.Error(), x.next) || strings.Contains(err.Error(), "\n")):
				t.Errorf("ended with %v; wanted one line that names both addresses", err)
			case !x.ends && (err != nil || !strings.Contains(said.String(), "192.0.2.200")):
				t.Errorf("%v, said %q; wanted it to say so and to wait", err, said.String())
			}
		})
	}
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) {
	w(b)
	return len(b), nil
}

// lostDevice is a device that was removed.
type lostDevice struct {
	rdma.Device
	gone chan struct{}
}

func (d lostDevice) Gone() <-chan struct{} { return d.gone }
func (d lostDevice) GoneErr() error        { return errLost }

var errLost = errLostType{}

type errLostType struct{}

func (errLostType) Error() string { return "RDMA device rxe0 was removed" }

// TestDaemonWhoseDeviceWasRemoved: it ends with one line, even if what it has to close never ends.
func TestDaemonWhoseDeviceWasRemoved(t *testing.T) {
	d := lostDevice{gone: make(chan struct{})}
	w := &fabricWatch{dev: d, log: slog.New(slog.DiscardHandler)}
	close(d.gone)
	err := w.run(context.Background(), "127.0.0.1:7701")
	if err == nil || !strings.Contains(err.Error(), "rxe0 was removed") {
		t.Fatalf("ended with %v", err)
	}
	forever := make(chan struct{})
	defer close(forever)
	began := time.Now()
	if got := closeWithin(err, 10*time.Millisecond, func() error { <-forever; return nil }); got != err || time.Since(began) > 5*time.Second {
		t.Errorf("closed with %v after %v", got, time.Since(began))
	}
}
