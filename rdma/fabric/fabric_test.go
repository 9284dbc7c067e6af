package fabric

import (
	"errors"
	"os"
	"strings"
	"testing"

	"corfu/rdma"
)

func inLab() bool { return os.Getenv("CORFU_LAB") == "1" }

func TestOpen(t *testing.T) {
	want := "tcp"
	if inLab() {
		want = "verbs"
	}
	for _, c := range []struct {
		o        Options
		provider string
		err      error
	}{
		{Options{Provider: "tcp"}, "tcp", nil},
		{Options{Provider: "infiniband"}, "", rdma.ErrInvalid},
		{Options{Provider: "tcp", Device: "rxe0"}, "", rdma.ErrInvalid},
		{Options{Device: "no_such_0"}, "", rdma.ErrUnavailable},
		{Options{Provider: "verbs", Device: "no_such_0"}, "", rdma.ErrUnavailable},
	} {
		d, reason, err := Open(c.o)
		if !errors.Is(err, c.err) {
			t.Errorf("%+v: %v, want %v", c.o, err, c.err)
			continue
		}
		if err != nil {
			continue
		}
		if got := d.Info().Provider; got != c.provider || !strings.HasPrefix(reason, got) || strings.Contains(reason, "\n") {
			t.Errorf("%+v: provider %q, reason %q", c.o, got, reason)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if !inLab() && len(rdmaNames(t)) > 0 {
		t.Skip("this machine has RDMA devices: what auto takes depends on them")
	}
	d, reason, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	t.Log(reason)
	if d.Info().Provider != want {
		t.Errorf("auto took %s: %s", d.Info().Provider, reason)
	}
}

func rdmaNames(t *testing.T) (names []string) {
	ds, err := Devices()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range ds {
		names = append(names, d.Name)
	}
	return names
}

// On a machine without RDMA the list is empty and nothing is wrong; in the lab
// there is one Soft-RoCE device with an address of type RoCE v2.
func TestDevices(t *testing.T) {
	ds, err := Devices()
	if err != nil || ds == nil {
		t.Fatalf("%v, %v", ds, err)
	}
	for _, d := range ds {
		t.Logf("%+v", d)
	}
	if !inLab() {
		return
	}
	if len(ds) != 1 {
		t.Fatalf("%d devices", len(ds))
	}
	d := ds[0]
	if !d.Usable || d.Driver != "rdma_rxe" || d.Atomics != "hca" || len(d.Ports) != 1 {
		t.Fatalf("%+v", d)
	}
	p := d.Ports[0]
	if p.State != "active" || p.LinkLayer != "Ethernet" || p.Netdev == "" || p.ActiveMTU != 4096 {
		t.Errorf("%+v", p)
	}
	for _, g := range p.GIDs {
		if g.Type == "RoCE v2" && g.Addr == os.Getenv("CORFU_LAB_ADDR") && g.Netdev == p.Netdev {
			return
		}
	}
	t.Errorf("no GID of type RoCE v2 with the lab's address in %+v", p.GIDs)
}
