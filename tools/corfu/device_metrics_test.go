package main

import (
	"io"
	"net/http"
	"regexp"
	"strconv"
	"testing"
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
