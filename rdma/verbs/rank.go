package verbs

import (
	"cmp"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// standing is what this machine knows of one of its addresses.
type standing struct {
	link      string
	virtual   bool // of a VLAN or a macvlan: it is above the port's own interface
	host      bool // its prefix is the address alone, as with a virtual IP that moves between machines
	secondary bool // the kernel counts it as secondary, temporary or deprecated
}

// standings are those of all addresses of this machine; none where netlink does not answer.
func standings() map[netip.Addr]standing {
	out := map[netip.Addr]standing{}
	links, err := netlink.LinkList()
	if err != nil {
		return out
	}
	for _, l := range links {
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			ip, ok := netip.AddrFromSlice(a.IP)
			if !ok {
				continue
			}
			ones, bits := a.Mask.Size()
			out[ip.Unmap()] = standing{
				link: l.Attrs().Name, virtual: l.Type() == "vlan" || l.Type() == "macvlan" || l.Type() == "ipvlan", host: ones == bits,
				secondary: a.Flags&(unix.IFA_F_SECONDARY|unix.IFA_F_DEPRECATED|unix.IFA_F_TENTATIVE) != 0,
			}
		}
	}
	return out
}

// Rank sorts addresses of this machine, the one first that peers are best told: near is an address,
// or "", beside which it should be, as the one of the control service. An address that may go away
// while the machine stands is worse: one that no interface has, one of a VLAN, one that stands for
// itself (a virtual IP), a secondary one. IPv4 goes before IPv6, and else the order stays.
func Rank(list []netip.Addr, near string) {
	rank(list, near, standings())
}

func rank(list []netip.Addr, near string, known map[netip.Addr]standing) {
	beside, _ := netip.ParseAddr(near)
	beside = beside.Unmap()
	link := known[beside].link
	worth := func(a netip.Addr) (n int) {
		s, ok := known[a]
		switch {
		case a == beside:
			return -2
		case ok && link != "" && link != "lo" && s.link == link:
			n = -1
		case !ok:
			n = 16
		}
		if s.virtual && n == 0 {
			n += 8
		}
		if s.host && !a.Is6() {
			n += 4
		}
		if s.secondary {
			n += 2
		}
		return n
	}
	slices.SortStableFunc(list, func(a, b netip.Addr) int {
		family := 0
		if a.Is4() != b.Is4() {
			family = 1
			if a.Is4() {
				family = -1
			}
		}
		return cmp.Or(cmp.Compare(worth(a), worth(b)), family)
	})
}

// Primary returns the address by which other machines reach this one, as far as its routes and
// interfaces tell; not valid: it has none but loopback. No packet is sent for that.
func Primary() netip.Addr {
	var list []netip.Addr
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} { // documentation addresses (RFC 5737, RFC 3849): the default route's source
		c, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		if u, ok := c.LocalAddr().(*net.UDPAddr); ok {
			if a, ok := netip.AddrFromSlice(u.IP); ok && Routable(a.Unmap()) && !a.IsLoopback() {
				list = append(list, a.Unmap())
			}
		}
		_ = c.Close()
	}
	if len(list) > 0 {
		return list[0]
	}
	known := standings()
	for a := range known {
		if Routable(a) && !a.IsLoopback() {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	if rank(list, "", known); len(list) == 0 {
		return netip.Addr{}
	}
	return list[0]
}
