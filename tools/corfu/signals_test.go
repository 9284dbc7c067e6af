package main

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A terminal that goes away ends a cluster as an interrupt does: under durability memory it comes
// up again with all that it held.
func TestHangupIsACleanStop(t *testing.T) {
	notInLab(t)
	c, dir := newCLI(t), testDir(t)
	up := func() *daemonProcess {
		return c.start("dev", "--durability", "memory", "--dir", dir, "--control", "127.0.0.1:0", "--http", "off", "--provider", "tcp")
	}
	first := up()
	c.ok("append", "kept")
	first.once.Do(func() {
		if err := first.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if err := <-first.exit; err != nil {
			t.Errorf("after SIGHUP: %v, want a clean end; stderr:\n%s", err, first.log)
		}
	})
	up()
	c.want("kept\n", "read", "0")
}

// What reads a daemon's output goes away: the daemon loses lines, and goes on. One that was started
// with hang-ups ignored ignores them.
func TestDaemonsOutliveTheirReaders(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 2)
	cmd := exec.Command("sh", "-c", `trap "" HUP; exec "$0" "$@"`, program(t), "unit", "--verbose", "--id", "1", "--store", testDir(t), "--provider", "tcp",
		"--control", ports[0], "--http", ports[1])
	cmd.Env, cmd.Stdout, cmd.Stderr = c.env, w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	if err := r.Close(); err != nil { // before anything was said
		t.Fatal(err)
	}
	w.Close()
	for range 3 {
		eventually(t, func() error {
			select {
			case err := <-ended:
				t.Fatalf("the unit ended with its reader: %v", err)
			default:
			}
			r, err := http.Get("http://" + ports[1] + "/livez")
			if err == nil {
				err = r.Body.Close()
			}
			return err
		})
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		c.run("", "scrub", "--cluster", ports[0], "--timeout", "200ms") // a call, which it logs
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// The file of a cluster whose process is gone counts for nothing, even if another process has its
// number by now.
func TestClusterFileOfADeadProcessIsIgnored(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	path, remove, err := writeClusterFile(clusterFile{LayoutServers: []string{"127.0.0.1:1"}, Provider: "tcp", PID: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if _, up, err := readClusterFile(path); err != nil || !up {
		t.Errorf("while it is up: %v, %v", up, err)
	}
	if _, _, err := writeClusterFile(clusterFile{PID: 1}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d, which is up", os.Getpid())) {
		t.Errorf("a second one takes its place: %v", err)
	}
	remove()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("after its end: %v", err)
	}
	// Killed: the file stays, and its number belongs to this process, which lives.
	text := fmt.Sprintf("layout_servers: [127.0.0.1:1]\nprovider: tcp\ndevice: \"\"\npid: %d\n", os.Getppid())
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, up, err := readClusterFile(path); err != nil || up || c.PID != os.Getppid() {
		t.Errorf("of a dead process: %+v, up %v, %v", c, up, err)
	}
	again, remove, err := writeClusterFile(clusterFile{LayoutServers: []string{"127.0.0.1:2"}, PID: os.Getpid()})
	if err != nil || again != filepath.Clean(path) {
		t.Fatalf("the next one: %s, %v", again, err)
	}
	remove()
}

// The first signal ends append - while it waits for its next line: what was read before is
// acknowledged, and it says what that is.
func TestAppendFromStdinEndsAtTheFirstSignal(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	startDev(c)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		cmd := exec.Command(program(t), "append", "-")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		log := &lockedBuffer{}
		cmd.Env, cmd.Stderr = c.env, log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(in, "one %v\ntwo\n", sig)
		lines := bufio.NewScanner(out)
		for range 2 {
			if !lines.Scan() {
				t.Fatalf("%v: no position; stderr: %s", sig, log)
			}
		}
		last := lines.Text()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitRuntime {
			t.Errorf("%v: %v, want exit %d", sig, err, exitRuntime)
		}
		if want := "the first 2 of the entries, up to position " + last; !strings.Contains(log.String(), want) || strings.Count(log.String(), "\n") != 1 {
			t.Errorf("%v: stderr %q, want one line with %q", sig, log, want)
		}
		in.Close()
	}
}
