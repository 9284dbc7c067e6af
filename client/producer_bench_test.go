package client_test

import (
	"fmt"
	"testing"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
)

// Records of 256 bytes, 512 of them outstanding: go test -run '^$' -bench Producer ./client
func BenchmarkProducer(b *testing.B) {
	for _, d := range []layout.Durability{layout.Memory, layout.Flash} {
		for _, o := range []client.ProducerOptions{{}, {InFlight: 4}} {
			b.Run(fmt.Sprintf("%v/%d", d, max(1, o.InFlight)), func(b *testing.B) {
				c := start(b, devcluster.Options{Durability: d, Chains: 1, Replicas: 2, Geometry: layout.Geometry{PageSize: 4096, Window: 4096, SessionSlots: 256, MaxSessions: 8}})
				p, err := client.NewProducer(c.open(client.Options{}), o)
				if err != nil {
					b.Fatal(err)
				}
				ctx, record := within(b), make([]byte, 256)
				room := make(chan struct{}, 512)
				done := func(_ client.RecordID, err error) {
					if err != nil {
						b.Error(err)
					}
					<-room
				}
				b.SetBytes(int64(len(record)))
				b.ReportAllocs()
				for b.Loop() {
					room <- struct{}{}
					if err := p.Produce(ctx, record, done); err != nil {
						b.Fatal(err)
					}
				}
				if err := p.Flush(ctx); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
