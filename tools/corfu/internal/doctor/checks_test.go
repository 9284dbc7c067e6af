package doctor

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"corfu/rdma/fabric"
)

var update = flag.Bool("update", false, "write testdata/*.want anew")

// plant makes the files of a recorded machine below a directory of its own, and the lines of over on top.
func plant(t *testing.T, name, over string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".tree"))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for line := range strings.Lines(string(text) + over) {
		line = strings.TrimRight(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		if path, target, ok := strings.Cut(line, " -> "); ok {
			at := filepath.Join(root, path)
			check(t, os.MkdirAll(filepath.Dir(at), 0o755), os.RemoveAll(at), os.Symlink(target, at))
		} else if path, ok := strings.CutSuffix(line, " gone"); ok {
			check(t, os.RemoveAll(filepath.Join(root, path)))
		} else if path, content, ok := strings.Cut(line, " ="); ok {
			at := filepath.Join(root, path)
			content = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\0`, "\x00").Replace(strings.TrimPrefix(content, " "))
			check(t, os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(content+"\n"), 0o644))
		} else {
			t.Fatalf("%s: what is %q?", name, line)
		}
	}
	return root
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// recorded is a machine of testdata, with what its files do not say.
func recorded(t *testing.T, name, over string) (*Host, Wanted) {
	info := map[string]fabric.DeviceInfo{
		"mlx5-roce": {Name: "mlx5_0", Driver: "mlx5_core", Firmware: "16.35.2000", Atomics: "hca", MaxRDAtomic: 16, Usable: true, Addr: "10.0.0.5",
			Ports: []fabric.Port{{Number: 1, ActiveMTU: 4096}}},
		"ib": {Name: "mlx5_0", Driver: "mlx5_core", Firmware: "10.16.1200", Atomics: "hca", MaxRDAtomic: 16, Usable: true, Addr: "10.1.0.5",
			Ports: []fabric.Port{{Number: 1, ActiveMTU: 2048}}},
		"rxe": {Name: "rxe0", Driver: "rdma_rxe", Atomics: "hca", MaxRDAtomic: 128, Problem: "no routable address (GID of type RoCE v2, or IPoIB)",
			Ports: []fabric.Port{{Number: 1, ActiveMTU: 1024}}},
	}
	h := &Host{
		Root:    plant(t, name, over),
		Environ: []string{"LANG=C"},
		Devices: func() ([]fabric.DeviceInfo, error) {
			if d, ok := info[name]; ok {
				return []fabric.DeviceInfo{d}, nil
			}
			return nil, nil
		},
		PFC:     func(string) (PFC, error) { return PFC{Enabled: 1 << 3, Classes: 8}, nil },
		Clock:   func() (bool, error) { return name != "rxe", nil },
		Device:  func(string) (string, error) { return map[string]string{"mlx5-roce": "259:1", "ib": "253:0"}[name], nil },
		Systemd: func(string) (*Service, error) { return &Service{PID: 4711, User: "corfu", Memlock: "infinity"}, nil },
		Open:    func(string) error { return nil },
	}
	w := Wanted{Provider: "auto", Memory: 40 << 20}
	switch name {
	case "mlx5-roce":
		w = Wanted{Provider: "verbs", Memory: 40 << 20, HugePages: true, Store: "/dev/nvme1n1", Service: "corfu-unit@1"}
	case "ib":
		w.Store = "/var/lib/corfu/unit-1"
	}
	return h, w
}

// lines prints results as the tests compare them: everything.
func lines(rs []Result) string {
	var b strings.Builder
	for _, r := range rs {
		fmt.Fprintf(&b, "%s %s: %s\n", r.State, r.Name, r.Says)
		for _, d := range r.Detail {
			fmt.Fprintf(&b, "    %s\n", d)
		}
		if r.Do != "" {
			fmt.Fprintf(&b, "  → %s\n", r.Do)
		}
	}
	return b.String()
}

func TestRecordedMachines(t *testing.T) {
	for _, name := range []string{"mlx5-roce", "ib", "rxe", "none"} {
		h, w := recorded(t, name, "")
		got := lines(h.Checks(w))
		path := filepath.Join("testdata", name+".want")
		if *update {
			check(t, os.WriteFile(path, []byte(got), 0o644))
		}
		want, err := os.ReadFile(path)
		if err != nil || got != string(want) {
			t.Errorf("%s (%v): got\n%swant\n%s", name, err, got, want)
		}
	}
}

const (
	nic  = "sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/"
	ibp  = nic + "infiniband/mlx5_0/ports/1/"
	lock = `proc/4711/limits = Max locked memory         `
)

// Each fault changes the one line that it is about, and that says what is wrong.
func TestEachFaultIsFoundAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		fault, over string
		wanted      func(*Wanted)
		host        func(*Host)
		want        string // "state name: words"; several with | between
	}{
		{fault: "cable out", over: ibp + "state = 1: DOWN\n" + ibp + "phys_state = 3: Disabled\n", want: "failure port: port 1 is down, link disabled"},
		{fault: "no v2", over: ibp + "gid_attrs/types/1 = IB/RoCE v1\n" + ibp + "gid_attrs/types/3 = IB/RoCE v1\n", want: "failure gid: no GID of type RoCE v2"},
		{fault: "link-local only", over: ibp + "gids/3 = fe80:0000:0000:0000:0e42:a1ff:fe00:0009\n", want: "failure gid: all GIDs of type RoCE v2 are link-local"},
		{fault: "v2 at another index", over: ibp + "gid_attrs/types/3 = IB/RoCE v1\n" + ibp + "gid_attrs/types/2 = RoCE v2\n", want: "ok gid: RoCE v2 at 10.0.0.5 (index 2, ens1)"},
		{fault: "other address", wanted: func(w *Wanted) { w.Addr = "10.9.9.9" }, want: "failure gid: no GID of type RoCE v2 has the address 10.9.9.9"},
		{fault: "no uverbs", over: "sys/class/infiniband_verbs gone\n", want: "failure device files: mlx5_0 has no uverbs device"},
		{fault: "no rdma_cm", over: "dev/infiniband/rdma_cm gone\n", want: "failure device files: /dev/infiniband/rdma_cm is not there"},
		{fault: "not mine", host: func(h *Host) { h.Open = func(p string) error { return fmt.Errorf("open %s: permission denied", p) } },
			want: "failure device files: open /dev/infiniband/rdma_cm: permission denied"},
		{fault: "service with the distribution's limit", over: lock + "8388608              8388608              bytes\n",
			want: "failure memlock: corfu-unit@1 (process 4711) may lock 8 MiB, and registers about 40 MiB"},
		{fault: "service with a limit that just does", over: lock + "50331648              50331648              bytes\n",
			want: "warning memlock: corfu-unit@1 (process 4711) may lock 48 MiB: enough"},
		{fault: "service with the capability", over: lock + "65536              65536              bytes\nproc/4711/status = CapEff:\t0000000000004000\n", want: "ok memlock: corfu-unit@1 (process 4711) has CAP_IPC_LOCK"},
		{fault: "service stopped", host: func(h *Host) {
			h.Systemd = func(string) (*Service, error) { return &Service{Memlock: "8388608"}, nil }
		}, want: "failure memlock: corfu-unit@1 (not running) may lock 8 MiB|ok huge pages: 64 of 2 MiB are free, about 20|warning ordering: the environment of corfu-unit@1 cannot be read"},
		{fault: "no such service", host: func(h *Host) {
			h.Systemd = func(s string) (*Service, error) { return nil, errors.New("systemd does not know " + s) }
		}, want: "failure memlock: systemd does not know corfu-unit@1|ok huge pages: 64 of 2 MiB are free, about 20|warning ordering: the environment"},
		{fault: "relaxed ordering in the service", over: `proc/4711/environ = LANG=C\0MLX5_RELAXED_PACKET_ORDERING_ON=all\0` + "\n",
			want: "failure ordering: the environment of corfu-unit@1 relaxes what rules R6 and R7 need"},
		{fault: "relaxed ordering in this process, not the service", host: func(h *Host) { h.Environ = []string{"MLX5_RELAXED_PACKET_ORDERING_ON=all"} }},
		{fault: "one thread", over: `proc/4711/environ = MLX5_SINGLE_THREADED=1\0` + "\n", want: "failure ordering"},
		{fault: "switched off", over: `proc/4711/environ = MLX5_SINGLE_THREADED=0\0MLX5_RELAXED_PACKET_ORDERING_ON=\0` + "\n"},
		{fault: "PFC off", host: func(h *Host) { h.PFC = func(string) (PFC, error) { return PFC{Classes: 8}, nil } }, want: "warning pfc: off for all priorities of ens1"},
		{fault: "no DCB", host: func(h *Host) { h.PFC = func(string) (PFC, error) { return PFC{}, errNoDCB } }, want: "warning pfc: not readable on ens1"},
		{fault: "ECN half on", over: "sys/class/net/ens1/ecn/roce_rp/enable/3 = 0\n", want: "warning ecn: roce_rp is off"},
		{fault: "ECN unknown", over: "sys/class/net/ens1/ecn gone\n", want: "warning ecn: not readable on ens1"},
		{fault: "DSCP by the vendor's file", over: "sys/kernel/config gone\nsys/class/infiniband/mlx5_0/tc/1/traffic_class = Global tclass=104\n", want: "ok dscp: 26 (type of service 104)"},
		{fault: "DSCP unknown", over: "sys/kernel/config gone\n", want: "warning dscp: not readable"},
		{fault: "DSCP 0", over: "sys/kernel/config/rdma_cm/mlx5_0/ports/1/default_roce_tos = 0\n", want: "warning dscp: 0"},
		{fault: "far flash", over: "sys/devices/pci0000:3a/0000:3a:02.0/0000:3c:00.0/numa_node = 1\n", want: "warning numa: mlx5_0 is at node 0, the flash at node 1, distance 21"},
		{fault: "half a slot", over: nic + "current_link_width = 8\n", want: "warning pcie: 16.0 GT/s PCIe ×8, the card can 16.0 GT/s PCIe ×16"},
		{fault: "IOMMU", over: "sys/kernel/iommu_groups/42/type = DMA-FQ\n", want: "warning iommu: addresses of mlx5_0 are translated (DMA-FQ)"},
		{fault: "slow clock", over: "sys/devices/system/clocksource/clocksource0/current_clocksource = acpi_pm\n", want: "warning clock: the clock is read from acpi_pm"},
		{fault: "wrong clock", host: func(h *Host) { h.Clock = func() (bool, error) { return false, nil } }, want: "warning clock: nobody keeps the clock right"},
		{fault: "no atomics", host: devices(func(d *fabric.DeviceInfo) { d.Atomics, d.Usable, d.Problem = "none", false, "no atomic operations" }),
			want: "failure device: mlx5_0 cannot be used: no atomic operations|failure atomics: mlx5_0 has no atomic operations"},
		{fault: "small MTU", host: devices(func(d *fabric.DeviceInfo) { d.Ports[0].ActiveMTU = 1024 }), over: "sys/class/net/ens1/mtu = 1500\n",
			want: "warning path mtu: 1024 bytes (ens1 has 1500): a page of 4096 bytes takes 4 packets"},
	} {
		base, w := recorded(t, "mlx5-roce", "")
		before := strings.Split(lines(base.Checks(w)), "\n")
		h, w := recorded(t, "mlx5-roce", c.over)
		if c.wanted != nil {
			c.wanted(&w)
		}
		if c.host != nil {
			c.host(h)
		}
		wants := strings.Split(c.want, "|")
		if c.want == "" {
			wants = nil
		}
		var changed []string
		for _, line := range strings.Split(lines(h.Checks(w)), "\n") {
			if !strings.HasPrefix(line, " ") && !contains(before, line) {
				changed = append(changed, line)
			}
		}
		for i, line := range changed {
			if i >= len(wants) || !strings.HasPrefix(line, wants[i]) {
				t.Errorf("%s: %q, want %q", c.fault, changed, wants)
				break
			}
		}
		if len(changed) < len(wants) {
			t.Errorf("%s: %q, want %q", c.fault, changed, wants)
		}
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// devices changes what the verbs say.
func devices(change func(*fabric.DeviceInfo)) func(*Host) {
	return func(h *Host) {
		before := h.Devices
		h.Devices = func() ([]fabric.DeviceInfo, error) {
			list, err := before()
			change(&list[0])
			return list, err
		}
	}
}

func TestDeviceThatIsNotThere(t *testing.T) {
	h, w := recorded(t, "none", "")
	w.Provider = "verbs"
	if got := h.Checks(w)[0]; got.State != Failure || !strings.Contains(got.Says, "no RDMA device") {
		t.Errorf("verbs asked for: %+v", got)
	}
	w.Provider = "tcp"
	if got := h.Checks(w)[0]; got.State != OK {
		t.Errorf("tcp asked for: %+v", got)
	}
	h, w = recorded(t, "mlx5-roce", "")
	w.Device = "mlx5_7"
	if got := h.Checks(w)[0]; got.State != Failure || !strings.Contains(got.Says, "no RDMA device mlx5_7") {
		t.Errorf("another device: %+v", got)
	}
	w.Device = ""
	h.Devices = func() ([]fabric.DeviceInfo, error) { return nil, errors.New("libibverbs.so.1: cannot open\nreally") }
	if got := h.Checks(w)[0]; got.State != Failure || got.Says != "mlx5_0: libibverbs.so.1: cannot open; really" {
		t.Errorf("no libibverbs: %+v", got)
	}
}

// A configuration space with AER and then ACS (PCI Express base specification, 7.6.3 and 7.7.11).
func TestACS(t *testing.T) {
	config := make([]byte, 0x1000)
	put := func(at int, b ...byte) { copy(config[at:], b) }
	put(0x100, 0x01, 0x00, 0x01, 0x14) // AER, version 1, next at 0x140
	put(0x140, 0x0d, 0x00, 0x01, 0x00) // ACS, the last
	if acsRedirects(config) {
		t.Error("redirects, with nothing switched on")
	}
	put(0x146, 0x1d)
	if !acsRedirects(config) {
		t.Error("P2P request redirect not seen")
	}
	if acsRedirects(config[:64]) || acsRedirects(nil) {
		t.Error("redirects, though only root sees it")
	}
	put(0x100, 0x01, 0x00, 0x01, 0x10) // a list that goes round
	if acsRedirects(config) {
		t.Error("found where nothing leads to")
	}
}

func TestParsePFC(t *testing.T) {
	pfc := append([]byte{8, 1 << 3, 0, 0}, make([]byte, 132)...)
	attr := func(kind uint16, v []byte) []byte {
		n := len(v) + 4
		b := append([]byte{byte(n), byte(n >> 8), byte(kind), byte(kind >> 8)}, v...)
		return append(b, make([]byte, (4-len(b)%4)%4)...)
	}
	head := []byte{0, dcbCmdIEEEGet, 0, 0}
	msg := append(append(head, attr(1, []byte("ens1\x00"))...), attr(dcbAttrIEEE|0x8000, append(attr(1, make([]byte, 60)), attr(2, pfc)...))...)
	if got, ok := parsePFC(msg); !ok || got != (PFC{Enabled: 8, Classes: 8}) {
		t.Errorf("%+v, %v", got, ok)
	}
	for n := range msg {
		parsePFC(msg[:n]) // must not panic
	}
	if _, ok := parsePFC(head); ok {
		t.Error("PFC out of nothing")
	}
}

func TestParseSystemd(t *testing.T) {
	got, err := parseSystemd("corfu-unit@1", "MainPID=4711\nUser=corfu\nLimitMEMLOCK=infinity\nLoadState=loaded\n")
	if err != nil || *got != (Service{PID: 4711, User: "corfu", Memlock: "infinity"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseSystemd("x", "MainPID=0\nLoadState=not-found\n"); err == nil || !strings.Contains(err.Error(), "does not know x (not-found)") {
		t.Errorf("a unit that is not there: %v", err)
	}
}
