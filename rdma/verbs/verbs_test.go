package verbs

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"corfu/rdma"
	"corfu/rdma/rdmatest"
)

// lab skips a test that needs an RDMA device, unless CORFU_LAB asks for it: then
// a missing device is a failure.
func lab(t testing.TB) *Device {
	t.Helper()
	d := open(t)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func open(t testing.TB) *Device {
	t.Helper()
	if os.Getenv("CORFU_LAB") != "1" {
		t.Skip("needs an RDMA device: make lab CMD='go test ./rdma/verbs' sets CORFU_LAB=1")
	}
	d, err := Open(Options{Addr: os.Getenv("CORFU_LAB_ADDR")})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pair connects the device with itself.
func pair(t testing.TB, d *Device, o rdma.ConnOptions) (client, server rdma.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	l, err := d.Listen(":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type accepted struct {
		c   rdma.Conn
		err error
	}
	done := make(chan accepted, 1)
	go func() {
		r, err := l.Accept(ctx)
		if err != nil {
			done <- accepted{nil, err}
			return
		}
		c, err := r.Accept(ctx, o)
		done <- accepted{c, err}
	}()
	client, err = d.Dial(ctx, l.Addr(), []byte("hello"), o)
	if err != nil {
		t.Fatal(err)
	}
	a := <-done
	if a.err != nil {
		t.Fatal(a.err)
	}
	t.Cleanup(func() {
		for _, c := range []rdma.Conn{client, a.c} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return client, a.c
}

// shared gives memory with all rights for peers.
func shared(t testing.TB, d *Device, size int) (*rdma.Memory, rdma.Region) {
	t.Helper()
	m, err := d.Alloc(size)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Register(m, 0, size, rdma.RemoteRead|rdma.RemoteWrite|rdma.RemoteAtomic)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m, r
}

func TestLoopback(t *testing.T) {
	d := lab(t)
	t.Logf("%+v", d.Info())
	m, r := shared(t, d, 1<<16)
	local, _ := shared(t, d, 1<<16)
	c, s := pair(t, d, rdma.ConnOptions{})
	copy(local.Bytes(), "page")
	b := rdma.NewBatch(8)
	b.Write(local.Slice(0, 4096), r.Remote(4096))
	cas := b.CompareSwap(r.Remote(8), 0, 7)
	add := b.FetchAdd(r.Remote(8), 5)
	b.Read(local.Slice(8192, 4096), r.Remote(4096))
	b.SendInline([]byte("doorbell"))
	if err := c.Do(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := [3]uint64{b.Old(cas), b.Old(add), m.Load(8)}; got != [3]uint64{0, 7, 12} {
		t.Errorf("CAS found, FETCH_ADD found, word: %v", got)
	}
	if got := string(local.Bytes()[8192:8196]); got != "page" {
		t.Errorf("READ gave %q", got)
	}
	var got []string
	if err := s.Receive(func(msg []byte) { got = append(got, string(msg)) }); err != nil || len(got) != 1 || got[0] != "doorbell" {
		t.Errorf("received %q, %v", got, err)
	}
}

// TestConformance tries most races a tenth as often as the suite would, since the lab's processor is emulated; that the payload is there
// before the CAS (rule R6), 100,000 times all the same. For as many of the others:
//
//	LAB_TEST_PKGS=rdma/verbs LAB_TEST_TIMEOUT=25m LAB_TEST_ARGS='-test.run Conformance -rdmatest.trials 100000' make test-lab
func TestConformance(t *testing.T) {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rdmatest.trials" })
	if !given {
		if err := flag.Set("rdmatest.trials", "10000"); err != nil {
			t.Fatal(err)
		}
	}
	rdmatest.Run(t, func(t *testing.T) rdma.Device { return open(t) })
}
