// Package fabric opens a device of the provider that suits the machine, and lists
// the machine's RDMA devices.
package fabric

import (
	"errors"
	"fmt"
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
	Addr      string // IP address to use; default: the RDMA device's, or loopback with tcp
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
	d, err := verbs.Open(verbs.Options{Device: o.Device, Addr: o.Addr, HugePages: o.HugePages})
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
	d, err := tcp.Open(tcp.Options{Addr: o.Addr, HugePages: o.HugePages, Insecure: o.Insecure})
	if err != nil {
		return nil, "", err
	}
	return d, fmt.Sprintf("tcp on %s: %s", d.Info().Addr, why), nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
