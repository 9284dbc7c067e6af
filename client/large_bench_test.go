package client_test

import (
	"context"
	"testing"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
)

// How a large entry compares with the same bytes in entries of a page each, many in flight. Run with:
//
//	go test -run '^$' -bench Large -benchtime 100x ./client
func BenchmarkLarge(b *testing.B) {
	for _, d := range []layout.Durability{layout.Memory, layout.Flash} {
		c := start(b, devcluster.Options{Durability: d, Geometry: layout.DefaultGeometry()})
		l, ctx := c.open(client.Options{}), context.Background()
		payload := patterned(1, 1<<20)
		var last layout.Position
		b.Run(d.String()+"/append-1MiB", func(b *testing.B) {
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			for b.Loop() {
				p, err := l.Append(ctx, payload)
				if err != nil {
					b.Fatal(err)
				}
				last = p
			}
		})
		b.Run(d.String()+"/append-1MiB-in-pages", func(b *testing.B) {
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			done := make(chan error, 300)
			for b.Loop() {
				n := 0
				for rest := payload; len(rest) > 0; n++ {
					part := rest[:min(len(rest), 4032)]
					rest = rest[len(part):]
					if err := l.AppendAsync(ctx, part, func(_ layout.Position, err error) { done <- err }); err != nil {
						b.Fatal(err)
					}
				}
				for range n {
					if err := <-done; err != nil {
						b.Fatal(err)
					}
				}
			}
		})
		b.Run(d.String()+"/read-1MiB", func(b *testing.B) {
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.Read(ctx, last); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
