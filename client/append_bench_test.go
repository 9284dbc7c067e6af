package client_test

import (
	"context"
	"fmt"
	"testing"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
)

// Appends of a page each with so many in flight. Run with:
//
//	go test -run '^$' -bench Outstanding -benchtime 2s ./client
func BenchmarkOutstanding(b *testing.B) {
	for _, d := range []layout.Durability{layout.Memory, layout.Flash} {
		c := start(b, devcluster.Options{Durability: d, Geometry: layout.DefaultGeometry()})
		l, ctx := c.open(client.Options{MaxOutstanding: 512}), context.Background()
		payload := patterned(1, 4000)
		for _, n := range []int{1, 16, 64, 512} {
			b.Run(fmt.Sprintf("%v/%d", d, n), func(b *testing.B) {
				b.SetBytes(int64(len(payload)))
				b.ReportAllocs()
				free := make(chan error, n)
				for range n {
					free <- nil
				}
				for b.Loop() {
					if err := <-free; err != nil {
						b.Fatal(err)
					}
					if err := l.AppendAsync(ctx, payload, func(_ layout.Position, err error) { free <- err }); err != nil {
						b.Fatal(err)
					}
				}
				for range n {
					if err := <-free; err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
