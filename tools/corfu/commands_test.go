package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// allCommands lists the commands that people see.
func allCommands() []*cobra.Command {
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	root := a.rootCommand()
	root.InitDefaultHelpCmd()
	var list []*cobra.Command
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" {
			return // cobra's own
		}
		list = append(list, c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return list
}

func TestEveryCommandIsDescribed(t *testing.T) {
	notInLab(t)
	seen := map[string]bool{}
	for _, c := range allCommands() {
		seen[c.CommandPath()] = true
		if c.Short == "" || c.Long == "" || c.Example == "" {
			t.Errorf("%s lacks one of Short %q, Long %q, Example %q", c.CommandPath(), c.Short, c.Long, c.Example)
		}
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: example not indented: %q", c.CommandPath(), line)
			}
		}
	}
	for path := range examples {
		if !seen[path] {
			t.Errorf("an example for %s, which does not exist", path)
		}
	}
}

// What the examples call exists, with the flags that they give it.
func TestExamplesAreCommands(t *testing.T) {
	notInLab(t)
	for _, c := range allCommands() {
		for line := range strings.Lines(strings.ReplaceAll(c.Example, "\\\n", " ")) {
			words := strings.Fields(line)
			i := slices.Index(words, "corfu")
			if i < 0 {
				continue
			}
			words = words[i+1:]
			root := allCommands()[0]
			target, rest, err := root.Find(words)
			if err != nil || target == root {
				t.Errorf("%s: example %q: %v", c.CommandPath(), line, err)
				continue
			}
			for _, w := range rest {
				if w == "--" || w == "|" || w == "&" {
					break
				}
				if name, found := strings.CutPrefix(w, "--"); found {
					name, _, _ = strings.Cut(name, "=")
					target.InheritedFlags()
					if target.Flag(name) == nil {
						t.Errorf("%s: example %q: no flag --%s", c.CommandPath(), line, name)
					}
				}
			}
		}
	}
}

func TestManPages(t *testing.T) {
	notInLab(t)
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	c := newCLIAlone(t)
	dir, again := filepath.Join(t.TempDir(), "man"), t.TempDir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(dir, "corfu-gone.1")
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.ok("man", dir)
	c.ok("man", again)
	if _, err := os.Stat(stale); err == nil {
		t.Error("the page of a command that is gone is still there")
	}
	for _, cmd := range allCommands() {
		if cmd.Hidden {
			continue
		}
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		page, err := os.ReadFile(filepath.Join(dir, name))
		other, _ := os.ReadFile(filepath.Join(again, name))
		if err != nil || !bytes.Equal(page, other) {
			t.Errorf("%s: %v, or not the same when built again", name, err)
		}
		for _, want := range []string{".TH", "Nov 2023", "SYNOPSIS", "EXAMPLE"} {
			if !strings.Contains(string(page), want) {
				t.Errorf("%s has no %s", name, want)
			}
		}
	}
}

// complete is what a shell would offer after the words.
func (c *cli) complete(words ...string) []string {
	c.t.Helper()
	got := c.run("", append([]string{"__complete"}, words...)...)
	if got.code != 0 {
		c.t.Fatalf("%q: %+v", words, got)
	}
	lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
	var out []string
	for _, l := range lines {
		if !strings.HasPrefix(l, ":") && l != "" {
			out = append(out, l)
		}
	}
	return out
}

func TestCompletionKnowsTheCluster(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	want := func(want string, words ...string) {
		t.Helper()
		if got := c.complete(words...); strings.Join(got, " ") != want {
			t.Errorf("%q: got %q, want %q", words, got, want)
		}
	}
	want("auto verbs tcp", "tail", "--provider", "")
	want("text json", "tail", "-o", "")
	want("layout seq unit client", "config", "check", "--role", "")
	want("yaml", "config", "check", "")
	want("client unit seq layout admin monitor", "certs", "issue", "--role", "")
	want("local any off", "unit", "--pprof", "")
	want("", "unit", "remove", "--cluster", "127.0.0.1:1", "")
	startDev(c, "--chains", "1", "--replicas", "2")
	for _, verb := range []string{"remove", "drain", "replace"} {
		var ids []string
		for _, line := range c.complete("unit", verb, "") {
			id, addr, _ := strings.Cut(line, "\t")
			ids = append(ids, id)
			if !strings.HasPrefix(addr, "127.0.0.1:") {
				t.Errorf("%s: no address beside the number: %q", verb, line)
			}
		}
		if strings.Join(ids, " ") != "1 2" {
			t.Errorf("%s: units %v", verb, ids)
		}
	}
	if got := c.complete("scrub", "--unit", ""); len(got) != 2 {
		t.Errorf("scrub --unit: %q", got)
	}
}

func TestCompletionScriptsParse(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := c.ok("completion", shell)
		if !strings.Contains(script, "__complete") {
			t.Errorf("%s: no completion in %.200q", shell, script)
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			continue // bash is everywhere; the others where somebody uses them
		}
		cmd := exec.Command(path, "-n")
		if shell == "fish" {
			cmd = exec.Command(path, "--no-execute")
		}
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", shell, err, out)
		}
	}
}
