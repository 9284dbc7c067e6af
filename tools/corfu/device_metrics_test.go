package main

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"corfu/rdma"
)

// The kernel's counters of the device in use are among the metrics: in the lab those of Soft-RoCE, which rise with an append; with the
// provider tcp there are none, and none are made up.
func TestDeviceCountersAreThoseOfTheKernel(t *testing.T) {
	c := newCLI(t)
	dev := startDev(c)
	scrape := func() string {
		t.Helper()
		r, err := http.Get("http://" + dev.word("http") + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	value := func(text, pattern string) (float64, bool) {
		m := regexp.MustCompile(`(?m)^` + pattern + ` (\S+)$`).FindStringSubmatch(text)
		if m == nil {
			return 0, false
		}
		v, err := strconv.ParseFloat(m[1], 64)
		return v, err == nil
	}
	const sent, active = `corfu_rdma_port_counter_total\{counter="sent_pkts",device="\w+",group="hw_counters",port="1"\}`, `corfu_rdma_port_active\{device="\w+",port="1"\}`
	before := scrape()
	if v, ok := value(before, `corfu_fabric_info\{device="\w+",provider="`+testProvider()+`"\}`); !ok || v != 1 {
		t.Errorf("corfu_fabric_info: %v, %v", v, ok)
	}
	was, counted := value(before, sent)
	up, known := value(before, active)
	if counted != inLab() || known != inLab() || (known && up != 1) {
		t.Fatalf("packets sent: %v (there: %v); port active: %v (there: %v)", was, counted, up, known)
	}
	if !inLab() {
		return
	}
	c.ok("append", "hello")
	if now, ok := value(scrape(), sent); !ok || now <= was {
		t.Errorf("packets sent: %v, and %v before an append", now, was)
	}
}

// Of a device with two ports the one that has the daemon's address counts, also once it has lost the address; the other may be unused.
func TestOnlyThePortInUseCounts(t *testing.T) {
	class := t.TempDir()
	write := func(port, file, text string) {
		t.Helper()
		path := filepath.Join(class, "mlx5_0", "ports", port, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text+"\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write("1", "state", "1: DOWN")
	write("1", "gids/0", "fe80:0000:0000:0000:0002:0aff:fe4d:0001")
	write("2", "state", "4: ACTIVE")
	write("2", "gids/0", "0000:0000:0000:0000:0000:0000:0000:0000")
	write("2", "gids/3", "0000:0000:0000:0000:0000:ffff:0a4d:0002")
	c := &deviceCollector{info: rdma.Info{Provider: "verbs", Name: "mlx5_0", Addr: "10.77.0.2"}, class: class}
	look := func(want string) {
		t.Helper()
		got := "# HELP corfu_rdma_port_active 1 while the port of the RDMA device is ACTIVE: each port that the daemon's address belongs to. Of verbs alone.\n" +
			"# TYPE corfu_rdma_port_active gauge\n" + want
		if err := testutil.CollectAndCompare(c, strings.NewReader(got), "corfu_rdma_port_active"); err != nil {
			t.Error(err)
		}
	}
	look("corfu_rdma_port_active{device=\"mlx5_0\",port=\"2\"} 1\n")
	write("2", "state", "1: DOWN")
	write("2", "gids/3", "0000:0000:0000:0000:0000:0000:0000:0000")
	look("corfu_rdma_port_active{device=\"mlx5_0\",port=\"2\"} 0\n")
	// One whose address is nobody's that is known: both count.
	c = &deviceCollector{info: rdma.Info{Provider: "verbs", Name: "mlx5_0", Addr: "10.77.0.9"}, class: class}
	look("corfu_rdma_port_active{device=\"mlx5_0\",port=\"1\"} 0\ncorfu_rdma_port_active{device=\"mlx5_0\",port=\"2\"} 0\n")
}
