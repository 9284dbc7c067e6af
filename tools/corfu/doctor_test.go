package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"corfu/tools/corfu/internal/doctor"
)

// TestDoctorAndItsPeer is the whole of it: two processes, over verbs in the lab. There a clock that nobody keeps right is a
// warning, and so may be a rate or latency of the emulator's; nothing else is.
func TestDoctorAndItsPeer(t *testing.T) {
	c := newCLI(t)
	serving := c.start("doctor", "serve", "--provider", testProvider(), "--listen", fabricAddr()+":0", "--token", "secret")
	var got doctorJSON
	out := c.ok("doctor", "-o", "json", "--provider", testProvider(), "--peer", serving.word("peer"), "--token", "secret", "--trials", "300")
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	serving.stop()

	live := []string{"large packets", "fetch_add rate", "latency", "order", "revoked key", "revoke under load"}
	want := []string{"device", "huge pages", "ordering", "clock", "loopback"}
	if inLab() {
		want = []string{"device", "port", "atomics", "gid", "path mtu", "device files", "memlock", "huge pages", "ordering", "pfc", "clock", "loopback"}
		live = append([]string{"path mtu"}, live...)
	}
	for _, who := range []string{"loopback", "peer"} {
		if who == "peer" {
			want = append(want, who)
		}
		for _, l := range live {
			want = append(want, who+": "+l)
		}
	}
	var names []string
	slow := []string{"clock", "peer: fetch_add rate", "peer: latency"}
	for _, r := range got.Results {
		names = append(names, r.Name)
		t.Logf("%s %s: %s %q", r.State, r.Name, r.Says, r.Detail)
		if r.State != doctor.OK && !(r.State == doctor.Warning && slices.Contains(slow, r.Name)) {
			t.Errorf("%s %s: %s", r.State, r.Name, r.Says)
		}
	}
	if !slices.Equal(names, want) || !got.OK || got.Loopback == nil || got.Peer == nil || got.Peer.Rate <= 0 {
		t.Errorf("checks %q\nwant %q; %+v", names, want, got)
	}
}

func fabricAddr() string {
	if inLab() {
		return os.Getenv("CORFU_LAB_ADDR")
	}
	return "127.0.0.1"
}

func TestDoctorFailsWithWhatToDo(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	got := c.run("", "doctor", "--provider", "verbs", "--live=false")
	if got.code != 1 || !strings.Contains(got.stdout, "failure  device") || !strings.Contains(got.stdout, "→ load the driver") ||
		!strings.Contains(got.stdout, "1 failures") || strings.Count(got.stderr, "\n") != 1 || !strings.Contains(got.stderr, "checks failed") {
		t.Errorf("without a device: %+v", got)
	}
	// What the file of a daemon says is what is checked for; the environment of this process is looked at.
	c.env = append(c.env, "MLX5_RELAXED_PACKET_ORDERING_ON=all")
	path := writeFile(t, "seq.yaml", "role: seq\nid: 1\ndir: /x\nfabric: {provider: tcp}\n")
	got = c.run("", "doctor", "--config", path, "--live=false")
	if got.code != 1 || !strings.Contains(got.stdout, "ok       device                      provider tcp is asked for") ||
		!strings.Contains(got.stdout, "failure  ordering") || !strings.Contains(got.stdout, "MLX5_RELAXED_PACKET_ORDERING_ON=all: packets") {
		t.Errorf("a relaxed environment: %+v", got)
	}
	c.fails(2, []string{"--trials 0: must be at least 1"}, "doctor", "--trials", "0")
	c.fails(2, []string{"take --live=false away"}, "doctor", "--peer", "h:1", "--live=false")
	c.fails(2, []string{`--peer "h": must be host:port`}, "doctor", "--peer", "h")
	c.fails(2, []string{"need --insecure"}, "doctor", "serve", "--provider", "tcp", "--listen", "192.0.2.1:0")
	c.fails(2, []string{"at most 46 bytes"}, "doctor", "serve", "--provider", "tcp", "--token", strings.Repeat("x", 47))
	c.fails(2, []string{"--token", "--peer"}, "doctor", "--token", "x")
}
