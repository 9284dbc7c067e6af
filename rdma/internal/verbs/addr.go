package verbs

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// zone is the interface index of an IPv6 zone, by number or by name; 0 if there is none.
func zone(z string) uint32 {
	if n, err := strconv.ParseUint(z, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(z); z != "" && err == nil {
		return uint32(i.Index)
	}
	return 0
}

func wrapAddr(err error, a netip.AddrPort) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%v: %w", a, err)
}
