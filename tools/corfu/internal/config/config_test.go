package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

type member struct {
	ID      uint32 `yaml:"id"`
	Control string `yaml:"control"`
}

type section struct {
	Addr string `yaml:"addr" flag:"fabric-addr" doc:"where"`
	Huge bool   `yaml:"huge_pages"`
}

// Base is embedded as the daemons' is.
type Base struct {
	Role string `yaml:"role" env:"-"`
	Dir  string `yaml:"dir" flag:"dir"`
}

type all struct {
	Base    `yaml:",inline"`
	ID      uint16        `yaml:"id" flag:"id"`
	Least   int           `yaml:"least"`
	Beat    time.Duration `yaml:"heartbeat" flag:"heartbeat"`
	Servers []string      `yaml:"servers" flag:"server" env:"CORFU_OLD"`
	Units   []member      `yaml:"units" flag:"unit"`
	First   member        `yaml:"first" flag:"first"`
	Fabric  section       `yaml:"fabric"`
	hidden  int
}

func defaults() all {
	return all{Base: Base{Dir: "d"}, ID: 1, Beat: time.Second, First: member{9, "f"}}
}

// flags are bound to the fields of c, as those of daemons are.
func flags(t *testing.T, c *all, args ...string) *pflag.FlagSet {
	t.Helper()
	f := pflag.NewFlagSet("t", pflag.ContinueOnError)
	f.StringVar(&c.Dir, "dir", c.Dir, "")
	f.Uint16Var(&c.ID, "id", c.ID, "")
	f.DurationVar(&c.Beat, "heartbeat", c.Beat, "")
	f.StringSliceVar(&c.Servers, "server", nil, "")
	f.StringArray("unit", nil, "")
	f.String("first", "", "")
	f.StringVar(&c.Fabric.Addr, "fabric-addr", "", "")
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	return f
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// froms is where every setting came from, by path.
func froms(list []Setting) map[string]string {
	m := map[string]string{}
	for _, s := range list {
		m[s.Path] = s.From
	}
	return m
}

func TestFlagBeatsEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	path := file(t, "role: unit\ndir: file\nid: 2\nheartbeat: 2s\nservers: [file]\nfabric:\n  addr: file\n  huge_pages: true\nunits:\n- {id: 1, control: file}\n")
	got := defaults()
	list, err := Load(Sources{
		File: path,
		Env: []string{"CORFU_ID=3", "CORFU_HEARTBEAT=3s", "CORFU_FABRIC_ADDR=env", "CORFU_DIR=", "CORFU_OLD=old", "CORFU_LEAST=-7",
			"CORFU_FIRST_CONTROL=env", "CORFU_ROLE=seq", "ID=9", "CORFU_UNITS=[{id: 4, control: \"e:1\"}]"},
		Flags: flags(t, &got, "--heartbeat", "4s", "--fabric-addr", "flag", "--first", "1=x"),
	}, &got)
	if err != nil {
		t.Fatal(err)
	}
	want := all{Base{"unit", "file"}, 3, -7, 4 * time.Second, []string{"old"}, []member{{4, "e:1"}}, member{9, "env"}, section{"flag", true}, 0}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	at := func(n int) string { return fmt.Sprintf("file %s line %d", path, n) }
	from := map[string]string{
		"role": at(1), "dir": at(2), "id": "environment CORFU_ID", "least": "environment CORFU_LEAST", "heartbeat": "flag --heartbeat",
		"servers": "environment CORFU_OLD", "units": "environment CORFU_UNITS", "first.id": "flag --first", "first.control": "flag --first",
		"fabric.addr": "flag --fabric-addr", "fabric.huge_pages": at(8),
	}
	if got := froms(list); !reflect.DeepEqual(got, from) {
		t.Errorf("from %v\nwant %v", got, from)
	}
}

func TestNothingLeavesTheDefaults(t *testing.T) {
	got := defaults()
	list, err := Load(Sources{Flags: flags(t, &got)}, &got)
	if err != nil || !reflect.DeepEqual(got, defaults()) {
		t.Errorf("%+v, %v", got, err)
	}
	for path, from := range froms(list) {
		if from != "default" {
			t.Errorf("%s from %s", path, from)
		}
	}
}

func TestTheNewVariableBeatsTheOld(t *testing.T) {
	got := defaults()
	if _, err := Load(Sources{Env: []string{"CORFU_SERVERS=a, b", "CORFU_OLD=x"}}, &got); err != nil || !reflect.DeepEqual(got.Servers, []string{"a", "b"}) {
		t.Errorf("%v, %v", got.Servers, err)
	}
	got = defaults()
	if _, err := Load(Sources{Flags: flags(t, &got, "--server", "x,y"), Env: []string{"CORFU_SERVERS=a"}}, &got); err != nil || !reflect.DeepEqual(got.Servers, []string{"x", "y"}) {
		t.Errorf("%v, %v", got.Servers, err)
	}
}

func TestErrorsNameWhereTheValueCameFrom(t *testing.T) {
	for _, c := range []struct {
		file, env string
		want      []string
	}{
		{"idd: 1\n", "", []string{"c.yaml", "line 1", `did you mean "id"`}},
		{"", "CORFU_ID=70000", []string{"CORFU_ID", "(id)", `"70000"`, "in range"}},
		{"", "CORFU_LEAST=x", []string{"CORFU_LEAST", `"x"`}},
		{"", "CORFU_HEARTBEAT=5", []string{"CORFU_HEARTBEAT", "duration"}},
		{"", "CORFU_FABRIC_HUGE_PAGES=perhaps", []string{"fabric.huge_pages", "neither true nor false"}},
		{"", "CORFU_UNITS=[{idd: 1}]", []string{"CORFU_UNITS", `did you mean "id"`}},
		{"", "CORFU_UNITS=1", []string{"CORFU_UNITS", "list"}},
	} {
		s := Sources{Env: []string{c.env}}
		if c.file != "" {
			s.File = file(t, c.file)
		}
		got := defaults()
		_, err := Load(s, &got)
		for _, w := range c.want {
			if err == nil || !strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q %q: %v, want %q in one line", c.file, c.env, err, w)
			}
		}
	}
}

func TestUnknownVariables(t *testing.T) {
	c := defaults()
	got := Unknown([]string{"CORFU_IDD=1", "CORFU_ID=1", "CORFU_OLD=x", "CORFU_LAB=1", "CORFU_LAB_DISK=x", "CORFU_LABX=1", "HOME=/", "CORFU_QQQQQQQQQQQQQQ=1"},
		Keys(&c), "CORFU_LAB", "CORFU_LAB_")
	want := []string{
		"variable CORFU_IDD of the environment means nothing to corfu (did you mean CORFU_ID?)",
		"variable CORFU_LABX of the environment means nothing to corfu",
		"variable CORFU_QQQQQQQQQQQQQQ of the environment means nothing to corfu",
	}
	if len(got) != 3 || got[0] != want[0] || !strings.HasPrefix(got[1], want[1]) || !strings.HasPrefix(got[2], want[2]) {
		t.Errorf("%q", got)
	}
}

// What Text says, Set understands: the reference and config show tell how to write a value.
func TestTextIsWhatSetReads(t *testing.T) {
	a := all{Base{"r", "a b"}, 7, -3, 90 * time.Second, []string{"h:1", "i:2"}, []member{{1, "h:1"}, {2, "i:2"}}, member{3, "x"}, section{"y", true}, 0}
	var b all
	to := Keys(&b)
	for i, k := range Keys(&a) {
		if err := to[i].Set(k.Text()); err != nil {
			t.Errorf("%s %q: %v", k.Path, k.Text(), err)
		}
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("got %+v\nwant %+v", b, a)
	}
}

// Lists of addresses, as flags and variables have them: brackets of an IPv6 address are none of a list.
func TestListsOfAddresses(t *testing.T) {
	for text, want := range map[string][]string{
		"[::1]:7770":                   {"[::1]:7770"},
		" [::1]:7770":                  {"[::1]:7770"},
		"[::1]:7770,127.0.0.1:7770":    {"[::1]:7770", "127.0.0.1:7770"},
		"127.0.0.1:7770, [fe80::1]:80": {"127.0.0.1:7770", "[fe80::1]:80"},
		"[::1]:1,[::2]:2":              {"[::1]:1", "[::2]:2"},
		"[::1]":                        {"[::1]"},
		"[fe80::1%eth0]":               {"[fe80::1%eth0]"},
		"[a:1, b:2]":                   {"a:1", "b:2"},
		`["[::1]:7770", "b:2"]`:        {"[::1]:7770", "b:2"},
		"[]":                           {},
	} {
		got := defaults()
		if _, err := Load(Sources{Env: []string{"CORFU_SERVERS=" + text}}, &got); err != nil || !slices.Equal(got.Servers, want) {
			t.Errorf("variable %q: %q, %v; want %q", text, got.Servers, err, want)
		}
	}
	got := defaults()
	if _, err := Load(Sources{Flags: flags(t, &got, "--server", "[::1]:1,[::2]:2")}, &got); err != nil || !slices.Equal(got.Servers, []string{"[::1]:1", "[::2]:2"}) {
		t.Errorf("flag: %q, %v", got.Servers, err)
	}
}
