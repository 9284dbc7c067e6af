// Package fabric opens a device of the provider that suits the machine, and lists
// the machine's RDMA devices.
package fabric

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"corfu/rdma"
	"corfu/rdma/tcp"
	"corfu/rdma/verbs"
)

// The providers.
const (
	Auto  = "auto"  // verbs if a device can, else tcp
	Verbs = "verbs" // RDMA cards, or Soft-RoCE
	TCP   = "tcp"   // software, over TCP connections
)

// Options choose a provider and a device. The zero value means auto.
type Options struct {
	Provider  string // Auto, Verbs or TCP; default Auto
	Device    string // RDMA device, such as "mlx5_0"; default: the first that can. Not with TCP
	Addr      string // IP address to use; default: the RDMA device's, or with tcp what Near and Insecure allow (tcpAddr)
	Near      string // IP address, or "": that of the control service; peers that reach it should reach the fabric
	HugePages bool   // back memory with huge pages where there are any
	Insecure  bool   // tcp may leave loopback, in clear
}

// Open opens a device. reason says in one line which one and why. With Auto, a
// machine without a usable RDMA device gets tcp; but if Device names one, it must be usable.
func Open(o Options) (dev rdma.Device, reason string, err error) {
	switch o.Provider {
	case "", Auto, Verbs:
	case TCP:
		if o.Device != "" {
			return nil, "", fmt.Errorf("fabric: %w: provider tcp has no device %q", rdma.ErrInvalid, o.Device)
		}
		return openTCP(o, "provider tcp was asked for")
	default:
		return nil, "", fmt.Errorf("fabric: %w: provider %q is none of auto, verbs, tcp", rdma.ErrInvalid, o.Provider)
	}
	d, err := verbs.Open(verbs.Options{Device: o.Device, Addr: o.Addr, Near: o.Near, HugePages: o.HugePages})
	if err == nil {
		i := d.Info()
		why := "first device with atomics, an active port and a routable address"
		if o.Device != "" || o.Provider == Verbs {
			why = "asked for; " + why
		}
		return d, fmt.Sprintf("verbs on %s (%s): %s", i.Name, i.Addr, why), nil
	}
	if o.Provider == Verbs || o.Device != "" || !errors.Is(err, rdma.ErrUnavailable) {
		return nil, "", err
	}
	return openTCP(o, oneLine(err))
}

func openTCP(o Options, why string) (rdma.Device, string, error) {
	d, err := tcp.Open(tcp.Options{Addr: tcpAddr(o), HugePages: o.HugePages, Insecure: o.Insecure})
	if err != nil {
		return nil, "", err
	}
	return d, fmt.Sprintf("tcp on %s: %s", d.Info().Addr, why), nil
}

// tcpAddr is the address of a tcp device: what was asked for; or, where it may leave loopback, the control service's, and this machine's primary one
// if that listens on all; else loopback.
func tcpAddr(o Options) string {
	near, err := netip.ParseAddr(o.Near)
	switch {
	case o.Addr != "" || !o.Insecure || err != nil || near.IsLoopback():
		return o.Addr
	case !near.IsUnspecified():
		return near.String()
	}
	if a := verbs.Primary(); a.IsValid() {
		return a.String()
	}
	return ""
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
