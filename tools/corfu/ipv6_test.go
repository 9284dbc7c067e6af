package main

import (
	"net"
	"strings"
	"testing"
)

// A cluster at an IPv6 address is named by the flag and the environment as by a file, alone and
// among others.
func TestClusterAtAnIPv6Address(t *testing.T) {
	notInLab(t)
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	l.Close()
	c := newCLI(t)
	addr := c.start("dev", "--control", "[::1]:0", "--http", "[::1]:0", "--provider", "tcp").word("control")
	if !strings.HasPrefix(addr, "[::1]:") {
		t.Fatalf("the layout server says that it is at %q", addr)
	}
	c = newCLIAlone(t) // which finds no cluster by itself
	c.want("0\n", "append", "x", "--cluster", addr, "--provider", "tcp")
	for _, list := range []string{addr, addr + "," + freePorts(t, 1)[0], freePorts(t, 1)[0] + ", " + addr, `["` + addr + `"]`} {
		c.want("x\n", "read", "0", "--cluster", list, "--provider", "tcp")
		env := &cli{t: t, env: append(append([]string{}, c.env...), "CORFU_LAYOUT_SERVERS="+list)}
		env.want("x\n", "read", "0", "--provider", "tcp")
	}
	c.fails(exitUsage, []string{`layout server "[::1]"`, "must be host:port"}, "tail", "--cluster", "[::1]")
}
