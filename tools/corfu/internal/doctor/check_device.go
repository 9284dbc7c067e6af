package doctor

import (
	"fmt"
	"path/filepath"
	"strings"

	"corfu/rdma/verbs"
)

// checkDevice: is there a device, and which one would be used?
func checkDevice(_ *Host, m *machine, w Wanted) []Result {
	const name = "device"
	switch {
	case m.tcp:
		return []Result{good(name, "provider tcp is asked for: no RDMA device is needed")}
	case m.name == "" && w.Device != "":
		return []Result{fail(name, "name one of those that there are (corfu devices)", "there is no RDMA device %s", w.Device).with(strings.Join(m.names, ", "))}
	case m.name == "" && w.Provider == "verbs":
		return []Result{fail(name, "load the driver of the card (modprobe mlx5_ib …), or for a trial Soft-RoCE: rdma link add rxe0 type rxe netdev NETDEV",
			"this machine has no RDMA device")}
	case m.name == "":
		return []Result{warn(name, "if there should be one, load its driver (modprobe mlx5_ib …)", "this machine has no RDMA device: corfu runs over tcp here")}
	case m.info == nil:
		why := "the verbs do not list it"
		if m.err != nil {
			why = m.err.Error()
		}
		return []Result{fail(name, "install rdma-core and the provider of the driver (apt install rdma-core ibverbs-providers), and modprobe ib_uverbs rdma_ucm", "%s: %s", m.name, oneLine(why))}
	case !m.info.Usable:
		return []Result{fail(name, "see the lines below; corfu devices tells more", "%s cannot be used: %s", m.name, oneLine(m.info.Problem))}
	}
	r := good(name, "%s (%s%s), at %s", m.name, m.info.Driver, spaced(m.info.Firmware, ", firmware "), m.info.Addr)
	if m.soft {
		r = r.with("Soft-RoCE: software in the kernel. It shows that everything works, not how fast a card is.")
	}
	return []Result{r}
}

func spaced(s, before string) string {
	if s == "" {
		return ""
	}
	return before + s
}

// checkPort: port state, physical state and link layer. The names are those of enum ib_port_state and the physical states of
// the InfiniBand specification (volume 1, PortInfo), as drivers/infiniband/core/sysfs.c prints them.
func checkPort(_ *Host, m *machine, _ Wanted) []Result {
	const name = "port"
	if m.tcp || m.name == "" {
		return nil
	}
	p := m.active()
	if p == nil {
		return []Result{fail(name, "is the driver loaded as a whole? dmesg tells", "%s has no port", m.name)}
	}
	if strings.HasPrefix(p.state, "4:") {
		return []Result{good(name, "port %d is active: %s%s", p.number, p.layer, spaced(p.rate, ", "))}
	}
	do := "plug in the cable, and bring the interface up: ip link set " + orWord(p.netdev, "NETDEV") + " up"
	if p.layer == "InfiniBand" && strings.HasPrefix(p.phys, "5:") {
		do = "the link is up and nobody manages it: start a subnet manager (opensm, or the switch's)"
	}
	return []Result{fail(name, do, "port %d is %s, link %s", p.number, state(p.state), state(p.phys))}
}

// state is the word behind the number.
func state(s string) string {
	if _, word, ok := strings.Cut(s, ": "); ok {
		return strings.ToLower(word)
	}
	return orWord(s, "unknown")
}

func orWord(s, word string) string {
	if s == "" {
		return word
	}
	return s
}

// checkAtomics: CAS and FETCH_ADD are what the log is made of (ibv_query_device(3): atomic_cap; enum ibv_atomic_cap).
func checkAtomics(_ *Host, m *machine, _ Wanted) []Result {
	const name = "atomics"
	if m.tcp || m.info == nil {
		return nil
	}
	switch m.info.Atomics {
	case "hca", "global":
		return []Result{good(name, "atomic_cap %s, %d READs and atomics in flight on a connection", m.info.Atomics, m.info.MaxRDAtomic)}
	case "":
		return []Result{warn(name, "open the device as root, or as the service's user", "not known: the device cannot be opened")}
	}
	return []Result{fail(name, "use another device: iWARP has no atomics, and some cards need them switched on in firmware", "%s has no atomic operations (atomic_cap %s)", m.name, m.info.Atomics)}
}

// checkGID: on Ethernet a GID of type RoCE v2 whose address peers can route to, found by its type and never at an index
// (gid_attrs/types of sysfs-class-infiniband; InfiniBand specification, annex A17). On InfiniBand rdma_cm finds the way by an IPoIB address.
func checkGID(_ *Host, m *machine, w Wanted) []Result {
	const name = "gid"
	p := m.active()
	if m.tcp || p == nil {
		return nil
	}
	if p.layer == "InfiniBand" {
		if m.info != nil && m.info.Addr != "" {
			return []Result{good(name, "InfiniBand; rdma_cm goes by the IPoIB address %s", m.info.Addr)}
		}
		return []Result{fail(name, "modprobe ib_ipoib, and give its interface (ib0 …) an address", "InfiniBand without an IPoIB address, which rdma_cm needs")}
	}
	var detail []string
	var at *gid
	v2 := false
	for i, g := range p.gids {
		detail = append(detail, fmt.Sprintf("gid %d: %s, %s %s", g.index, orWord(g.kind, "type unknown"), g.addr, g.netdev))
		if g.kind != "RoCE v2" {
			continue
		}
		v2 = true
		if at == nil && verbs.Routable(g.addr) && (w.Addr == "" || g.addr.String() == w.Addr) {
			at = &p.gids[i]
		}
	}
	netdev := orWord(p.netdev, "NETDEV")
	switch {
	case at != nil:
		return []Result{good(name, "RoCE v2 at %s (index %d, %s)", at.addr, at.index, at.netdev).with(detail...)}
	case w.Addr != "":
		return []Result{fail(name, "ip address add "+w.Addr+"/… dev "+netdev+", or correct fabric.addr", "no GID of type RoCE v2 has the address %s", w.Addr).with(detail...)}
	case v2:
		return []Result{fail(name, "ip address add … dev "+netdev, "all GIDs of type RoCE v2 are link-local: peers cannot name them").with(detail...)}
	}
	return []Result{fail(name, "ip address add … dev "+netdev+"; a card that knows RoCE v1 alone cannot be used", "no GID of type RoCE v2").with(detail...)}
}

// goodMTU is the largest path MTU there is (InfiniBand specification, PortInfo:NeighborMTU), and a page of the log.
// RoCE v2 puts 58 bytes and an ICRC around it and takes the next power of two that fits, so that Ethernet needs 4200.
const (
	goodMTU  = 4096
	etherMTU = 4200
)

// checkMTU: ibv_query_port(3) tells active_mtu, sysfs-class-net the netdev's. Connections take the smaller one of both ends.
func checkMTU(h *Host, m *machine, _ Wanted) []Result {
	const name = "path mtu"
	p := m.active()
	if m.tcp || p == nil || m.info == nil {
		return nil
	}
	mtu, ether := portMTU(h, m)
	if mtu == 0 {
		return nil
	}
	says := fmt.Sprintf("%d bytes", mtu)
	if ether != "" {
		says += fmt.Sprintf(" (%s has %s)", p.netdev, ether)
	}
	if mtu >= goodMTU {
		return []Result{good(name, "%s", says)}
	}
	says += fmt.Sprintf(": a page of 4096 bytes takes %d packets", (goodMTU+mtu-1)/mtu)
	if p.layer == "InfiniBand" {
		return []Result{warn(name, "have the subnet manager give the partition an MTU of 4096 (partitions.conf: mtu=5)", "%s", says)}
	}
	do := "set the same larger MTU on this machine, the switch and all peers: ip link set " + orWord(p.netdev, "NETDEV") + " mtu 9000"
	return []Result{warn(name, do, "%s; 4096 bytes need an Ethernet MTU of %d", says, etherMTU)}
}

// portMTU is the path MTU of the active port in bytes, and its netdev's as sysfs has it.
func portMTU(h *Host, m *machine) (mtu int, ether string) {
	p := m.active()
	for _, q := range m.info.Ports {
		if q.Number == p.number {
			mtu = q.ActiveMTU
		}
	}
	if p.layer != "InfiniBand" && p.netdev != "" {
		ether = h.word("sys/class/net", p.netdev, "mtu")
	}
	return mtu, ether
}

// checkUserspace: rdma_cm(7) and the verbs go through device files (udev names them /dev/infiniband/rdma_cm and uverbsN;
// sysfs-class-infiniband: infiniband_verbs/uverbsN/ibdev).
func checkUserspace(h *Host, m *machine, _ Wanted) []Result {
	const name = "device files"
	if m.tcp || m.name == "" {
		return nil
	}
	files := []string{"/dev/infiniband/rdma_cm"}
	for _, u := range h.names("sys/class/infiniband_verbs") {
		if h.word("sys/class/infiniband_verbs", u, "ibdev") == m.name {
			files = append(files, filepath.Join("/dev/infiniband", u))
		}
	}
	if len(files) == 1 {
		return []Result{fail(name, "modprobe ib_uverbs", "%s has no uverbs device", m.name)}
	}
	for _, f := range files {
		if !h.has(f) {
			return []Result{fail(name, "modprobe ib_uverbs rdma_ucm; for good: a line for each in /etc/modules-load.d/corfu.conf", "%s is not there", f)}
		}
		if err := h.Open(f); err != nil {
			return []Result{fail(name, "let the service's group have it by a udev rule, and run this as the service's user", "%v", err)}
		}
	}
	return []Result{good(name, "%s can be opened", strings.Join(files, " and "))}
}

func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") }
