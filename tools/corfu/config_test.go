package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"corfu/tools/corfu/internal/config"
)

// wholeApp is the program with its commands, none of them run.
func wholeApp() *app {
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	a.rootCommand()
	return a
}

func TestReferenceOfSettingsIsFresh(t *testing.T) {
	notInLab(t)
	page, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	if wholeApp().configReference() != string(page) {
		t.Error("docs/config.md is stale: make docs")
	}
}

func TestEverySettingHasAMeaningAndANameOfItsOwn(t *testing.T) {
	notInLab(t)
	a := wholeApp()
	for _, role := range roleNames {
		s := a.roles[role]
		names := map[string]string{}
		for _, k := range config.Keys(s.c) {
			if meaning(k, s.cmd) == "" {
				t.Errorf("%s: %s has neither a doc tag nor a flag that says what it is", role, k.Path)
			}
			if k.Flag != "" && s.cmd.Flag(k.Flag) == nil {
				t.Errorf("%s: %s names the flag --%s, which %s does not have", role, k.Path, k.Flag, s.cmd.CommandPath())
			}
			for _, name := range []string{k.Env, k.OldEnv} {
				if other := names[name]; name != "" && other != "" {
					t.Errorf("%s: %s is the variable of %s and of %s", role, name, other, k.Path)
				}
				for _, taken := range otherVariables {
					if name == taken || strings.HasSuffix(taken, "_") && strings.HasPrefix(name, taken) {
						t.Errorf("%s: the variable of %s means something else: %s", role, k.Path, taken)
					}
				}
				names[name] = k.Path
			}
		}
	}
}

func TestExamplesOfTheReferencePassTheCheck(t *testing.T) {
	notInLab(t)
	a := wholeApp()
	for _, role := range roleNames {
		path := writeFile(t, role+".yaml", roleReference[role].example)
		if got, err := a.checkFile(path, ""); err != nil || got != role {
			t.Errorf("%s: %s, %v", role, got, err)
		}
	}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigCheck(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	good := writeFile(t, "good.yaml", "role: seq\ndir: /x\n")
	none := writeFile(t, "none.yaml", "dir: /x\nid: 1\n")
	c.want(good+": ok, for seq\n", "config", "check", good)
	c.want(none+": ok, for unit\n", "config", "check", "--role", "unit", none)
	c.want("{\"file\":\""+good+"\",\"role\":\"seq\"}\n", "config", "check", good, "-o", "json")
	for _, f := range []struct {
		text string
		want []string
	}{
		{"dir: /x\n", []string{"give it a key role, or say --role"}},
		{"role: sequencer\n", []string{`role "sequencer": must be one of layout, seq, unit, client`}},
		{"role: unit\nid: 1\nstore: /x\nscrub_rat: 1\n", []string{"line 4", `did you mean "scrub_rate"`}},
		{"role: unit\nstore: /x\n", []string{"unit needs --id"}},
		{"role: unit\nid: 1\nstore: /x\ndir: /y\n", []string{"two names of one thing"}},
		{"role: unit\nid: 1\nstore: /x\ncapacity: 5\nscrub_rate: x\ncontrol: here\nfabric: {provider: ib, addr: host, listen: x}\n",
			[]string{`capacity "5"`, `scrub rate "x"`, `control "here": must be host:port`, `provider "ib"`, `fabric.addr "host": must be an IP address`, `fabric.listen "x"`}},
		{"role: layout\ndir: /x\nrebuild_rate: 0\nbootstrap: {durability: ram, units: [{id: 1, control: \"h:1\"}]}\n", []string{`rebuild rate "0"`, `durability "ram"`}},
		{"role: unit\nid: 1\nstore: /x\npprof: mine\nmax_sessions_per_identity: -1\n", []string{`pprof "mine": must be local, any or off`, "max_sessions_per_identity -1: must not be negative"}},
		{"role: seq\ndir: /x\nmax_sessions: -1\n", []string{"max_sessions -1: must not be negative"}},
		{"role: layout\ndir: /x\nheartbeat: 1s\nbootstrap: {sequencer: {id: 1, control: \"h:1\"}, units: [{id: 1, control: here}], chains: [[1]]}\n",
			[]string{"failed after 500ms without an answer: must be at least the heartbeat, 1s", `unit 1, control "here": must be host:port`}},
		{"role: layout\ndir: /x\nmin_replicas: 3\nbootstrap: {sequencer: {id: 1, control: \"h:1\"}, units: [{id: 1, control: \"h:2\"}, {id: 2, control: \"h:3\"}], chains: [[1, 2]]}\n",
			[]string{"min_replicas 3: no chain has more than 2 units"}},
		{"role: layout\ndir: /x\nid: 3\nservers: [{id: 1, control: \"h:1\", raft: \"h:2\"}, {id: 2, control: \"h:3\", raft: \"h:4\"}]\n",
			[]string{"2 layout servers: must be 1, 3, 5 or 7", "layout server 3: it is not among the servers"}},
		{"role: layout\ndir: /x\nfabric: {listen: \"h:1\"}\n", []string{`unknown key "listen"`}},
		{"role: client\nlayout_servers: [here]\ntimeout: 0s\n", []string{`layout server "here"`, "timeout 0s"}},
		{"role: [\n", []string{"line 1"}},
	} {
		bad := writeFile(t, "bad.yaml", f.text)
		c.failsIn("", 2, good+": ok, for seq\n", append(f.want, bad), "config", "check", bad, good)
	}
	for advertise, why := range map[string]string{"127.0.0.1": "loopback", "0.0.0.0": "stands for all", "224.0.0.9": "multicast", "192.0.2.200": "none of the addresses", "10.0.0.1:0": "1 to 65535"} {
		c.fails(2, []string{"fabric.advertise", advertise, why}, "unit", "--id", "1", "--store", t.TempDir(), "--provider", "tcp", "--control", "192.0.2.7:7780", "--insecure", "--fabric-advertise", advertise)
	}
	c.fails(2, []string{good + " is for role seq, not for unit"}, "unit", "--config", good)
	c.env = append(c.env, "CORFU_HTTPP=x")
	if got := c.run("", "config", "check", good); got.code != 0 || !strings.Contains(got.stderr, "CORFU_HTTPP of the environment means nothing to corfu (did you mean CORFU_HTTP?)") {
		t.Errorf("a misspelt variable: %+v", got)
	}
}

func TestConfigShowTellsWhereEachSettingCameFrom(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	path := writeFile(t, "unit.yaml", "role: unit\nid: 1\nstore: /x\nfabric: {huge_pages: true}\n")
	c.env = append(c.env, "CORFU_CONTROL=10.0.0.1:1", "CORFU_SCRUB_RATE=1MiB")
	var got []settingJSON
	out := c.ok("config", "show", path, "-o", "json", "--", "--scrub-rate", "0", "--provider", "tcp")
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	file := func(line string) string { return "file " + path + " line " + line }
	want := []settingJSON{
		{"id", 1.0, file("2")}, {"store", "/x", file("3")}, {"capacity", "", "default"}, {"segment_pages", 0.0, "default"}, {"scrub_rate", "0", "flag --scrub-rate"},
		{"scrub_every", "168h", "default"}, {"max_sessions_per_identity", 0.0, "default"}, {"role", "unit", file("1")}, {"dir", "/x", "default"},
		{"control", "10.0.0.1:1", "environment CORFU_CONTROL"}, {"http", "127.0.0.1:7880", "default"}, {"http_clear", "", "default"}, {"pprof", "local", "default"}, {"insecure", false, "default"},
		{"tls.ca", "", "default"}, {"tls.cert", "", "default"}, {"tls.key", "", "default"}, {"tls.crl", "", "default"}, {"fabric.provider", "tcp", "flag --provider"}, {"fabric.device", "", "default"}, {"fabric.addr", "", "default"},
		{"fabric.listen", "", "default"}, {"fabric.advertise", "", "default"}, {"fabric.huge_pages", true, file("4")},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if out := c.ok("config", "show", "--role", "layout", "--", "--spare", "3=h:1"); !strings.Contains(out, "[{id: 3, control: 'h:1'}]") {
		t.Errorf("a list from a flag:\n%s", out)
	}
	c.fails(2, []string{"needs a file, or --role"}, "config", "show")
	c.fails(2, []string{"unknown flag: --bogus"}, "config", "show", path, "--", "--bogus")
}

// A client takes the file that the user names before the cluster that runs here; a flag and a variable come before both.
func TestClientsFindTheClusterInOrder(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	startDev(c)
	c.want("0\n", "tail")
	path := writeFile(t, "client.yaml", "role: client\nlayout_servers: [\"127.0.0.1:1\"]\ntimeout: 1s\n")
	c.fails(1, []string{"no cluster answers at 127.0.0.1:1"}, "tail", "--config", path)
	c.fails(1, []string{"no cluster answers at 127.0.0.1:2"}, "tail", "--config", path, "--cluster", "127.0.0.1:2")
	c.env = append(c.env, "CORFU_CONFIG="+path)
	c.fails(1, []string{"no cluster answers at 127.0.0.1:1"}, "tail")
	c.env = append(c.env, "CORFU_LAYOUT_SERVERS=127.0.0.1:3", "CORFU_LAYOUT=127.0.0.1:4")
	c.fails(1, []string{"no cluster answers at 127.0.0.1:3"}, "tail")
}
