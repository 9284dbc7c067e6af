package fabric

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/Mellanox/rdmamap"
	"github.com/vishvananda/netlink"

	ib "corfu/rdma/internal/verbs"
	"corfu/rdma/verbs"
)

// DeviceInfo describes an RDMA device of this machine.
type DeviceInfo struct {
	Name        string `json:"name"`                  // "mlx5_0", "rxe0"
	Driver      string `json:"driver,omitempty"`      // kernel driver: "mlx5_core", "rdma_rxe"
	Firmware    string `json:"firmware,omitempty"`    // version
	Atomics     string `json:"atomics,omitempty"`     // "none", "hca", "global"; empty if unknown
	MaxRDAtomic int    `json:"maxRDAtomic,omitempty"` // READs and atomics in flight on one connection
	Ports       []Port `json:"ports,omitempty"`
	Usable      bool   `json:"usable"`            // provider "verbs" can use it
	Addr        string `json:"addr,omitempty"`    // IP address that it would use
	Netdev      string `json:"netdev,omitempty"`  // network interface that has the address: a VLAN's own, not the one under it
	Problem     string `json:"problem,omitempty"` // why it cannot
}

// Port is a port of a device.
type Port struct {
	Number    int    `json:"number"`
	State     string `json:"state"`     // "active", "down", …
	LinkLayer string `json:"linkLayer"` // "Ethernet", "InfiniBand"
	ActiveMTU int    `json:"activeMTU"` // bytes of RDMA payload in a packet, 256 to 4096
	Netdev    string `json:"netdev,omitempty"`
	NetdevMTU int    `json:"netdevMTU,omitempty"` // bytes
	GIDs      []GID  `json:"gids,omitempty"`
}

// GID is an address of a port.
type GID struct {
	Index  int    `json:"index"`
	Type   string `json:"type"` // "IB", "RoCE v1", "RoCE v2"
	GID    string `json:"gid"`  // as IPv6
	Addr   string `json:"addr"` // as IP address, IPv4 where it is mapped
	Netdev string `json:"netdev,omitempty"`
}

// Devices lists the RDMA devices of this machine, by name. Without any the list
// is empty, which is no error; without libibverbs, or without the right to open
// a device, what sysfs and netlink know is listed, with the Problem.
func Devices() ([]DeviceInfo, error) {
	names := rdmamap.GetRdmaDeviceList()
	firmware := map[string]string{}
	if links, err := netlink.RdmaLinkList(); err == nil { // fails where the kernel has no RDMA
		for _, l := range links {
			names = append(names, l.Attrs.Name)
			firmware[l.Attrs.Name] = l.Attrs.FirmwareVersion
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return []DeviceInfo{}, nil
	}
	known, problem := ib.Devices()
	links := netdevs()
	out := make([]DeviceInfo, 0, len(names))
	for _, name := range names {
		d := DeviceInfo{Name: name, Driver: driver(name), Firmware: firmware[name]}
		i := slices.IndexFunc(known, func(k ib.DeviceInfo) bool { return k.Name == name })
		switch {
		case i >= 0 && known[i].Err != nil:
			d.Problem = known[i].Err.Error()
		case i >= 0:
			d.fill(known[i], links)
		case problem != nil:
			d.Problem = problem.Error()
		default:
			d.Problem = "libibverbs does not list it: is the module ib_uverbs loaded, and the driver's provider installed?"
		}
		if i < 0 || known[i].Err != nil {
			d.Ports = sysfsPorts(name)
		}
		out = append(out, d)
	}
	return out, nil
}

// fill adds what the verbs say.
func (d *DeviceInfo) fill(k ib.DeviceInfo, links map[int]link) {
	if k.Firmware != "" {
		d.Firmware = k.Firmware
	}
	d.Atomics = atomicsName(k.AtomicCap)
	d.MaxRDAtomic = min(k.MaxRDAtom, k.MaxInit)
	for _, p := range k.Ports {
		d.Ports = append(d.Ports, port(k.Name, p, links))
	}
	addr, problem := verbs.Usable(k)
	if d.Problem = problem; problem == "" {
		d.Usable, d.Addr, d.Netdev = true, addr.String(), d.owner(addr)
	}
}

// owner returns the network interface of an address of the device. A port's table of GIDs holds the addresses of all interfaces over it, VLANs
// among them, each with its interface (ndev_ifindex of ibv_query_gid_table(3); drivers/infiniband/core/roce_gid_mgmt.c). With InfiniBand the
// address is one of IPoIB.
func (d *DeviceInfo) owner(addr netip.Addr) string {
	netdev := ""
	for _, p := range d.Ports {
		for _, g := range p.GIDs {
			if g.Type == ib.GIDRoCEv2.String() && g.Addr == addr.String() && g.Netdev != "" {
				return g.Netdev
			}
		}
		netdev = cmp.Or(netdev, p.Netdev)
	}
	return netdev
}

func port(device string, p ib.Port, links map[int]link) Port {
	out := Port{Number: p.Number, State: stateName(p.State), LinkLayer: layerName(p.LinkLayer), ActiveMTU: p.ActiveMTU}
	for _, g := range p.GIDs {
		a := netip.AddrFrom16(g.Raw)
		l := links[g.IfIndex]
		out.GIDs = append(out.GIDs, GID{
			Index: g.Index, Type: g.Type.String(), GID: a.StringExpanded(), Addr: a.Unmap().String(), Netdev: l.name,
		})
		if out.Netdev == "" {
			out.Netdev, out.NetdevMTU = l.name, l.mtu
		}
	}
	if out.Netdev == "" {
		for _, l := range links {
			if n, err := rdmamap.GetRdmaDeviceForNetdevice(l.name); err == nil && n == device {
				out.Netdev, out.NetdevMTU = l.name, l.mtu
				break
			}
		}
	}
	return out
}

type link struct {
	name string
	mtu  int
}

// netdevs are the network interfaces by index; none if netlink does not answer.
func netdevs() map[int]link {
	out := map[int]link{}
	list, err := netlink.LinkList()
	if err != nil {
		return out
	}
	for _, l := range list {
		a := l.Attrs()
		out[a.Index] = link{a.Name, a.MTU}
	}
	return out
}

// driver is the kernel driver of a device. Soft-RoCE has no parent device and so
// no driver link, but a file that names its netdev.
func driver(device string) string {
	dir := filepath.Join(rdmamap.RdmaClassDir, device)
	if to, err := os.Readlink(filepath.Join(dir, "device", "driver")); err == nil {
		return filepath.Base(to)
	}
	if _, err := os.Stat(filepath.Join(dir, "parent")); err == nil {
		return "rdma_rxe"
	}
	return ""
}

// sysfsPorts is what is known of a device's ports without the verbs.
func sysfsPorts(device string) []Port {
	var out []Port
	for _, name := range rdmamap.GetPorts(device) {
		n, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		dir := filepath.Join(rdmamap.RdmaClassDir, device, rdmamap.RdmaPortsdir, name)
		state := word(filepath.Join(dir, "state")) // "4: ACTIVE"
		if _, s, ok := strings.Cut(state, ": "); ok {
			state = strings.ToLower(s)
		}
		out = append(out, Port{Number: n, State: state, LinkLayer: word(filepath.Join(dir, "link_layer"))})
	}
	return out
}

func word(path string) string {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func atomicsName(c int) string {
	switch c {
	case ib.AtomicNone:
		return "none"
	case ib.AtomicHCA:
		return "hca"
	case ib.AtomicGlobal:
		return "global"
	}
	return fmt.Sprintf("ibv_atomic_cap(%d)", c)
}

// stateName names enum ibv_port_state.
func stateName(s int) string {
	names := []string{"nop", "down", "init", "armed", "active", "active-defer"}
	if s >= 0 && s < len(names) {
		return names[s]
	}
	return fmt.Sprintf("ibv_port_state(%d)", s)
}

func layerName(l int) string {
	switch l {
	case 0, ib.LinkLayerIB: // IBV_LINK_LAYER_UNSPECIFIED is InfiniBand, in old drivers
		return "InfiniBand"
	case ib.LinkLayerEthernet:
		return "Ethernet"
	}
	return fmt.Sprintf("link layer %d", l)
}
