package tcp

import (
	"context"
	"io"
	"net"
	"runtime"
	"testing"

	"corfu/rdma"
)

// Latency of one operation at a time over loopback, and throughput of many:
//
//	go test -run '^$' -bench . -count 6 ./rdma/tcp | benchstat -
//
// PingPong is the floor: the same two bare sockets' worth of work without the protocol.

func BenchmarkPingPong(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(b, err)
	defer l.Close()
	go func() {
		s, err := l.Accept()
		if err != nil {
			return
		}
		defer s.Close()
		_, _ = io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s}) // not splice
	}()
	s, err := net.Dial("tcp", l.Addr().String())
	check(b, err)
	defer s.Close()
	buf := make([]byte, 40)
	b.ReportAllocs()
	for b.Loop() {
		_, err := s.Write(buf)
		check(b, err)
		_, err = io.ReadFull(s, buf[:20])
		check(b, err)
		_, err = io.ReadFull(s, buf[:20])
		check(b, err)
	}
}

type workload struct {
	name string
	fill func(b *rdma.Batch, local *rdma.Memory, r rdma.Region)
}

var workloads = []workload{
	{"FetchAdd", func(b *rdma.Batch, _ *rdma.Memory, r rdma.Region) { b.FetchAdd(r.Remote(0), 1) }},
	{"Write4K", func(b *rdma.Batch, m *rdma.Memory, r rdma.Region) { b.Write(m.Slice(0, 4096), r.Remote(4096)) }},
	{"Write4KCompareSwap", func(b *rdma.Batch, m *rdma.Memory, r rdma.Region) {
		b.Write(m.Slice(0, 4096), r.Remote(4096))
		b.CompareSwap(r.Remote(0), 0, 0)
	}},
	{"Read4K", func(b *rdma.Batch, m *rdma.Memory, r rdma.Region) { b.Read(m.Slice(0, 4096), r.Remote(4096)) }},
	{"Write1M", func(b *rdma.Batch, m *rdma.Memory, r rdma.Region) { b.Write(m.Slice(0, 1<<20), r.Remote(0)) }},
	{"Read1M", func(b *rdma.Batch, m *rdma.Memory, r rdma.Region) { b.Read(m.Slice(0, 1<<20), r.Remote(0)) }},
}

func bytesOf(w workload, m *rdma.Memory, r rdma.Region) (n int64) {
	b := rdma.NewBatch(2)
	w.fill(b, m, r)
	for i := range b.Ops {
		n += int64(b.Ops[i].Local.Len)
	}
	return n
}

// BenchmarkLatency posts one list at a time.
func BenchmarkLatency(b *testing.B) {
	for _, w := range workloads {
		b.Run(w.name, func(b *testing.B) {
			r := newRig(b, Options{})
			near, _ := r.pair(rdma.ConnOptions{})
			local, _ := r.region(1 << 20)
			_, reg := r.region(1 << 20)
			list := rdma.NewBatch(2)
			b.SetBytes(bytesOf(w, local, reg))
			b.ReportAllocs()
			for b.Loop() {
				list.Reset()
				w.fill(list, local, reg)
				check(b, near.Do(context.Background(), list))
			}
		})
	}
}

// BenchmarkShared lets 16 goroutines share one connection (8 for each of 2 CPUs).
func BenchmarkShared(b *testing.B) {
	for _, w := range workloads[:4] {
		b.Run(w.name, func(b *testing.B) {
			r := newRig(b, Options{})
			near, _ := r.pair(rdma.ConnOptions{})
			local, _ := r.region(1 << 20)
			_, reg := r.region(1 << 20)
			b.SetBytes(bytesOf(w, local, reg))
			b.SetParallelism(16 / runtime.GOMAXPROCS(0))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				list := rdma.NewBatch(2)
				for pb.Next() {
					list.Reset()
					w.fill(list, local, reg)
					if err := near.Do(context.Background(), list); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkPipelined keeps 64 lists of one goroutine in flight.
func BenchmarkPipelined(b *testing.B) {
	for _, w := range workloads[:4] {
		b.Run(w.name, func(b *testing.B) {
			r := newRig(b, Options{})
			near, _ := r.pair(rdma.ConnOptions{})
			local, _ := r.region(1 << 20)
			_, reg := r.region(1 << 20)
			b.SetBytes(bytesOf(w, local, reg))
			ring := make([]*rdma.Batch, 64)
			for i := range ring {
				ring[i] = rdma.NewBatch(2)
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				list := ring[i%len(ring)]
				i++
				if list.InFlight() {
					check(b, near.Wait(context.Background(), list))
				}
				list.Reset()
				w.fill(list, local, reg)
				check(b, near.Post(context.Background(), list))
			}
			for _, list := range ring {
				if list.InFlight() {
					check(b, near.Wait(context.Background(), list))
				}
			}
		})
	}
}

// TestNoAllocation: nothing is allocated for a batch in steady state, on either end.
func TestNoAllocation(t *testing.T) {
	r := newRig(t, Options{})
	near, far := r.pair(rdma.ConnOptions{})
	local, _ := r.region(1 << 20)
	_, reg := r.region(1 << 20)
	list := rdma.NewBatch(8)
	received := 0
	count := func(m []byte) { received += len(m) }
	got := testing.AllocsPerRun(2000, func() {
		list.Reset()
		for _, w := range workloads[:4] {
			w.fill(list, local, reg)
		}
		list.SendInline([]byte("message"))
		list.Send(local.Slice(0, 100))
		check(t, near.Do(context.Background(), list))
		check(t, far.Receive(count))
	})
	if got >= 1 {
		t.Errorf("%v allocations for a list of %d operations", got, len(list.Ops))
	}
}
