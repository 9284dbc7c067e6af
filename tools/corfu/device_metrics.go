package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/Mellanox/rdmamap"
	"github.com/prometheus/client_golang/prometheus"

	"corfu/rdma"
)

// deviceCollector shows what the kernel counts at the ports of the RDMA device in use: /sys/class/infiniband/DEVICE/ports/N/counters
// and hw_counters (Documentation/ABI/stable/sysfs-class-infiniband). What is there differs from driver to driver.
type deviceCollector struct{ info rdma.Info }

var portLabels = []string{"device", "port"}

var (
	fabricInfoDesc = prometheus.NewDesc("corfu_fabric_info", "1; the labels say what carries the operations: provider verbs or tcp, and the device.",
		[]string{"provider", "device"}, nil)
	portActiveDesc = prometheus.NewDesc("corfu_rdma_port_active", "1 while the port of the RDMA device is ACTIVE. Of verbs alone.", portLabels, nil)
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
func (c deviceCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{fabricInfoDesc, portActiveDesc, portCountDesc, portReceivedDesc, portSentDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c deviceCollector) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(fabricInfoDesc, prometheus.GaugeValue, 1, c.info.Provider, c.info.Name)
	if c.info.Provider != "verbs" {
		return
	}
	ports, err := os.ReadDir(filepath.Join(classDir, c.info.Name, "ports"))
	if err != nil {
		return // it was unplugged: nothing is known, and so nothing is said
	}
	for _, p := range ports {
		n, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		c.port(ch, n, p.Name())
	}
}

func (c deviceCollector) port(ch chan<- prometheus.Metric, n int, port string) {
	if b, err := os.ReadFile(filepath.Join(classDir, c.info.Name, "ports", port, "state")); err == nil {
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
