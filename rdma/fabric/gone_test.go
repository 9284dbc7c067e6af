package fabric

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"corfu/rdma"
	"corfu/rdma/verbs"
)

const goneDevice, goneNetdev = "gone0", "gonedev"

// holdDevice is what the other process of TestDeviceThatIsRemoved does: it opens the device,
// listens and connects, says so, waits until the device is removed, and ends, as a daemon does.
func holdDevice() error {
	var d *verbs.Device
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // its address takes a moment
		if d, err = verbs.Open(verbs.Options{Device: goneDevice}); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := d.Listen(":0")
	if err != nil {
		return err
	}
	accepted, ended := make(chan rdma.Conn, 1), make(chan error, 1)
	go func() {
		for {
			r, err := l.Accept(ctx)
			if err != nil {
				ended <- err
				return
			}
			if c, err := r.Accept(ctx, rdma.ConnOptions{}); err == nil {
				accepted <- c
			}
		}
	}()
	c, err := d.Dial(ctx, l.Addr(), nil, rdma.ConnOptions{})
	if err != nil {
		return err
	}
	far := <-accepted
	fmt.Println("ready")
	for what, done := range map[string]<-chan struct{}{"the device": d.Gone(), "a connection": c.Broken(), "its other end": far.Broken()} {
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("%s does not say that it is over", what)
		}
	}
	if err := <-ended; !errors.Is(err, rdma.ErrClosed) {
		return fmt.Errorf("the listener ended with %w", err)
	}
	fmt.Println(d.GoneErr())
	return nil
}

// TestDeviceThatIsRemoved: a device that is removed while a process has it open says so there, its
// listener and its connections end, and the removal returns once the process did. Added again under
// the same name, it is opened anew.
func TestDeviceThatIsRemoved(t *testing.T) {
	if os.Getenv("CORFU_TEST_HOLD") != "" {
		if err := holdDevice(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if !inLab() {
		t.Skip("removes an RDMA device: make test-lab")
	}
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: goneNetdev, MTU: 4500}}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	defer netlink.LinkDel(link)
	addr, err := netlink.ParseAddr("10.78.0.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link)); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		if _, _, err := AddSoftRoCE(goneDevice, goneNetdev); err != nil {
			t.Fatal(err)
		}
		holder := exec.Command(os.Args[0], "-test.run=^TestDeviceThatIsRemoved$")
		holder.Env = append(os.Environ(), "CORFU_TEST_HOLD=1")
		out, err := holder.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		said := make([]byte, 4096)
		n, _ := out.Read(said)
		if strings.TrimSpace(string(said[:n])) != "ready" {
			t.Fatalf("round %d: %s", round, said[:n])
		}
		began := time.Now()
		removed := make(chan error, 1)
		go func() {
			_, err := RemoveSoftRoCE(goneNetdev)
			removed <- err
		}()
		n, _ = out.Read(said)
		if err := holder.Wait(); err != nil || !strings.Contains(string(said[:n]), goneDevice+" was removed") {
			t.Errorf("round %d: the process ended with %v, and said %q", round, err, said[:n])
		}
		t.Logf("round %d: the process ended after %v: %s", round, time.Since(began), said[:n])
		select {
		case err := <-removed:
			if err != nil {
				t.Errorf("round %d: remove: %v", round, err)
			}
			t.Logf("round %d: removed after %v", round, time.Since(began))
		case <-time.After(time.Minute):
			t.Fatalf("round %d: the removal hangs", round)
		}
	}
}
