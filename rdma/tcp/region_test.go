package tcp

import (
	"errors"
	"testing"

	"corfu/rdma"
)

// TestKeys: a key is given once, and each device starts at another; with ReuseKeys the last one
// freed is the first one given.
func TestKeys(t *testing.T) {
	give := func(d *Device, m *rdma.Memory) rdma.Region {
		reg, err := d.Register(m, 0, 64, rdma.RemoteRead)
		check(t, err)
		return reg
	}
	d := newRig(t, Options{}).dev
	m, err := d.Alloc(64)
	check(t, err)
	seen := make(map[rdma.RKey]bool)
	for range 1000 {
		reg := give(d, m)
		if seen[reg.Key()] {
			t.Fatalf("key %#x twice", reg.Key())
		}
		seen[reg.Key()] = true
		check(t, reg.Close())
	}
	check(t, m.Close())
	starts := make(map[uint64]bool)
	for range 10 {
		starts[newRig(t, Options{}).dev.regions.first] = true
	}
	if len(starts) < 9 {
		t.Errorf("first keys of 10 devices: %v", starts)
	}

	d = newRig(t, Options{ReuseKeys: true}).dev
	m, err = d.Alloc(64)
	check(t, err)
	a, b, c := give(d, m), give(d, m), give(d, m)
	check(t, errors.Join(b.Close(), a.Close(), a.Close()))
	x, y, z := give(d, m), give(d, m), give(d, m)
	if x.Key() != a.Key() || y.Key() != b.Key() || z.Key() == a.Key() || z.Key() == b.Key() || z.Key() == c.Key() {
		t.Errorf("keys %#x %#x %#x, then %#x %#x %#x", a.Key(), b.Key(), c.Key(), x.Key(), y.Key(), z.Key())
	}
	check(t, errors.Join(c.Close(), x.Close(), y.Close(), z.Close(), m.Close()))
}

// TestKeysRunOut: rather no region than a key for the second time.
func TestKeysRunOut(t *testing.T) {
	d := newRig(t, Options{}).dev
	m, err := d.Alloc(64)
	check(t, err)
	defer m.Close()
	d.regions.next += 1<<32 - 1
	last, err := d.Register(m, 0, 64, rdma.RemoteRead)
	check(t, err)
	defer last.Close()
	if want := rdma.RKey(uint32(d.regions.first + 1<<32 - 1)); last.Key() != want {
		t.Errorf("last key %#x, want %#x", last.Key(), want)
	}
	if _, err := d.Register(m, 0, 64, rdma.RemoteRead); !errors.Is(err, rdma.ErrUnavailable) {
		t.Errorf("one key too many: %v", err)
	}
}

// TestRegister: what cannot be registered.
func TestRegister(t *testing.T) {
	d, other := newRig(t, Options{}).dev, newRig(t, Options{}).dev
	m, err := d.Alloc(4096)
	check(t, err)
	foreign, err := other.Alloc(4096)
	check(t, err)
	for _, s := range []struct {
		m      *rdma.Memory
		off, n int
		a      rdma.Access
	}{
		{nil, 0, 8, rdma.RemoteRead}, {foreign, 0, 8, rdma.RemoteRead},
		{m, -8, 16, rdma.RemoteRead}, {m, 0, 0, rdma.RemoteRead}, {m, 8, -8, rdma.RemoteRead},
		{m, 0, 4097, rdma.RemoteRead}, {m, 4096, 1, rdma.RemoteRead}, {m, 8, 1<<63 - 1, rdma.RemoteRead},
		{m, 0, 8, 0}, {m, 0, 8, 8},
	} {
		if _, err := d.Register(s.m, s.off, s.n, s.a); !errors.Is(err, rdma.ErrInvalid) {
			t.Errorf("register %d bytes at %d, rights %#x: %v, want ErrInvalid", s.n, s.off, s.a, err)
		}
	}
	check(t, errors.Join(m.Close(), foreign.Close()))
}

// TestCloseOrder: a device outlives what is open on it, and memory its regions.
func TestCloseOrder(t *testing.T) {
	d, err := Open(Options{})
	check(t, err)
	m, err := d.Alloc(4096)
	check(t, err)
	reg, err := d.Register(m, 0, 4096, rdma.RemoteRead)
	check(t, err)
	if err := d.Close(); !errors.Is(err, rdma.ErrInvalid) {
		t.Errorf("close a device in use: %v", err)
	}
	check(t, reg.Close())
	check(t, m.Close())
	check(t, d.Close())
	check(t, d.Close())
	if _, err := d.Alloc(8); !errors.Is(err, rdma.ErrClosed) {
		t.Errorf("alloc on a closed device: %v", err)
	}
	if _, err := d.Listen(":0"); !errors.Is(err, rdma.ErrClosed) {
		t.Errorf("listen on a closed device: %v", err)
	}

	// Memory under a region stays mapped for good: a peer may still reach it.
	d, err = Open(Options{})
	check(t, err)
	m, err = d.Alloc(4096)
	check(t, err)
	reg, err = d.Register(m, 0, 4096, rdma.RemoteRead)
	check(t, err)
	if err := m.Close(); !errors.Is(err, rdma.ErrInvalid) || m.Len() == 0 {
		t.Errorf("close memory under a region: %v", err)
	}
	m.Store(0, 1)
	check(t, reg.Close())
}

// TestBounds walks over the edges of a region.
func TestBounds(t *testing.T) {
	const base, size = 1 << 20, 4096
	r := &region{off: 64, n: size, base: base}
	for _, s := range []struct {
		addr uint64
		n    uint32
		off  int
		ok   bool
	}{
		{base, 1, 64, true}, {base, size, 64, true}, {base + size - 1, 1, 64 + size - 1, true},
		{base - 1, 1, 0, false}, {base - 1, 2, 0, false}, {base, size + 1, 0, false}, {base + 1, size, 0, false},
		{base + size, 1, 0, false}, {0, 1, 0, false}, {1<<64 - 1, 2, 0, false}, {1<<64 - 8, 1<<32 - 1, 0, false},
		{base, 1<<32 - 1, 0, false}, {base + 1<<32, 1, 0, false},
	} {
		if off, ok := r.at(s.addr, s.n); off != s.off || ok != s.ok {
			t.Errorf("%d bytes at %#x: %d, %v, want %d, %v", s.n, s.addr, off, ok, s.off, s.ok)
		}
	}
}
