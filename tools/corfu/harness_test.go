package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"corfu/internal/leaktest"
)

// asProgram in the environment makes the test binary be corfu: what runs is the
// program as it was built for the test, race detector included, also in the
// lab, where nothing can be built.
const asProgram = "CORFU_TEST_AS_PROGRAM=1"

// patience is how long a test waits for something that must happen. The lab's kernel can stand still for half a minute
// when Soft-RoCE sends again what its emulated processor was too slow to acknowledge.
var patience = time.Minute

func TestMain(m *testing.M) {
	if os.Getenv("CORFU_TEST_AS_PROGRAM") == "1" {
		version = cmp.Or(os.Getenv("CORFU_TEST_VERSION"), version)
		main()
	}
	if inLab() {
		patience = 3 * time.Minute
	}
	os.Exit(leaktest.Run(m))
}

// program is what to execute as corfu.
func program(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// inLab tells whether the tests run in the RDMA lab, where they must use verbs.
func inLab() bool { return os.Getenv("CORFU_LAB") == "1" }

// notInLab is for tests that run many commands and say nothing about verbs that others do not: a command takes a second there.
func notInLab(t *testing.T) {
	t.Helper()
	if inLab() {
		t.Skip("nothing here depends on the fabric")
	}
}

func testProvider() string {
	if inLab() {
		return "verbs"
	}
	return "tcp"
}

// testDir is a directory for data: on the lab's disk, where there is one.
func testDir(t *testing.T) string {
	t.Helper()
	disk := os.Getenv("CORFU_LAB_DISK")
	if disk == "" {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(disk, "corfu-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// cli runs commands of one user: the environment says which cluster files are found.
type cli struct {
	t      *testing.T
	env    []string
	binary string // "": the test's own
}

// On a host, where much of the time goes by in starting processes, the tests that use it run beside each other.
func newCLI(t *testing.T) *cli {
	t.Helper()
	if !inLab() {
		t.Parallel()
	}
	return newCLIAlone(t)
}

// newCLIAlone is newCLI for tests that put a load on the machine.
func newCLIAlone(t *testing.T) *cli {
	t.Helper()
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "CORFU_LAYOUT=") && !strings.HasPrefix(e, "XDG_RUNTIME_DIR=") {
			env = append(env, e)
		}
	}
	return &cli{t: t, env: append(env, asProgram, "XDG_RUNTIME_DIR="+t.TempDir())}
}

// outcome is all that a run leaves behind.
type outcome struct {
	stdout, stderr string
	code           int
}

func (c *cli) run(stdin string, args ...string) outcome {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(c.t), args...)
	cmd.Env, cmd.Stdin = c.env, strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatalf("corfu %s: %v", strings.Join(args, " "), err)
	}
	return outcome{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// ok runs a command that must succeed and say nothing on stderr, and returns its stdout.
func (c *cli) ok(args ...string) string {
	c.t.Helper()
	return c.okIn("", args...)
}

func (c *cli) okIn(stdin string, args ...string) string {
	c.t.Helper()
	got := c.run(stdin, append([]string{"--timeout", patience.String()}, args...)...) // however busy the machine is
	if got.code != 0 || got.stderr != "" {
		c.t.Fatalf("corfu %s: exit %d, stderr %q", strings.Join(args, " "), got.code, got.stderr)
	}
	return got.stdout
}

// want runs a command that must print exactly this.
func (c *cli) want(stdout string, args ...string) {
	c.t.Helper()
	if got := c.ok(args...); got != stdout {
		c.t.Errorf("corfu %s: printed %q, want %q", strings.Join(args, " "), got, stdout)
	}
}

// fails runs a command that must fail with this status, print nothing on stdout, and
// one line on stderr that holds all of the words.
func (c *cli) fails(code int, words []string, args ...string) {
	c.t.Helper()
	c.failsIn("", code, "", words, args...)
}

func (c *cli) failsIn(stdin string, code int, stdout string, words []string, args ...string) {
	c.t.Helper()
	got := c.run(stdin, args...)
	line, rest, _ := strings.Cut(got.stderr, "\n")
	good := got.code == code && got.stdout == stdout && strings.HasPrefix(line, "corfu: ") && rest == ""
	for _, w := range words {
		good = good && strings.Contains(line, w)
	}
	if !good {
		c.t.Errorf("corfu %s: %+v; want exit %d, stdout %q, one line with %q", strings.Join(args, " "), got, code, stdout, words)
	}
}

// daemonProcess is a command that stays up and says on stdout, as one JSON line, how to reach it.
type daemonProcess struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	log  *lockedBuffer // its stderr
	said map[string]any
	once sync.Once
	exit chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a daemon with -o json and waits for its line. It is killed with the test.
func (c *cli) start(args ...string) *daemonProcess {
	c.t.Helper()
	d := &daemonProcess{t: c.t, name: strings.Join(args, " "), log: &lockedBuffer{}, exit: make(chan error, 1)}
	d.cmd = exec.Command(cmp.Or(c.binary, program(c.t)), append(args, "-o", "json")...)
	d.cmd.Env, d.cmd.Stderr = c.env, d.log
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(d.kill)
	lines := make(chan string, 1)
	go func() {
		r := bufio.NewReader(out)
		line, _ := r.ReadString('\n')
		lines <- line
		_, _ = io.Copy(io.Discard, r)
		d.exit <- d.cmd.Wait()
	}()
	select {
	case line := <-lines:
		if err := json.Unmarshal([]byte(line), &d.said); err != nil {
			c.t.Fatalf("corfu %s said %q: %v; stderr:\n%s", d.name, line, err, d.log)
		}
	case <-time.After(patience):
		c.t.Fatalf("corfu %s did not come up; stderr:\n%s", d.name, d.log)
	}
	return d
}

func (d *daemonProcess) word(key string) string { s, _ := d.said[key].(string); return s }

// kill is kill -9, and returns when the process is gone.
func (d *daemonProcess) kill() {
	d.once.Do(func() {
		_ = d.cmd.Process.Kill()
		<-d.exit
	})
}

// stop asks the daemon to end, which must succeed.
func (d *daemonProcess) stop() {
	d.t.Helper()
	d.once.Do(func() {
		if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			d.t.Errorf("corfu %s: %v", d.name, err)
		}
		select {
		case err := <-d.exit:
			if err != nil {
				d.t.Errorf("corfu %s: %v; stderr:\n%s", d.name, err, d.log)
			}
		case <-time.After(patience):
			d.t.Errorf("corfu %s did not end; stderr:\n%s", d.name, d.log)
			_ = d.cmd.Process.Kill()
			<-d.exit
		}
	})
}

// eventually waits until f has no complaint.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}
