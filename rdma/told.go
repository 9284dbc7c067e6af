package rdma

import (
	"net"
	"net/netip"
	"strings"
)

// Told returns the address that peers are told to dial, for a listener at listen ("host:port") of a
// device: advertise ("host" or "host:port"), else where the listener is; with the device's own
// address in place of one that stands for all.
func Told(listen, advertise string, i Info) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if advertise == "" {
		if a, err := netip.ParseAddr(host); err != nil || a.IsUnspecified() {
			host = i.Addr
		}
		return net.JoinHostPort(host, port)
	}
	if _, _, err := net.SplitHostPort(advertise); err == nil {
		return advertise
	}
	return net.JoinHostPort(strings.Trim(advertise, "[]"), port)
}
