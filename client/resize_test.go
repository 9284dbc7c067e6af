package client_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// Clients append and read while epochs bring another max_sessions, more and fewer: no append fails, and each entry is where it was said to be.
func TestAppendsGoOnWhereMaxSessionsChanges(t *testing.T) {
	durabilities(t, func(t *testing.T, d layout.Durability) {
		c := start(t, devcluster.Options{Replicas: 2, Durability: d})
		ctx := within(t)
		var stop atomic.Bool
		var load sync.WaitGroup
		var mu sync.Mutex
		entries := map[layout.Position]string{}
		more := make(chan struct{}, 1) // an entry was acknowledged
		for i := range 3 {
			l := c.open(client.Options{})
			for j := range 8 {
				load.Go(func() {
					for k := 0; !stop.Load(); k++ {
						text := fmt.Sprint(i, j, k)
						p, err := l.Append(ctx, []byte(text))
						if err != nil {
							t.Errorf("append: %v", err)
							return
						}
						mu.Lock()
						entries[p] = text
						mu.Unlock()
						select {
						case more <- struct{}{}:
						default:
						}
					}
				})
			}
		}
		for _, n := range []int{64, 5, 256, smallGeometry.MaxSessions} {
			for range 20 {
				select {
				case <-more:
				case <-ctx.Done():
					t.Fatal("no append ends")
				}
			}
			l, err := c.Change(ctx, &pb.ReconfigureRequest{MaxSessions: uint32(n)})
			if err != nil {
				t.Fatal(err)
			}
			if l.Geometry.MaxSessions != n {
				t.Errorf("the layout has %+v, want %d", l.Geometry, n)
			}
		}
		stop.Store(true)
		load.Wait()
		reader := c.open(client.Options{})
		for p, text := range entries {
			if got, err := reader.Read(ctx, p); err != nil || string(got) != text {
				t.Fatalf("position %d: %q, %v; want %q", p, got, err, text)
			}
		}
		t.Logf("%d entries", len(entries))
	})
}

// A client that was refused for want of sessions is served once there are more, and nobody begins anew.
func TestMaxSessionsIsRaisedForAClientTooMany(t *testing.T) {
	c := start(t, devcluster.Options{Geometry: layout.Geometry{PageSize: 4096, Window: 64, SessionSlots: 1, MaxSessions: 1}})
	first, second := c.open(client.Options{}), c.open(client.Options{})
	if _, err := first.Append(within(t), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Read(within(t), 0); !errors.Is(err, client.ErrCrowded) {
		t.Fatalf("%v; want ErrCrowded", err)
	}
	if _, err := c.Change(within(t), &pb.ReconfigureRequest{MaxSessions: 2}); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*client.Log{second, first} {
		if got, err := l.Read(within(t), 0); err != nil || string(got) != "x" {
			t.Errorf("%q, %v", got, err)
		}
	}
}
