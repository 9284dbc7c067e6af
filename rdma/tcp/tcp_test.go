package tcp

import (
	"context"
	"errors"
	"testing"

	"corfu/rdma"
)

func pair(t testing.TB, o rdma.ConnOptions) (*Device, rdma.Conn, rdma.Conn) {
	d, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Listen(":0")
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan rdma.Conn)
	go func() {
		r, err := l.Accept(context.Background())
		if err != nil {
			panic(err)
		}
		c, err := r.Accept(context.Background(), o)
		if err != nil {
			panic(err)
		}
		ch <- c
	}()
	a, err := d.Dial(context.Background(), l.Addr(), []byte("hi"), o)
	if err != nil {
		t.Fatal(err)
	}
	b := <-ch
	t.Cleanup(func() { a.Close(); b.Close(); l.Close() })
	return d, a, b
}

func TestSmoke(t *testing.T) {
	d, a, b := pair(t, rdma.ConnOptions{})
	m, _ := d.Alloc(1 << 20)
	reg, err := d.Register(m, 0, 1<<19, rdma.RemoteRead|rdma.RemoteWrite|rdma.RemoteAtomic)
	if err != nil {
		t.Fatal(err)
	}
	copy(m.Bytes()[1<<19:], "hello")
	bt := rdma.NewBatch(4)
	bt.Write(m.Slice(1<<19, 300000), reg.Remote(8))
	i := bt.FetchAdd(reg.Remote(0), 5)
	j := bt.CompareSwap(reg.Remote(0), 5, 9)
	bt.Read(m.Slice(1<<19+300000, 200000), reg.Remote(0))
	bt.SendInline([]byte("msg"))
	if err := a.Do(context.Background(), bt); err != nil {
		t.Fatal(err)
	}
	t.Log(bt.Old(i), bt.Old(j), string(m.Bytes()[1<<19+300008:][:5]), m.Load(1<<19+300000))
	if err := b.Receive(func(msg []byte) { t.Log(string(msg)) }); err != nil {
		t.Fatal(err)
	}
	reg.Close()
	bt.Reset()
	bt.FetchAdd(reg.Remote(0), 5)
	err = a.Do(context.Background(), bt)
	if !errors.Is(err, rdma.ErrRemoteAccess) {
		t.Fatal(err)
	}
	t.Log(err, "|", a.Err())
	<-b.Broken()
	t.Log(b.Err())
}

func benchOp(b *testing.B, fill func(bt *rdma.Batch, m *rdma.Memory, r rdma.Region)) {
	d, a, _ := pair(b, rdma.ConnOptions{})
	m, _ := d.Alloc(1 << 20)
	reg, err := d.Register(m, 0, 1<<19, rdma.RemoteRead|rdma.RemoteWrite|rdma.RemoteAtomic)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	bt := rdma.NewBatch(4)
	for b.Loop() {
		bt.Reset()
		fill(bt, m, reg)
		if err := a.Do(context.Background(), bt); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFetchAdd(b *testing.B) {
	benchOp(b, func(bt *rdma.Batch, m *rdma.Memory, r rdma.Region) { bt.FetchAdd(r.Remote(0), 1) })
}

func BenchmarkRead4K(b *testing.B) {
	benchOp(b, func(bt *rdma.Batch, m *rdma.Memory, r rdma.Region) { bt.Read(m.Slice(1<<19, 4096), r.Remote(0)) })
}
