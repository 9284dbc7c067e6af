package main

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestReadyIsToldToTheServiceManager: what sd_notify(3) describes, so that units with Type=notify start in order and at the right moment.
func TestReadyIsToldToTheServiceManager(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	socket := filepath.Join(t.TempDir(), "notify")
	heard, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	next := func() string {
		t.Helper()
		b := make([]byte, 256)
		_ = heard.SetReadDeadline(time.Now().Add(patience))
		n, err := heard.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	c.env = append(c.env, "NOTIFY_SOCKET="+socket)
	d := c.start("seq", "--provider", "tcp", "--dir", t.TempDir(), "--control", "127.0.0.1:0", "--http", "off")
	if got := next(); got != "READY=1" {
		t.Errorf("up, and told %q", got)
	}
	d.stop()
	if got := next(); got != "STOPPING=1" {
		t.Errorf("asked to end, and told %q", got)
	}
}

func TestSoftRoCECommandsRefuseWithOneLine(t *testing.T) {
	notInLab(t)
	c := newCLI(t)
	c.fails(exitUsage, []string{"--netdev"}, "devices", "add-rxe")
	c.fails(exitUsage, []string{"--netdev"}, "devices", "remove-rxe")
	c.fails(exitRuntime, []string{"no-such-if", "Link not found"}, "devices", "add-rxe", "--netdev", "no-such-if")
	c.want("Soft-RoCE over no-such-if: none removed (nothing to do)\n", "devices", "remove-rxe", "--netdev", "no-such-if")
}
