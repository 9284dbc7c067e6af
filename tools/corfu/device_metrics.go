package main

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/Mellanox/rdmamap"
	"github.com/prometheus/client_golang/prometheus"

	"corfu/rdma"
)

// deviceCollector shows what the kernel counts at the ports of the RDMA device in use: /sys/class/infiniband/DEVICE/ports/N/counters
// and hw_counters (Documentation/ABI/stable/sysfs-class-infiniband). What is there differs from driver to driver. Of a device with several
// ports those count that the daemon's address belongs to: the others may well be unused, and down.
type deviceCollector struct {
	info  rdma.Info
	class string // sysfs directory of the devices; "" means classDir

	mu   sync.Mutex
	used []string // ports that the address belongs to, as last seen; it stays known when a port that fails loses the address
}

var portLabels = []string{"device", "port"}

var (
	fabricInfoDesc = prometheus.NewDesc("corfu_fabric_info", "1; the labels say what carries the operations: provider verbs or tcp, and the device.",
		[]string{"provider", "device"}, nil)
	portActiveDesc = prometheus.NewDesc("corfu_rdma_port_active", "1 while the port of the RDMA device is ACTIVE: each port that the daemon's address belongs to. Of verbs alone.", portLabels, nil)
	portCountDesc  = prometheus.NewDesc("corfu_rdma_port_counter_total",
		"A counter of a port, as driver and device keep it, by its name in sysfs; group is counters (standard) or hw_counters (the driver's own). Of verbs alone.",
		append([]string{"group", "counter"}, portLabels...), nil)
	portReceivedDesc = prometheus.NewDesc("corfu_rdma_port_received_bytes_total", "Bytes that the port received (port_rcv_data, four bytes each). Where the device counts them.", portLabels, nil)
	portSentDesc     = prometheus.NewDesc("corfu_rdma_port_transmitted_bytes_total", "Bytes that the port sent (port_xmit_data, four bytes each). Where the device counts them.", portLabels, nil)
)

// classDir is where rdmamap looks, too.
const classDir = "/sys/class/infiniband"

// lane is what port_rcv_data and port_xmit_data count in, in bytes: octets divided by 4 (InfiniBand specification, PortCounters).
const lane = 4

// notCounted are files among the counters that count nothing: lifespan is how long the driver keeps a value, in milliseconds.
var notCounted = map[string]bool{"lifespan": true}

// Describe implements prometheus.Collector.
func (c *deviceCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{fabricInfoDesc, portActiveDesc, portCountDesc, portReceivedDesc, portSentDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *deviceCollector) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(fabricInfoDesc, prometheus.GaugeValue, 1, c.info.Provider, c.info.Name)
	if c.info.Provider != "verbs" {
		return
	}
	for _, port := range c.ports() {
		if n, err := strconv.Atoi(port); err == nil {
			c.port(ch, n, port)
		}
	}
}

// dir returns the sysfs directory of the device's ports.
func (c *deviceCollector) dir() string {
	return filepath.Join(cmp.Or(c.class, classDir), c.info.Name, "ports")
}

// ports returns the names of the ports in use. Where none is known to have the address, all count. A device that was unplugged has none.
func (c *deviceCollector) ports() (all []string) {
	list, err := os.ReadDir(c.dir())
	if err != nil {
		return nil // nothing is known, and so nothing is said
	}
	var used []string
	for _, p := range list {
		all = append(all, p.Name())
		if c.owns(p.Name()) {
			used = append(used, p.Name())
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(used) > 0 {
		c.used = used
	}
	if len(c.used) > 0 {
		return c.used
	}
	return all
}

// owns reports whether the daemon's address belongs to a port: with RoCE it is in the port's table of GIDs, an IPv4 address as a mapped
// one (gids/N in Documentation/ABI/stable/sysfs-class-infiniband); with InfiniBand it is one of an interface whose dev_port is the port less
// one (drivers/infiniband/ulp/ipoib/ipoib_main.c).
func (c *deviceCollector) owns(port string) bool {
	addr, err := netip.ParseAddr(c.info.Addr)
	if err != nil {
		return false
	}
	gids, _ := filepath.Glob(filepath.Join(c.dir(), port, "gids", "*"))
	for _, file := range gids {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // an entry that is empty
		}
		if g, err := netip.ParseAddr(strings.TrimSpace(string(b))); err == nil && g.Unmap() == addr.Unmap() {
			return true
		}
	}
	link, err := linkOf(addr.Unmap())
	if err != nil {
		return false
	}
	if device, err := rdmamap.GetRdmaDeviceForNetdevice(link); err != nil || device != c.info.Name {
		return false
	}
	b, err := os.ReadFile(filepath.Join("/sys/class/net", link, "dev_port"))
	if err != nil {
		return false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return err == nil && strconv.Itoa(n+1) == port
}

// linkOf returns the name of the network interface that has the address.
func linkOf(addr netip.Addr) (string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == addr {
				return i.Name, nil
			}
		}
	}
	return "", fmt.Errorf("no network interface has the address %v", addr)
}

func (c *deviceCollector) port(ch chan<- prometheus.Metric, n int, port string) {
	if b, err := os.ReadFile(filepath.Join(c.dir(), port, "state")); err == nil {
		active := 0.0
		if strings.HasPrefix(string(b), "4:") { // IB_PORT_ACTIVE
			active = 1
		}
		ch <- prometheus.MustNewConstMetric(portActiveDesc, prometheus.GaugeValue, active, c.info.Name, port)
	}
	for group, read := range map[string]func(string, int) ([]rdmamap.RdmaStatEntry, error){
		rdmamap.RdmaCountersDir: rdmamap.GetRdmaSysfsStats, rdmamap.RdmaHwCountersDir: rdmamap.GetRdmaSysfsHwStats,
	} {
		list, err := read(c.info.Name, n)
		if err != nil {
			continue // the driver has none of these
		}
		for _, e := range list {
			if notCounted[e.Name] {
				continue
			}
			ch <- prometheus.MustNewConstMetric(portCountDesc, prometheus.CounterValue, float64(e.Value), group, e.Name, c.info.Name, port)
			switch e.Name {
			case "port_rcv_data":
				ch <- prometheus.MustNewConstMetric(portReceivedDesc, prometheus.CounterValue, float64(e.Value)*lane, c.info.Name, port)
			case "port_xmit_data":
				ch <- prometheus.MustNewConstMetric(portSentDesc, prometheus.CounterValue, float64(e.Value)*lane, c.info.Name, port)
			}
		}
	}
}
