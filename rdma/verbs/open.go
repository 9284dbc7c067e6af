package verbs

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/Mellanox/rdmamap"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

// Options choose a device.
type Options struct {
	Device    string // such as "mlx5_0"; default: the first that is good enough
	Addr      string // IP address of its netdev; default: the best of its routable GIDs (Rank)
	Near      string // IP address beside which that should be, as the control service's; "": none
	HugePages bool   // back Alloc with huge pages where there are any
}

// Choice is a device that can carry the fabric, and the address to use it by.
type Choice struct {
	Device ib.DeviceInfo
	Addr   netip.Addr
}

// Choose picks the device that Open would open. Without one the error wraps
// rdma.ErrUnavailable and says what is wrong with each device there is.
func Choose(o Options) (Choice, error) {
	var want netip.Addr
	if o.Addr != "" {
		a, err := netip.ParseAddr(o.Addr)
		if err != nil {
			return Choice{}, fmt.Errorf("verbs: address %q: %w", o.Addr, rdma.ErrInvalid)
		}
		want = a.Unmap()
	}
	devs, err := ib.Devices()
	if err != nil {
		return Choice{}, fmt.Errorf("verbs: %w: %w", rdma.ErrUnavailable, err)
	}
	var why []string
	for _, d := range devs {
		if o.Device != "" && d.Name != o.Device {
			continue
		}
		addr, reason := usable(d, want, o.Near)
		if reason == "" {
			return Choice{d, addr}, nil
		}
		why = append(why, d.Name+": "+reason)
	}
	switch {
	case len(devs) == 0:
		why = []string{"this machine has no RDMA device"}
	case len(why) == 0:
		why = []string{"there is no device " + o.Device}
	}
	return Choice{}, fmt.Errorf("verbs: %w: %s", rdma.ErrUnavailable, strings.Join(why, "; "))
}

// Usable tells by which address Open would use a device, or else what is wrong with it.
func Usable(d ib.DeviceInfo) (addr netip.Addr, problem string) { return usable(d, netip.Addr{}, "") }

// usable gives the address to use a device by, or what is wrong with it.
func usable(d ib.DeviceInfo, want netip.Addr, near string) (netip.Addr, string) {
	if d.Err != nil {
		return netip.Addr{}, d.Err.Error()
	}
	if d.AtomicCap == ib.AtomicNone {
		return netip.Addr{}, "no atomic operations"
	}
	active := false
	for _, p := range d.Ports {
		if p.State != ib.PortActive {
			continue
		}
		active = true
		list := portAddrs(d, p)
		Rank(list, near)
		for _, a := range list {
			if !want.IsValid() || a == want {
				return a, ""
			}
		}
	}
	switch {
	case !active:
		return netip.Addr{}, "no active port"
	case want.IsValid():
		return netip.Addr{}, "does not have the address " + want.String()
	}
	return netip.Addr{}, "no routable address (GID of type RoCE v2, or IPoIB)"
}

// Addrs are the IP addresses that lead to the active ports of a device.
func Addrs(d ib.DeviceInfo) (list []netip.Addr) {
	for _, p := range d.Ports {
		if p.State == ib.PortActive {
			list = append(list, portAddrs(d, p)...)
		}
	}
	return list
}

// portAddrs are the IP addresses that lead to a port, IPv4 first.
func portAddrs(d ib.DeviceInfo, p ib.Port) []netip.Addr {
	var v4, v6 []netip.Addr
	add := func(a netip.Addr) {
		switch a = a.Unmap(); {
		case !Routable(a):
		case a.Is4():
			v4 = append(v4, a)
		default:
			v6 = append(v6, a)
		}
	}
	if p.LinkLayer == ib.LinkLayerIB {
		for _, a := range ipoibAddrs(d.Name) {
			add(a)
		}
	} else {
		for _, g := range p.GIDs {
			if g.Type == ib.GIDRoCEv2 {
				add(netip.AddrFrom16(g.Raw))
			}
		}
	}
	return append(v4, v6...)
}

// Routable tells whether peers on other machines can name the address: a
// link-local one needs a zone, which a GID does not carry.
func Routable(a netip.Addr) bool {
	return a.IsValid() && !a.IsLinkLocalUnicast() && !a.IsUnspecified() && !a.IsMulticast()
}

// ipoibAddrs are the addresses of the IP-over-InfiniBand interfaces of a device.
func ipoibAddrs(device string) []netip.Addr {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, i := range ifs {
		if name, err := rdmamap.GetRdmaDeviceForNetdevice(i.Name); err != nil || name != device {
			continue
		}
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok {
					out = append(out, ip)
				}
			}
		}
	}
	return out
}
