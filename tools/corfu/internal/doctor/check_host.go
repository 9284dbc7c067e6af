package doctor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"corfu/rdma"
)

// checkMemlock: registering memory pins it, and the kernel counts that against RLIMIT_MEMLOCK of the process that registers,
// unless it has CAP_IPC_LOCK (drivers/infiniband/core/umem.c, getrlimit(2), proc(5): /proc/PID/limits and CapEff). A shell's own
// limit says nothing of a service's.
func checkMemlock(h *Host, m *machine, w Wanted) []Result {
	const name = "memlock"
	do := "LimitMEMLOCK=infinity in the service's unit (systemctl edit), or memlock in /etc/security/limits.d for a shell"
	whose, limit := "this process", ""
	switch {
	case m.tcp:
		return nil // nothing is registered with a kernel
	case m.unknown != nil:
		return []Result{fail(name, "systemctl list-units 'corfu-*' shows what there is", "%v", m.unknown)}
	case m.service != nil && m.service.PID == 0:
		whose, limit = w.Service+" (not running)", m.service.Memlock
	case m.service != nil:
		whose = fmt.Sprintf("%s (process %d)", w.Service, m.service.PID)
	}
	if m.process != "" {
		if mayLock(h.word(m.process, "status")) {
			return []Result{good(name, "%s has CAP_IPC_LOCK: no limit binds it", whose)}
		}
		limit = softLimit(h.word(m.process, "limits"), "Max locked memory")
	}
	if limit == "unlimited" || limit == "infinity" {
		return []Result{good(name, "no limit for %s", whose)}
	}
	n, err := strconv.ParseInt(limit, 10, 64)
	switch {
	case err != nil:
		return []Result{warn(name, "run this as root, or as the service's user", "the limit of %s cannot be read", whose)}
	case n < w.Memory:
		return []Result{fail(name, do, "%s may lock %s, and registers about %s", whose, size(n), size(w.Memory))}
	}
	return []Result{warn(name, do, "%s may lock %s: enough for %s as it is, too little for larger windows or more clients", whose, size(n), size(w.Memory))}
}

// softLimit is the first number of a line of /proc/PID/limits.
func softLimit(limits, row string) string {
	for line := range strings.Lines(limits) {
		if rest, ok := strings.CutPrefix(line, row); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				return f[0]
			}
		}
	}
	return ""
}

// mayLock looks for CAP_IPC_LOCK, bit 14 (capabilities(7)), in CapEff of /proc/PID/status.
func mayLock(status string) bool {
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && caps>>14&1 == 1
		}
	}
	return false
}

func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// checkHugePages: /sys/kernel/mm/hugepages (Documentation/admin-guide/mm/hugetlbpage.rst). A card translates fewer, larger pages faster.
func checkHugePages(h *Host, m *machine, w Wanted) []Result {
	const name = "huge pages"
	const dir = "sys/kernel/mm/hugepages/hugepages-2048kB"
	free, err := strconv.ParseInt(h.word(dir, "free_hugepages"), 10, 64)
	need := (w.Memory + rdma.HugePageSize - 1) / rdma.HugePageSize
	do := fmt.Sprintf("sysctl vm.nr_hugepages=%d, and for good in /etc/sysctl.d", need)
	switch {
	case !w.HugePages:
		return []Result{good(name, "not asked for (fabric.huge_pages)")}
	case err != nil:
		return []Result{warn(name, "use a kernel with CONFIG_HUGETLBFS, or take fabric.huge_pages out", "asked for, and this kernel has none of 2 MiB")}
	case m.service != nil && m.service.PID != 0:
		return []Result{good(name, "%s of 2 MiB are in the pool, %d free beside the running service", h.word(dir, "nr_hugepages"), free)}
	case free < need:
		return []Result{warn(name, do, "asked for, and %d of 2 MiB are free where about %d are needed: the rest becomes ordinary pages", free, need)}
	}
	return []Result{good(name, "%d of 2 MiB are free, about %d are needed", free, need)}
}

// orderingSwitches are variables that take away what the log rests on, and where that is documented.
var orderingSwitches = []struct{ name, off, why string }{
	// MLNX_OFED's manual, "Out-of-Order (OOO) Data Placement": packets of a WRITE are put into memory in any order.
	{"MLX5_RELAXED_PACKET_ORDERING_ON", "", "packets of a queue pair are placed out of order"},
	// rdma-core, providers/mlx5/mlx5.c, single_threaded_app: "1" leaves out the locks around doorbells; corfu has many threads.
	{"MLX5_SINGLE_THREADED", "0", "libmlx5 leaves out the locks that several threads need"},
}

// checkOrdering: rules R6 and R7. Regions never ask for IBV_ACCESS_RELAXED_ORDERING (ibv_reg_mr(3)); a variable of the
// environment, the service's if there is one, can have the same effect behind their back.
func checkOrdering(h *Host, m *machine, w Wanted) []Result {
	const name = "ordering"
	env, whose := h.Environ, "this process"
	if w.Service != "" {
		whose = w.Service
		b, err := os.ReadFile(h.path(m.process, "environ")) // proc(5): NUL between them
		if m.process == "" || err != nil {
			return []Result{warn(name, "start the service, and run this as root", "the environment of %s cannot be read", whose)}
		}
		env = strings.Split(string(bytes.TrimRight(b, "\x00")), "\x00")
	}
	var bad []string
	for _, e := range env {
		k, v, _ := strings.Cut(e, "=")
		for _, s := range orderingSwitches {
			if k == s.name && v != "" && v != s.off {
				bad = append(bad, fmt.Sprintf("%s: %s", e, s.why))
			}
		}
	}
	if len(bad) > 0 {
		return []Result{fail(name, "take it out of the environment of corfu (systemctl show -p Environment; /etc/environment)",
			"the environment of %s relaxes what rules R6 and R7 need", whose).with(bad...)}
	}
	return []Result{good(name, "no switch in the environment of %s relaxes ordering", whose).
		with("firmware can as well (mlxconfig query: PCI_WR_ORDERING must not be force_relax); the order test below would show it")}
}

// checkNUMA: numa_node of the card and of the flash (sysfs-bus-pci; -1 is none), and the distance between the nodes
// (Documentation/ABI/stable/sysfs-devices-node: 10 is local).
func checkNUMA(h *Host, m *machine, w Wanted) []Result {
	const name = "numa"
	if m.name == "" || m.soft || m.tcp {
		return nil
	}
	nic := h.word(class, m.name, "device/numa_node")
	if w.Store == "" {
		return []Result{good(name, "%s is at node %s; no store is named to compare it with", m.name, orWord(nic, "-1"))}
	}
	dev, err := h.Device(w.Store)
	if err != nil {
		return []Result{warn(name, "name the store as the unit has it", "%v", err)}
	}
	flash := h.above(filepath.Join("sys/dev/block", dev), "numa_node")
	if n := len(h.numaNodes()); n < 2 || nic == "" || flash == "" || nic == "-1" || flash == "-1" {
		return []Result{good(name, "card and flash are not apart: %d node", max(n, 1))}
	}
	if nic == flash {
		return []Result{good(name, "card and flash are both at node %s", nic)}
	}
	distance := "?"
	list := strings.Fields(h.word("sys/devices/system/node/node"+nic, "distance"))
	if i, err := strconv.Atoi(flash); err == nil && i < len(list) {
		distance = list[i]
	}
	return []Result{warn(name, "put both behind one processor, and run the unit there: NUMAPolicy and CPUAffinity in its service",
		"%s is at node %s, the flash at node %s, distance %s (10 is local)", m.name, nic, flash, distance)}
}

func (h *Host) numaNodes() []string {
	var out []string
	for _, n := range h.names("sys/devices/system/node") {
		if rest, ok := strings.CutPrefix(n, "node"); ok && rest != "" && strings.Trim(rest, "0123456789") == "" {
			out = append(out, n)
		}
	}
	return out
}

// above looks for a file in a directory of sysfs and in all above it: a partition has no numa_node, its controller has.
func (h *Host) above(dir, file string) string {
	at, err := filepath.EvalSymlinks(h.path(dir))
	for top := h.path("sys"); err == nil && strings.HasPrefix(at, top) && at != top; at = filepath.Dir(at) {
		for _, sub := range []string{"", "device"} {
			if b, err := os.ReadFile(filepath.Join(at, sub, file)); err == nil {
				return strings.TrimSpace(string(b))
			}
		}
	}
	return ""
}

// checkPCIe: a card in too small a slot (sysfs-bus-pci: current_link_speed and _width against max_).
func checkPCIe(h *Host, m *machine, _ Wanted) []Result {
	const name = "pcie"
	at := filepath.Join(class, m.name, "device")
	speed, most := h.word(at, "current_link_speed"), h.word(at, "max_link_speed")
	width, wide := h.word(at, "current_link_width"), h.word(at, "max_link_width")
	if m.name == "" || m.tcp || speed == "" || width == "" {
		return nil
	}
	if speed == most && width == wide {
		return []Result{good(name, "%s ×%s, all that the card can", speed, width)}
	}
	return []Result{warn(name, "put it into a slot that has that many lanes, and look whether the BIOS limits the slot", "%s ×%s, the card can %s ×%s", speed, width, most, wide)}
}

// checkIOMMU: iommu_group/type is DMA or DMA-FQ where the card's addresses are translated, identity where not
// (Documentation/ABI/testing/sysfs-kernel-iommu_groups). ACS sends traffic between cards by the root complex, and is told only:
// corfu's data goes through memory, not from card to flash.
func checkIOMMU(h *Host, m *machine, _ Wanted) []Result {
	const name = "iommu"
	if m.name == "" || m.soft || m.tcp {
		return nil
	}
	acs := h.acs(filepath.Join(class, m.name, "device"))
	kind := h.word(class, m.name, "device/iommu_group/type")
	switch {
	case strings.HasPrefix(kind, "DMA"):
		return []Result{warn(name, "add iommu=pt to the kernel's command line (the card then uses addresses as they are)",
			"addresses of %s are translated (%s): every page that it touches costs an IOTLB entry", m.name, kind).with(acs...)}
	case kind == "":
		return []Result{good(name, "none in front of %s", m.name).with(acs...)}
	}
	return []Result{good(name, "%s: the card's addresses are not translated", kind).with(acs...)}
}

// acs looks at the bridges above a PCI device for ACS with P2P request redirect: extended capability 0x0d, control register at 6,
// bit 2 (PCI Express base specification, 7.7.11; <linux/pci_regs.h>: PCI_EXT_CAP_ID_ACS, PCI_ACS_CTRL, PCI_ACS_RR).
func (h *Host) acs(dev string) []string {
	at, err := filepath.EvalSymlinks(h.path(dev))
	if err != nil {
		return nil
	}
	var on []string
	for at = filepath.Dir(at); strings.Contains(filepath.Base(at), ":"); at = filepath.Dir(at) {
		b, err := os.ReadFile(filepath.Join(at, "config"))
		if err == nil && acsRedirects(b) {
			on = append(on, filepath.Base(at))
		}
	}
	if len(on) == 0 {
		return nil
	}
	return []string{"ACS redirects peer-to-peer traffic at " + strings.Join(on, ", ") + "; corfu has none"}
}

func acsRedirects(config []byte) bool {
	const idACS, control, redirect = 0x0d, 6, 1 << 2
	for at, hops := 0x100, 0; at+8 <= len(config) && at >= 0x100 && hops < 48; hops++ { // extended capabilities begin there
		head := binary.LittleEndian.Uint32(config[at:])
		if head&0xffff == idACS {
			return binary.LittleEndian.Uint16(config[at+control:])&redirect != 0
		}
		at = int(head >> 20)
	}
	return false
}

// checkClock: safety needs no clock, but certificates, logs and time-outs do. clocksource: Documentation/ABI/testing/sysfs-devices-clocksource;
// hpet and acpi_pm cost a microsecond for each look, which the latency path pays.
func checkClock(h *Host, _ *machine, _ Wanted) []Result {
	const name = "clock"
	source := h.word("sys/devices/system/clocksource/clocksource0/current_clocksource")
	synced, err := h.Clock()
	switch {
	case source == "hpet" || source == "acpi_pm" || source == "jiffies":
		return []Result{warn(name, "find out why the kernel gave up on tsc: dmesg | grep -i -e clocksource -e tsc", "the clock is read from %s, which is slow", source)}
	case err != nil:
		return []Result{warn(name, "", "adjtimex: %v", err)}
	case !synced:
		return []Result{warn(name, "start chrony or systemd-timesyncd: certificates have dates, and logs are compared", "nobody keeps the clock right (source %s)", orWord(source, "unknown"))}
	}
	return []Result{good(name, "kept right by NTP, read from %s", orWord(source, "unknown"))}
}
