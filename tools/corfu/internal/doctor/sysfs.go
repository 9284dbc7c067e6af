package doctor

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"corfu/rdma/fabric"
)

// path is where a file of the machine lies.
func (h *Host) path(parts ...string) string {
	return filepath.Join(append([]string{h.Root, "/"}, parts...)...)
}

// word is a small file without its line end; "" if it cannot be read.
func (h *Host) word(parts ...string) string {
	b, err := os.ReadFile(h.path(parts...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (h *Host) has(parts ...string) bool {
	_, err := os.Stat(h.path(parts...))
	return err == nil
}

// names in a directory, sorted; none if it is not there.
func (h *Host) names(parts ...string) []string {
	list, _ := os.ReadDir(h.path(parts...))
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// machine is the RDMA device that is looked at, and how it was come by.
type machine struct {
	names   []string           // of all RDMA devices
	err     error              // why the verbs say nothing
	tcp     bool               // nobody wants an RDMA device
	name    string             // "" if there is none
	info    *fabric.DeviceInfo // what the verbs say; nil if nothing
	ports   []port
	soft    bool   // Soft-RoCE: no hardware behind it
	process string // "/proc/self", or that of the service
	service *Service
	unknown error // why the service cannot be looked at
}

// port is a port of the device as sysfs tells it: Documentation/ABI/stable/sysfs-class-infiniband of the kernel.
type port struct {
	number                   int
	state, phys, layer, rate string // "4: ACTIVE", "5: LinkUp", "Ethernet", "100 Gb/sec (4X EDR)"
	gids                     []gid
	netdev                   string // of its GIDs, on Ethernet
}

type gid struct {
	index  int
	kind   string // "IB/RoCE v1", "RoCE v2"
	addr   netip.Addr
	netdev string
}

const class = "sys/class/infiniband"

// look finds the device that is wanted: the one named, or the first that the verbs can use, or the first there is.
func (h *Host) look(w Wanted) *machine {
	m := &machine{names: h.names(class), tcp: w.Provider == fabric.TCP, process: "proc/self"}
	h.lookService(m, w.Service)
	infos, err := h.Devices()
	m.err = err
	switch i := slices.IndexFunc(infos, func(d fabric.DeviceInfo) bool { return d.Usable }); {
	case w.Device != "":
		if slices.Contains(m.names, w.Device) {
			m.name = w.Device
		}
	case i >= 0:
		m.name = infos[i].Name
	case len(m.names) > 0:
		m.name = m.names[0]
	}
	if m.name == "" {
		return m
	}
	if i := slices.IndexFunc(infos, func(d fabric.DeviceInfo) bool { return d.Name == m.name }); i >= 0 {
		m.info = &infos[i]
	}
	m.soft = h.has(class, m.name, "parent") // rxe and siw name their netdev there, and have no device link
	for _, n := range h.names(class, m.name, "ports") {
		m.ports = append(m.ports, h.port(m.name, n))
	}
	return m
}

func (h *Host) lookService(m *machine, service string) {
	if service == "" {
		return
	}
	m.service, m.unknown = h.Systemd(service)
	switch {
	case m.unknown != nil:
		m.process = ""
	case m.service.PID == 0:
		m.process = ""
	default:
		m.process = filepath.Join("proc", strconv.Itoa(m.service.PID))
	}
}

func (h *Host) port(device, number string) port {
	at := filepath.Join(class, device, "ports", number)
	n, _ := strconv.Atoi(number)
	p := port{number: n, state: h.word(at, "state"), phys: h.word(at, "phys_state"), layer: h.word(at, "link_layer"), rate: h.word(at, "rate")}
	indices := h.names(at, "gids")
	slices.SortStableFunc(indices, func(a, b string) int { return len(a) - len(b) })
	for _, i := range indices {
		a, err := netip.ParseAddr(h.word(at, "gids", i))
		if err != nil || a.IsUnspecified() { // an entry that is not in use
			continue
		}
		g := gid{kind: h.word(at, "gid_attrs/types", i), addr: a.Unmap(), netdev: h.word(at, "gid_attrs/ndevs", i)}
		g.index, _ = strconv.Atoi(i)
		p.gids = append(p.gids, g)
		if p.netdev == "" {
			p.netdev = g.netdev
		}
	}
	return p
}

// active is the first port that is up, else the first.
func (m *machine) active() *port {
	for i := range m.ports {
		if strings.HasPrefix(m.ports[i].state, "4:") {
			return &m.ports[i]
		}
	}
	if len(m.ports) > 0 {
		return &m.ports[0]
	}
	return nil
}
