package main

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// startDev starts a cluster in one process that the commands of c find by themselves.
func startDev(c *cli, args ...string) *daemonProcess {
	c.t.Helper()
	return c.start(append([]string{"dev", "--provider", testProvider(), "--control", "127.0.0.1:0", "--dir", filepath.Join(testDir(c.t), "dev")}, args...)...)
}

func TestAppendReadTailTrimFill(t *testing.T) {
	c := newCLI(t)
	dev := startDev(c)

	c.want("0\n", "tail")
	c.want("0\n1\n", "append", "hello", "two words")
	c.want("hello\n", "read", "0")
	c.want("two words\nhello\n", "read", "1", "0")
	c.want("hello\ntwo words\n", "read", "--from", "0", "--to", "2")
	c.want("two words\n", "read", "--from", "1")
	c.want("2\n", "tail")
	c.want("2\n", "tail", "--slow")
	c.want("2\n", "append", "") // an empty entry is an entry
	c.want("\n", "read", "2")

	c.want("trimmed 0\n", "trim", "0")
	c.fails(1, []string{"position 0 was trimmed"}, "read", "0")
	c.want("trimmed 0\n", "trim", "0") // idempotent
	c.want("two words\n\n", "read", "--from", "0", "--to", "3")
	c.want("kept 1: it holds an entry\nkept 0: it was trimmed\n", "fill", "1", "0")
	c.want("two words\n", "read", "1")
	c.want("trimmed below 2\n", "trim", "--prefix", "2")
	c.fails(1, []string{"position 1 was trimmed"}, "read", "1")
	c.want("\n", "read", "2")

	dev.stop()
	c.fails(1, []string{"no cluster answers at 127.0.0.1:7770", "corfu dev"}, "--timeout", "2s", "tail")
}

func TestAppendReadsLinesAndFiles(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	startDev(c, "--durability", "memory")
	// Each line is where its name says, in every way to append it.
	for n, how := range [][]string{{"--batch=false"}, {"--batch=false", "--ordered=false"}, {}, {"--ordered=false"}} {
		names := strings.Fields(c.okIn("a\nb b\n\nlast", append([]string{"append", "-"}, how...)...))
		if len(names) != 4 || strings.Contains(names[0], "/") != (n >= 2) {
			t.Errorf("append - %v: 4 lines gave %q", how, names)
		}
		for i, at := range names {
			c.want([]string{"a", "b b", "", "last"}[i]+"\n", "read", at)
		}
	}
	// A file of three pages and a bit, whose bytes are not text.
	data := make([]byte, 3*4032+100)
	for i := range data {
		data[i] = byte(i * i >> 3)
	}
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var back []byte
	for _, at := range strings.Fields(c.ok("append", "--file", path)) {
		got := c.ok("read", at)
		back = append(back, got[:len(got)-1]...)
	}
	if !reflect.DeepEqual(back, data) {
		t.Errorf("%d bytes came back, not the %d that were written", len(back), len(data))
	}
}

func TestLargeEntries(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	startDev(c)
	most := strings.Repeat("0123456789abcde\t", 1<<16) // 1 MiB, 262 pages
	c.want("0\n2\n3\n", "append", strings.Repeat("x", 4033), strings.Repeat("y", 4032), "small")
	if got := c.okIn(most+"\n", "append", "-"); got != "4\n" {
		t.Errorf("1 MiB was appended at %q", got)
	}
	c.want("266\n", "tail")
	c.want(most+"\n", "read", "4")
	c.want(strings.Repeat("x", 4033)+"\n"+strings.Repeat("y", 4032)+"\n", "read", "--from", "0", "--to", "3")
	c.want("small\n"+most+"\n", "read", "--from", "3", "--to", "5")
	c.want("", "read", "--from", "5")
	c.fails(1, []string{"position 7 lies inside the entry that begins at 4", "corfu read 4"}, "read", "7")
	c.want("trimmed 4\n", "trim", "4")
	c.fails(1, []string{"position 265 was trimmed"}, "read", "265")
}

func TestJSONOutput(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	startDev(c)
	c.want("{\"position\":0}\n{\"position\":1}\n", "append", "-o", "json", "text", "\xff\xfe")
	c.want("{\"position\":0,\"payload\":\"text\"}\n{\"position\":1,\"payload_base64\":\""+base64.StdEncoding.EncodeToString([]byte("\xff\xfe"))+"\"}\n", "read", "-o", "json", "0", "1")
	c.want("{\"tail\":2}\n", "tail", "-o", "json")
	c.want("{\"position\":1,\"done\":\"kept\"}\n", "fill", "-o", "json", "1")
	c.want("{\"position\":1,\"done\":\"trimmed\"}\n", "trim", "-o", "json", "1")
	for _, args := range [][]string{{"layout", "show"}, {"layout", "status"}, {"version"}} {
		var m map[string]any
		if got := c.ok(append(args, "-o", "json")...); json.Unmarshal([]byte(got), &m) != nil || len(m) == 0 {
			t.Errorf("%v: %q", args, got)
		}
	}
	var ds []any
	if got := c.ok("devices", "-o", "json"); json.Unmarshal([]byte(got), &ds) != nil || (len(ds) > 0) != inLab() {
		t.Errorf("devices: %q", got)
	}
}

func TestLayoutCommands(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	startDev(c, "--chains", "1", "--replicas", "3")
	var before, after layoutJSON
	if err := json.Unmarshal([]byte(c.ok("layout", "show", "-o", "json")), &before); err != nil {
		t.Fatal(err)
	}
	if len(before.Units) != 3 || len(before.Segments) != 1 || len(before.Segments[0].Chains) != 1 || before.MaxPayload != 4032 || before.Durability != "flash" {
		t.Errorf("layout: %+v", before)
	}
	c.want("0\n", "append", "before")
	if err := json.Unmarshal([]byte(c.ok("layout", "reconfigure", "-o", "json")), &after); err != nil {
		t.Fatal(err)
	}
	want := before
	want.Epoch, want.Start = after.Epoch, 1
	if after.Epoch <= before.Epoch || !reflect.DeepEqual(after, want) {
		t.Errorf("after a new epoch: %+v, before %+v", after, before)
	}
	c.want("1\n", "append", "after")
	c.want("before\nafter\n", "read", "0", "1")
	for _, want := range []string{"durability  flash", "EPOCH", "unit 3", "sequencer 1", "open"} {
		if got := c.ok("layout", "show") + c.ok("layout", "status"); !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	c.env = append(c.env, "CORFU_LAYOUT=127.0.0.1:1") // nothing of this may get as far as a cluster
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("id: 1\ncontrl: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, u := range []struct {
		word string
		args []string
	}{
		{`unknown command "frob"`, []string{"frob"}},
		{`unknown command "shwo"`, []string{"layout", "shwo"}},
		{`unknown command "ad" for "corfu chain"`, []string{"chain", "ad", "5,6"}},
		{`unknown command "shwo" for "corfu certs"`, []string{"certs", "shwo", "-o", "json"}},
		{`unknown command "chekc" for "corfu config"`, []string{"config", "chekc", "x.yaml"}},
		{`unknown command "tcsh" for "corfu completion"`, []string{"completion", "tcsh"}},
		{`unknown command "frob" for "corfu"`, []string{"help", "frob"}},
		{`unknown command "ad" for "corfu chain"`, []string{"help", "chain", "ad"}},
		{"unknown flag: --bogus", []string{"tail", "--bogus"}},
		{`unknown command "extra"`, []string{"tail", "extra"}},
		{`output format "xml": must be text or json`, []string{"version", "-o", "xml"}},
		{`provider "ib": must be auto, verbs or tcp`, []string{"tail", "--provider", "ib"}},
		{"timeout 0s: must be above zero", []string{"tail", "--timeout", "0"}},
		{`layout server "here": must be host:port`, []string{"tail", "--cluster", "here"}},
		{"need --insecure", []string{"layout", "show", "--cluster", "192.0.2.1:7770"}},
		{"need --insecure", []string{"append", "x", "--cluster", "127.0.0.1:1,192.0.2.1:7770"}},
		{`position "x": must be a whole number`, []string{"read", "1", "x"}},
		{`position "-1": must be a whole number`, []string{"read", "--", "-1"}},
		{"-1: must be a whole number from 0 on", []string{"read", "-1"}},
		{"corfu unit add needs id=host:port", []string{"unit", "add"}},
		{`corfu unit replace takes old new|new=host:port, and not "1"`, []string{"unit", "replace", "1"}},
		{`corfu dump takes STORE, and not "x y"`, []string{"dump", "x", "y"}},
		{`unit 9=here: must be id=host:port`, []string{"unit", "add", "9=here"}},
		{`--unit 1=h: must be id=host:port`, []string{"layout", "--dir", "x", "--unit", "1=h"}},
		{"must be below 281474976710655", []string{"read", "281474976710655"}},
		{"read needs a position", []string{"read"}},
		{"not both", []string{"read", "1", "--from", "2"}},
		{"the range ends at 3, before it begins at 5", []string{"read", "--from", "5", "--to", "3"}},
		{"append needs an entry", []string{"append"}},
		{"not both", []string{"append", "x", "--file", "y"}},
		{"--batch goes with -", []string{"append", "x", "--batch=false"}},
		{"--batch goes with -", []string{"append", "--file", "x", "--batch"}},
		{"--ordered goes with - or --file", []string{"append", "x", "--ordered"}},
		{`record "1/x": must be POSITION/INDEX`, []string{"read", "1/x"}},
		{`record "1/-1": must be POSITION/INDEX`, []string{"read", "1/-1"}},
		{`position "x": must be a whole number`, []string{"read", "x/1"}},
		{`position "1/2": must be a whole number`, []string{"trim", "1/2"}},
		{"fill needs a position", []string{"fill"}},
		{"trim needs a position", []string{"trim"}},
		{"not both", []string{"trim", "1", "--prefix", "2"}},
		{"--from goes with --follow", []string{"tail", "--from", "1"}},
		{"unit needs --id", []string{"unit", "--dir", "x"}},
		{"unit needs --store", []string{"unit", "--id", "1"}},
		{"two names of one thing", []string{"unit", "--id", "1", "--dir", "x", "--store", "y"}},
		{`invalid argument "x" for "--id" flag: invalid syntax`, []string{"unit", "--id", "x"}},
		{`line 2: unknown key "contrl" (did you mean "control"?)`, []string{"unit", "--config", bad}},
		{"no such file", []string{"seq", "--config", bad + ".missing"}},
		{"seq needs --dir", []string{"seq"}},
		{"layout needs --dir", []string{"layout"}},
		{"must be id=host:port", []string{"layout", "--dir", "x", "--unit", "1"}},
		{"which is not listed", []string{"layout", "--dir", "x", "--seq", "1=h:1", "--unit", "1=h:2", "--chain", "1,2"}},
		{`durability "ram"`, []string{"dev", "--durability", "ram"}},
		{"must be at least 1", []string{"dev", "--chains", "0"}},
		{"--payload -2: must be a number of bytes", []string{"dump", "/x", "--payload", "-2"}},
		{`--layout-servers 2: must be 1, 3, 5 or 7`, []string{"dev", "--layout-servers", "2"}},
		{`--control "here": must be host:port`, []string{"dev", "--control", "here"}},
		{`--http "here": must be host:port`, []string{"dev", "--http", "here"}},
		{"--ops 1: must be at least 10", []string{"bench", "--ops", "1"}},
		{"--rate -1: must be 0 to", []string{"bench", "--rate", "-1"}},
		{"--rate needs a --duration", []string{"bench", "--rate", "5", "--duration", "0"}},
		{"--pauses -1: must not be", []string{"bench", "--pauses", "-1"}},
		{"--size 0", []string{"demo", "--size", "0"}},
	} {
		c.fails(2, []string{u.word, "--help)"}, u.args...)
	}
}

func TestRuntimeErrors(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	c.fails(1, []string{"no cluster answers at 127.0.0.1:1", "--cluster names another"}, "tail", "--cluster", "127.0.0.1:1", "--timeout", "2s")
	c.fails(1, []string{"no cluster answers at 127.0.0.1:1"}, "layout", "show", "--cluster", "127.0.0.1:1", "--timeout", "2s")
	c.fails(1, []string{"no such file"}, "append", "--file", "/nonexistent")
	c.fails(1, []string{"no such file"}, "demo", "--source", "/nonexistent")
	startDev(c)
	c.fails(1, []string{"position 0 is not written"}, "read", "0")
	c.fails(1, []string{"position 7 is not a hole: the log ends at 0"}, "fill", "7")
	c.fails(1, []string{"position 7 cannot be trimmed: the log ends at 0"}, "trim", "7")
	c.fails(1, []string{"cannot trim below 7: the log ends at 0"}, "trim", "--prefix", "7")
	c.fails(1, []string{"the range ends at 9, but the log ends at 0"}, "read", "--from", "0", "--to", "9")
	c.failsIn("ok\n"+strings.Repeat("x", 1<<20+1)+"\n", 1, "0/0\n", []string{"after 1 entries", "line 2 is too large: more than 1048576 bytes"}, "append", "-")
	c.want("1\n", "append", strings.Repeat("x", 4032))
	dir := t.TempDir()
	c.fails(1, []string{dir, "is a directory"}, "append", "--file", dir)
}

func TestStatusPages(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	dev := startDev(c)
	c.ok("append", "x")
	get := func(path string) string {
		t.Helper()
		r, err := http.Get("http://" + dev.word("http") + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v: %s", path, r.Status, err, b)
		}
		return string(b)
	}
	if got := get("/healthz"); got != "ok\n" {
		t.Errorf("healthz: %q", got)
	}
	metrics := get("/metrics")
	for _, want := range []string{"go_goroutines", "process_open_fds", "corfu_unit_", "corfu_seq", "corfu_layout_"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
}

func TestFollowPrintsEntriesAsTheyCome(t *testing.T) {
	c := newCLI(t)
	startDev(c)
	c.ok("append", "zero", "one")
	f := c.start("tail", "--follow", "--from", "1") // start waits for the first entry
	if got := f.word("payload"); got != "one" {
		t.Errorf("first: %v", f.said)
	}
	f.stop()
	g := make(chan *daemonProcess)
	go func() { g <- c.start("tail", "--follow", "--from", "2") }()
	c.ok("append", "two")
	if got := (<-g).word("payload"); got != "two" {
		t.Errorf("an entry that came later: %q", got)
	}
}

func TestDevKeepsItsDirectory(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	dir := filepath.Join(testDir(t), "kept")
	start := func(args ...string) *daemonProcess {
		return c.start(append([]string{"dev", "--provider", testProvider(), "--dir", dir, "--control", "127.0.0.1:0"}, args...)...)
	}
	dev := start("--chains", "1")
	c.want("0\n", "append", "kept")
	dev.stop()
	c.fails(2, []string{"1 chains, not 3"}, "dev", "--dir", dir, "--chains", "3")
	dev = start()
	c.want("kept\n", "read", "0")
	c.want("1\n", "append", "more")
	dev.kill() // no farewell
	start()
	c.want("kept\nmore\n", "read", "0", "1")
}
