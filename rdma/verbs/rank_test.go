package verbs

import (
	"net/netip"
	"slices"
	"testing"
)

// TestRank: which of a device's addresses peers are told.
func TestRank(t *testing.T) {
	known := map[netip.Addr]standing{}
	for text, s := range map[string]standing{
		"10.77.0.1": {link: "d0"}, "192.0.2.9": {link: "d0", host: true}, "10.77.0.2": {link: "d0", secondary: true},
		"10.7.0.1": {link: "d0.7", virtual: true}, "10.5.0.1": {link: "e0"}, "fd00:77::1": {link: "d0"}, "127.0.0.1": {link: "lo"},
	} {
		known[netip.MustParseAddr(text)] = s
	}
	for _, x := range []struct {
		name, near string
		list       []string
		want       string
	}{
		{"a virtual IP that was there first", "", []string{"192.0.2.9", "10.77.0.1"}, "10.77.0.1"},
		{"a VLAN that was there first", "", []string{"10.7.0.1", "10.77.0.1"}, "10.77.0.1"},
		{"a secondary address", "", []string{"10.77.0.2", "10.77.0.1"}, "10.77.0.1"},
		{"an address that no interface has", "", []string{"10.99.0.1", "192.0.2.9"}, "192.0.2.9"},
		{"IPv4 before IPv6", "", []string{"fd00:77::1", "10.77.0.1"}, "10.77.0.1"},
		{"IPv6 alone", "", []string{"fd00:77::1"}, "fd00:77::1"},
		{"the control service's own", "192.0.2.9", []string{"10.77.0.1", "192.0.2.9"}, "192.0.2.9"},
		{"beside the control service's", "10.5.0.1", []string{"10.77.0.1", "10.5.0.1"}, "10.5.0.1"},
		{"a control service on a VLAN", "10.7.0.1", []string{"10.77.0.1", "10.7.0.1"}, "10.7.0.1"},
		{"a control service on loopback", "127.0.0.1", []string{"192.0.2.9", "10.77.0.1"}, "10.77.0.1"},
		{"a control service on all addresses", "0.0.0.0", []string{"192.0.2.9", "10.77.0.1"}, "10.77.0.1"},
	} {
		var list []netip.Addr
		for _, a := range x.list {
			list = append(list, netip.MustParseAddr(a))
		}
		if rank(list, x.near, known); list[0].String() != x.want {
			t.Errorf("%s: %v goes first of %v, not %s", x.name, list[0], slices.Sorted(slices.Values(x.list)), x.want)
		}
	}
}
