package fabric

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"corfu/rdma"
	"corfu/rdma/verbs"
)

// ErrAdvertise: clients cannot be told that address.
var ErrAdvertise = errors.New("no address to tell clients")

// CheckAdvertise refuses an address, "host" or "host:port", that no client could dial: of a member
// whose control service listens at control ("host:port") and whose fabric is dev.
func CheckAdvertise(advertise, control string, dev rdma.Device) error {
	if advertise == "" {
		return nil
	}
	host, err := advertisedHost(advertise)
	if err != nil {
		return fmt.Errorf("%q: %w: %w", advertise, ErrAdvertise, err)
	}
	list, err := net.LookupIP(host)
	if err != nil {
		return fmt.Errorf("%q: %w: %w", advertise, ErrAdvertise, err)
	}
	for _, ip := range list {
		a, _ := netip.AddrFromSlice(ip)
		if err = checkAddr(a.Unmap(), control, dev); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%q: %w: %w", advertise, ErrAdvertise, err)
}

// advertisedHost is the host of "host" or "host:port".
func advertisedHost(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host = strings.Trim(s, "[]")
		if strings.Contains(host, ":") {
			if _, err := netip.ParseAddr(host); err != nil {
				return "", errors.New("neither a host nor host:port")
			}
		}
	} else if n, err := net.LookupPort("tcp", port); err != nil || n == 0 {
		return "", fmt.Errorf("port %q: must be 1 to 65535", port)
	}
	if host == "" {
		return "", errors.New("it names no host")
	}
	return host, nil
}

func checkAddr(a netip.Addr, control string, dev rdma.Device) error {
	host, _, _ := net.SplitHostPort(control)
	at, err := netip.ParseAddr(host)
	local := host == "localhost" || (err == nil && at.IsLoopback())
	switch {
	case a.IsUnspecified():
		return fmt.Errorf("%v stands for all addresses: name the one that clients dial", a)
	case a.IsMulticast():
		return fmt.Errorf("%v is a multicast address", a)
	case a.IsLinkLocalUnicast():
		return fmt.Errorf("%v is link-local: other machines cannot name it", a)
	case a.IsLoopback() && !local:
		return fmt.Errorf("%v is loopback, and the control service is at %s: clients on other machines would dial themselves", a, control)
	}
	have, err := Reachable(dev)
	if err == nil && !slices.Contains(have, a) && !(a.IsLoopback() && dev.Info().Provider == TCP) {
		return fmt.Errorf("%v is none of the addresses of %s here: %v", a, dev.Info().Name, have)
	}
	return nil
}

// Reachable returns the addresses by which the device can be dialled now: with verbs those of the
// device, with tcp those of this machine.
func Reachable(dev rdma.Device) ([]netip.Addr, error) {
	if d, ok := dev.(*verbs.Device); ok {
		return d.Addrs()
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var list []netip.Addr
	for _, x := range all {
		if n, ok := x.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(n.IP); ok {
				list = append(list, a.Unmap())
			}
		}
	}
	return list, nil
}

// Held reports whether an interface of this machine has the address.
func Held(a netip.Addr) (bool, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(all, func(x net.Addr) bool {
		n, ok := x.(*net.IPNet)
		if !ok {
			return false
		}
		b, ok := netip.AddrFromSlice(n.IP)
		return ok && b.Unmap() == a.Unmap()
	}), nil
}
