package fabric

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"corfu/rdma"
	"corfu/rdma/verbs"
)

// TestDeviceThatIsRemoved: a device that is removed while it is open says so, its listener and its connections end, and the removal returns once
// it was closed. Added again under the same name, it is opened anew.
func TestDeviceThatIsRemoved(t *testing.T) {
	if !inLab() {
		t.Skip("removes an RDMA device: make test-lab")
	}
	const name, netdev = "gone0", "gonedev"
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: netdev, MTU: 4500}}
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
		if _, _, err := AddSoftRoCE(name, netdev); err != nil {
			t.Fatal(err)
		}
		open := func() (d *verbs.Device) {
			var err error
			for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if d, err = verbs.Open(verbs.Options{Device: name}); err == nil {
					return d
				}
			}
			t.Fatalf("round %d: %v", round, err) // its address takes a moment
			return nil
		}
		d := open()
		l, err := d.Listen(":0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		accepted := make(chan rdma.Conn, 1)
		ended := make(chan error, 1)
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
			t.Fatal(err)
		}
		far := <-accepted
		began := time.Now()
		removed := make(chan error, 1)
		go func() {
			_, err := RemoveSoftRoCE(netdev)
			removed <- err
		}()
		wait := func(what string, done <-chan struct{}) {
			t.Helper()
			select {
			case <-done:
				t.Logf("round %d: %s after %v", round, what, time.Since(began))
			case <-ctx.Done():
				t.Fatalf("round %d: never: %s", round, what)
			}
		}
		wait("the device says so", d.Gone())
		if err := d.GoneErr(); err == nil {
			t.Error("without a reason")
		} else {
			t.Log(err)
		}
		wait("a connection ends", c.Broken())
		wait("the other end", far.Broken())
		if err := <-ended; !errors.Is(err, rdma.ErrClosed) {
			t.Errorf("the listener ended with %v", err)
		}
		_, _, _ = c.Close(), far.Close(), l.Close()
		if err := d.Close(); err != nil {
			t.Errorf("round %d: close: %v", round, err)
		}
		select {
		case err := <-removed:
			if err != nil {
				t.Errorf("round %d: remove: %v", round, err)
			}
			t.Logf("round %d: removed after %v", round, time.Since(began))
		case <-ctx.Done():
			t.Fatalf("round %d: the removal hangs", round)
		}
		cancel()
	}
}
