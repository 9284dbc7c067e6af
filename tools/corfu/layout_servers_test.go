package main

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// freePorts gives addresses of loopback that were free a moment ago.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all at the end, so that they differ
		all = append(all, l.Addr().String())
	}
	return all
}

func (c *cli) status() (s statusJSON, err error) {
	got := c.run("", "layout", "status", "-o", "json")
	if got.code != 0 {
		return s, fmt.Errorf("%+v", got)
	}
	return s, json.Unmarshal([]byte(got.stdout), &s)
}

// TestThreeLayoutServersAsProcesses kills the leader of three: the commands go on with the others, and see it come back. When two are
// gone they say so.
func TestThreeLayoutServersAsProcesses(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	dir := testDir(t)
	unit := c.start("unit", "--id", "1", "--provider", "tcp", "--dir", filepath.Join(dir, "unit"), "--control", "127.0.0.1:0", "--http", "off")
	seq := c.start("seq", "--provider", "tcp", "--dir", filepath.Join(dir, "seq"), "--control", "127.0.0.1:0", "--http", "off")
	c.fails(1, []string{filepath.Join(dir, "seq"), "in use by another process"}, "seq", "--provider", "tcp", "--dir", filepath.Join(dir, "seq"), "--control", "127.0.0.1:0", "--http", "off")
	ports := freePorts(t, 6)
	args := []string{"layout", "--http", "off", "--election-timeout", "500ms", "--unit", "1=" + unit.word("control"), "--seq", "1=" + seq.word("control"), "--chain", "1"}
	for i := range 3 {
		args = append(args, "--server", fmt.Sprintf("%d=%s,%s", i+1, ports[i], ports[3+i]))
	}
	start := func(id uint32) *daemonProcess {
		return c.start(append(args, "--id", fmt.Sprint(id), "--dir", filepath.Join(dir, fmt.Sprint("layout-", id)))...)
	}
	servers := map[uint32]*daemonProcess{1: start(1), 2: start(2), 3: start(3)}
	c.env = append(c.env, "CORFU_LAYOUT="+strings.Join(ports[:3], ","))

	// roles waits until the servers' roles are these, in any order, and all members are open; it gives the leader.
	roles := func(want map[string]int) (leader uint32, epoch uint64) {
		t.Helper()
		eventually(t, func() error {
			s, err := c.status()
			if err != nil {
				return err
			}
			got := map[string]int{}
			for _, x := range s.LayoutServers {
				got[x.Role]++
				if x.Role == "leader" {
					leader = x.ID
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) || s.Epoch == 0 || len(s.Members) != 2 || s.EpochInProgress != 0 {
				return fmt.Errorf("%+v", s)
			}
			epoch = s.Epoch
			return nil
		})
		return leader, epoch
	}
	first, epoch := roles(map[string]int{"leader": 1, "follower": 2})
	eventually(t, func() error {
		if got := c.run("", "append", "hello"); got.code != 0 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	servers[first].kill()
	second, after := roles(map[string]int{"leader": 1, "follower": 1, "unreachable": 1})
	if second == first || after != epoch {
		t.Errorf("server %d leads, after %d; epoch %d, was %d", second, first, after, epoch)
	}
	eventually(t, func() error {
		if got := c.run("", "layout", "reconfigure"); got.code != 0 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	c.want("hello\n", "read", "0")
	servers[first] = start(first)
	if _, e := roles(map[string]int{"leader": 1, "follower": 2}); e <= epoch {
		t.Errorf("epoch %d, was %d", e, epoch)
	}
	for id, s := range servers {
		if id != first {
			s.kill()
		}
	}
	eventually(t, func() error {
		got := c.run("", "layout", "status")
		if got.code != exitRuntime || !strings.Contains(got.stderr, "no layout server leads") || strings.Count(got.stdout, "unreachable") != 2 {
			return fmt.Errorf("with one of three: %+v", got)
		}
		return nil
	})
}

// TestClusterThatCannotBegin: a layout server whose members are not there yet answers, and says so to everybody.
func TestClusterThatCannotBegin(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	absent := freePorts(t, 2)
	lay := c.start("layout", "--dir", filepath.Join(testDir(t), "layout"), "--control", "127.0.0.1:0", "--http", "off", "--unit", "1="+absent[0], "--seq", "1="+absent[1], "--chain", "1")
	c.env = append(c.env, "CORFU_LAYOUT="+lay.word("control"))
	c.fails(exitRuntime, []string{"the cluster at " + lay.word("control") + " does not serve: ", "no layout is active yet", "corfu status"}, "--timeout", "2s", "append", "x")
	c.fails(exitRuntime, []string{"no layout is active yet", "corfu status"}, "layout", "show")
	eventually(t, func() error {
		got := c.run("", "status")
		if want := "DOWN: the log has no active epoch yet: it waits for unit 1 and sequencer 1."; got.code != exitRuntime || !strings.Contains(got.stdout, want) {
			return fmt.Errorf("%q is missing: %+v", want, got)
		}
		return nil
	})
}

func TestLayoutServerUsage(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	base := []string{"layout", "--dir", filepath.Join(testDir(t), "layout"), "--http", "off"}
	three := []string{"--server", "1=127.0.0.1:1,127.0.0.1:2", "--server", "2=127.0.0.1:3,127.0.0.1:4", "--server", "3=127.0.0.1:5,127.0.0.1:6"}
	c.fails(exitUsage, []string{"--server 1=a:1", "id=host:port,host:port"}, append(base, "--server", "1=a:1")...)
	c.fails(exitUsage, []string{"2 layout servers: must be 1, 3, 5 or 7"}, append(base, three[:4]...)...)
	c.fails(exitUsage, []string{"layout server 4", "not among the servers"}, append(append(base, three...), "--id", "4")...)
	c.fails(exitRuntime, []string{"raft", "10.0.0.1:1", "refused outside loopback"},
		append(append(base, three...), "--control", "127.0.0.1:0", "--raft", "10.0.0.1:1")...)
}
