package rdmatest

import (
	"errors"
	"math"
	"slices"

	"corfu/rdma"
)

// The target of testRefusals is a region in the middle of its memory, so that a check of bounds
// that is off by one shows on either side.
const (
	refuseSize  = 3 * 4096
	refuseStart = 4096
	refuseLen   = 4096
)

// refusal is an operation that a peer must refuse.
type refusal struct {
	name   string
	rights rdma.Access
	add    func(b *rdma.Batch, local rdma.Local, at rdma.Remote)
	place  func(r rdma.Region) rdma.Remote
}

func write(b *rdma.Batch, local rdma.Local, at rdma.Remote) { b.Write(local, at) }
func read(b *rdma.Batch, local rdma.Local, at rdma.Remote)  { b.Read(local, at) }
func cas(b *rdma.Batch, _ rdma.Local, at rdma.Remote)       { b.CompareSwap(at, 0, 1) }
func add(b *rdma.Batch, _ rdma.Local, at rdma.Remote)       { b.FetchAdd(at, 1) }
func atStart(r rdma.Region) rdma.Remote                     { return r.Remote(0) }
func offset(off int) func(r rdma.Region) rdma.Remote {
	return func(r rdma.Region) rdma.Remote { return r.Remote(off) }
}
func otherKey(r rdma.Region) rdma.Remote {
	return rdma.Remote{Addr: r.Remote(0).Addr, Key: r.Key() ^ 0x00a5a500}
}
func address(addr uint64) func(r rdma.Region) rdma.Remote {
	return func(r rdma.Region) rdma.Remote { return rdma.Remote{Addr: addr, Key: r.Key()} }
}

func refusals() []refusal {
	const rw = rdma.RemoteRead | rdma.RemoteWrite
	list := []refusal{
		{"WRITE without the right", rdma.RemoteRead | rdma.RemoteAtomic, write, atStart},
		{"READ without the right", rdma.RemoteWrite | rdma.RemoteAtomic, read, atStart},
		{"CAS without the right", rw, cas, atStart},
		{"FETCH_ADD without the right", rw, add, atStart},
	}
	for _, k := range []struct {
		name string
		size int // of the operation below, in bytes
		add  func(*rdma.Batch, rdma.Local, rdma.Remote)
	}{{"WRITE", 64, write}, {"READ", 64, read}, {"CAS", 8, cas}, {"FETCH_ADD", 8, add}} {
		list = append(list,
			refusal{k.name + " with another key", all, k.add, otherKey},
			refusal{k.name + " below the region", all, k.add, offset(-8)},
			refusal{k.name + " over the end", all, k.add, offset(refuseLen - k.size + 8)},
			refusal{k.name + " behind the end", all, k.add, offset(refuseLen)},
			refusal{k.name + " far away", all, k.add, offset(1 << 40)},
			refusal{k.name + " at address 0", all, k.add, address(0)},
			refusal{k.name + " over the end of the address space", all, k.add, address(math.MaxUint64 - 7)},
		)
	}
	return append(list,
		refusal{"WRITE one byte below", all, write, offset(-1)},
		refusal{"WRITE one byte over the end", all, write, offset(refuseLen - 63)},
		refusal{"READ one byte below", all, read, offset(-1)},
		refusal{"READ one byte over the end", all, read, offset(refuseLen - 63)},
	)
}

// testRefusals puts each refused operation in the middle of a list: what stands before it takes
// effect, it and what stands behind it do not, both ends of the connection break, and
// another connection does not notice.
func testRefusals(e *env) {
	l := e.listen()
	target, side, local := e.alloc(refuseSize), e.alloc(4096), e.alloc(4096)
	sideRegion := e.register(side, 0, 4096, all)
	bystander, _ := e.connect(l, rdma.ConnOptions{})
	for _, s := range refusals() {
		near, far := e.connect(l, rdma.ConnOptions{})
		r := e.register(target, refuseStart, refuseLen, s.rights)
		fill(target.Bytes(), 1)
		fill(local.Bytes(), 2)
		side.Store(0, 0)
		side.Store(8, 0)
		wantTarget, wantLocal := slices.Clone(target.Bytes()), slices.Clone(local.Bytes())

		b := rdma.NewBatch(3)
		b.FetchAdd(sideRegion.Remote(0), 1)
		s.add(b, local.Slice(0, 64), s.place(r))
		b.FetchAdd(sideRegion.Remote(8), 1)
		kind := b.Ops[1].Kind
		err := near.Do(e.ctx, b)
		var op *rdma.OpError
		if !errors.As(err, &op) || !errors.Is(err, rdma.ErrRemoteAccess) || op.Index != 1 || op.Kind != kind {
			e.Fatalf("%s: %v, want ErrRemoteAccess at operation 1", s.name, err)
		}
		if side.Load(0) != 1 || side.Load(8) != 0 || b.Old(0) != 0 {
			e.Errorf("%s: words before and behind it: %d, %d, want 1, 0", s.name, side.Load(0), side.Load(8))
		}
		e.same(s.name+": target", target.Bytes(), wantTarget)
		e.same(s.name+": local memory", local.Bytes(), wantLocal)
		e.broken(s.name+": near", near)
		e.broken(s.name+": far", far)
		e.refusesPosts(s.name+": near", near, sideRegion.Remote(16))
		e.refusesPosts(s.name+": far", far, sideRegion.Remote(16))
		e.works(s.name+": bystander", bystander, local.Slice(0, 8), sideRegion.Remote(64))
		e.check(near.Close())
		e.check(far.Close())
		e.check(r.Close())
		if e.Failed() {
			return
		}
	}
}

// testUnalignedAtomics wants ErrInvalid from the provider, or a refusal from the peer; and no effect.
func testUnalignedAtomics(e *env) {
	l := e.listen()
	target := e.alloc(4096)
	r := e.register(target, 0, 4096, all)
	for _, f := range []func(*rdma.Batch, rdma.Local, rdma.Remote){cas, add} {
		for _, off := range []int{1, 4, 7, 4092} {
			near, _ := e.connect(l, rdma.ConnOptions{})
			b := rdma.NewBatch(1)
			f(b, rdma.Local{}, r.Remote(off))
			err := near.Do(e.ctx, b)
			if !errors.Is(err, rdma.ErrInvalid) && !errors.Is(err, rdma.ErrRemoteAccess) && !errors.Is(err, rdma.ErrBroken) {
				e.Errorf("%v at %d: %v, want ErrInvalid or a refusal", b.Ops[0].Kind, off, err)
			}
			e.same("target", target.Bytes()[:4096], make([]byte, 4096)) // memory in huge pages is longer
			e.check(near.Close())
		}
	}
}

// testInvalidBatches wants ErrInvalid for what cannot be posted, and the connection as fit as before.
func testInvalidBatches(e *env) {
	near, _ := e.connect(e.listen(), rdma.ConnOptions{SendDepth: 4})
	m := e.alloc(4096)
	r := e.register(m, 0, 4096, all)
	adds := func(n int) func(*rdma.Batch) {
		return func(b *rdma.Batch) {
			for range n {
				b.FetchAdd(r.Remote(0), 1)
			}
		}
	}
	writes := func(l rdma.Local) func(*rdma.Batch) {
		return func(b *rdma.Batch) { b.FetchAdd(r.Remote(0), 1); b.Write(l, r.Remote(8)) }
	}
	for _, s := range []struct {
		name string
		fill func(*rdma.Batch)
	}{
		{"empty list", func(*rdma.Batch) {}},
		{"list longer than SendDepth", adds(5)},
		{"list longer than MaxBatch", adds(rdma.MaxBatch + 1)},
		{"no memory", writes(rdma.Local{Len: 8})},
		{"before the memory", writes(rdma.Local{Mem: m, Off: -8, Len: 8})},
		{"beyond the memory", writes(rdma.Local{Mem: m, Off: m.Len() - 8, Len: 16})},
		{"overflow", writes(rdma.Local{Mem: m, Off: 8, Len: math.MaxInt})},
		{"overflow of the offset", writes(rdma.Local{Mem: m, Off: math.MaxInt - 4, Len: 8})},
		{"negative length", writes(rdma.Local{Mem: m, Off: 8, Len: -1})},
	} {
		b := rdma.NewBatch(1)
		s.fill(b)
		if err := near.Do(e.ctx, b); !errors.Is(err, rdma.ErrInvalid) {
			e.Errorf("%s: %v, want ErrInvalid", s.name, err)
		}
		if b.InFlight() {
			e.Errorf("%s: in flight", s.name)
		}
	}
	e.works("after all that", near, m.Slice(64, 8), r.Remote(128))
	if m.Load(0) != 0 {
		e.Errorf("%d operations of invalid lists took effect", m.Load(0))
	}
}
