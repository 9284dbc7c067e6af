package fabric_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"corfu/rdma/fabric"
	"corfu/rdma/tcp"
	"corfu/rdma/verbs"
)

// TestCheckAdvertise: what clients cannot dial is refused, with a word that says why.
func TestCheckAdvertise(t *testing.T) {
	dev, err := tcp.Open(tcp.Options{Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	far := "192.0.2.7:7780" // of the control service: not loopback
	for _, x := range []struct{ advertise, control, refused string }{
		{"", far, ""},
		{"127.0.0.1", "127.0.0.1:7780", ""},
		{"localhost:7701", "localhost:7780", ""},
		{"127.0.0.1", far, "loopback"},
		{"::1", far, "loopback"},
		{"127.0.0.1", "0.0.0.0:7780", "loopback"},
		{"0.0.0.0", far, "stands for all"},
		{"[::]:7701", far, "stands for all"},
		{"224.0.0.1", far, "multicast"},
		{"ff02::1", far, "multicast"},
		{"fe80::1", far, "link-local"},
		{"192.0.2.200", far, "none of the addresses"},
		{"127.0.0.1:0", "127.0.0.1:7780", "1 to 65535"},
		{"127.0.0.1:70000", "127.0.0.1:7780", "1 to 65535"},
		{":7701", "127.0.0.1:7780", "no host"},
	} {
		err := fabric.CheckAdvertise(x.advertise, x.control, dev)
		switch {
		case x.refused == "" && err != nil:
			t.Errorf("%q beside %s: %v", x.advertise, x.control, err)
		case x.refused != "" && (!errors.Is(err, fabric.ErrAdvertise) || !strings.Contains(err.Error(), x.refused)):
			t.Errorf("%q beside %s: %v; wanted %q in it", x.advertise, x.control, err, x.refused)
		}
	}
	if a := verbs.Primary(); a.IsValid() {
		if err := fabric.CheckAdvertise(net.JoinHostPort(a.String(), "7701"), far, dev); err != nil {
			t.Errorf("this machine's own %v: %v", a, err)
		}
	}
}

// TestTCPAddress: where tcp may leave loopback, it stands where the control service does.
func TestTCPAddress(t *testing.T) {
	primary := verbs.Primary()
	for _, x := range []struct {
		name string
		o    fabric.Options
		want string
	}{
		{"nothing said", fabric.Options{Provider: "tcp"}, "127.0.0.1"},
		{"in clear, beside loopback", fabric.Options{Provider: "tcp", Insecure: true, Near: "127.0.0.1"}, "127.0.0.1"},
		{"in clear, beside an address", fabric.Options{Provider: "tcp", Insecure: true, Near: "192.0.2.7"}, "192.0.2.7"},
		{"not in clear, beside an address", fabric.Options{Provider: "tcp", Near: "192.0.2.7"}, "127.0.0.1"},
		{"asked for", fabric.Options{Provider: "tcp", Insecure: true, Near: "192.0.2.7", Addr: "192.0.2.8"}, "192.0.2.8"},
		{"in clear, beside all", fabric.Options{Provider: "tcp", Insecure: true, Near: "0.0.0.0"}, map[bool]string{true: primary.String(), false: "127.0.0.1"}[primary.IsValid()]},
	} {
		dev, _, err := fabric.Open(x.o)
		if err != nil {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		if got := dev.Info().Addr; got != x.want {
			t.Errorf("%s: %s, not %s", x.name, got, x.want)
		}
		_ = dev.Close()
	}
}

func TestHeld(t *testing.T) {
	for text, want := range map[string]bool{"127.0.0.1": true, "192.0.2.200": false} {
		if got, err := fabric.Held(netip.MustParseAddr(text)); got != want || err != nil {
			t.Errorf("%s: %v, %v; not %v", text, got, err, want)
		}
	}
}
