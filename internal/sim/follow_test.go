package sim

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"corfu/client"
	"corfu/layout"
)

// posts is how many batches each connection of a host has posted, by its peer and number.
func (f *Fabric) postsOf(host string) map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := map[string]int{}
	for c := range f.conns {
		if c.host.name == host {
			n[fmt.Sprint(c.peer.host.name, " ", c.id)] = c.posts
		}
	}
	return n
}

// A follower at the tail of a log in which nothing happens sends nothing: not to the sequencer, and nothing to units but what
// each client asks two of them each second, over connections of its own. Minutes later an entry reaches it as soon as ever.
func TestIdleFollowerSendsNothing(t *testing.T) {
	for _, d := range []layout.Durability{layout.Flash, layout.Memory} {
		t.Run(d.String(), func(t *testing.T) {
			dir := scratch(t)
			synctest.Test(t, func(t *testing.T) { idleFollower(t, dir, d) })
		})
	}
}

func idleFollower(t *testing.T, dir string, d layout.Durability) {
	f := NewFabric(*seedFlag, Weird{Late: time.Microsecond, Disk: 10 * time.Microsecond})
	c, err := start(f, dir, Shape{Chains: 2, Replicas: 2, Layouts: 1, Durability: d}, 2*time.Millisecond, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		c.close()
		time.Sleep(time.Minute)
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reg := prometheus.NewRegistry()
	reader, err := c.open(ctx, "reader", client.Options{Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	writer, err := c.open(ctx, "writer", client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	entries := make(chan client.Entry)
	ended := make(chan error, 1)
	go func() {
		for e, err := range reader.Follow(ctx, 0) {
			if err != nil {
				ended <- err
				return
			}
			entries <- e
		}
	}()
	appended := func() (took time.Duration) {
		if _, err := writer.Append(ctx, []byte("entry")); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		select {
		case <-entries:
		case err := <-ended:
			t.Fatal(err)
		}
		return time.Since(began)
	}
	for range 10 {
		appended()
	}
	time.Sleep(time.Minute) // everything is open, and asleep
	heard := progressOf(t, reg)
	before := f.postsOf("reader")
	time.Sleep(2 * time.Minute)
	asking := 0
	for to, n := range f.postsOf("reader") {
		switch was, stood := before[to]; {
		case !stood:
			t.Errorf("an idle follower opened a connection to %s", to)
		case n == was:
		case strings.HasPrefix(to, seqName(1)):
			t.Errorf("an idle follower posted %d times to the sequencer", n-was)
		default:
			asking++
		}
	}
	if asking > 2 {
		t.Errorf("an idle client posted on %d connections to units; want those to the two that it asks for layouts", asking)
	}
	if n := progressOf(t, reg) - heard; n != 0 {
		t.Errorf("units said %v times while nothing happened", n)
	}
	for range 10 {
		// Under memory durability, too: the writer knows that somebody follows, and rings for each.
		if took := appended(); took > 500*time.Microsecond {
			t.Errorf("an entry reached the follower %v after it was acknowledged; want at most 500µs", took)
		}
	}
	cancel()
	<-ended
}

// progressOf is how many Progress messages came.
func progressOf(t *testing.T, reg *prometheus.Registry) float64 {
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.GetName() == "corfu_client_progress_messages_total" {
			return m.Metric[0].GetCounter().GetValue()
		}
	}
	t.Fatal("no metric of progress messages")
	return 0
}

// A follower is cut off from the layout servers, without a word, together with the tail of the only chain, which is left out. The
// other unit tells it of the epoch that goes on.
func TestFollowerLearnsOfAnEpochFromAUnit(t *testing.T) {
	dir := scratch(t)
	synctest.Test(t, func(t *testing.T) {
		f := NewFabric(*seedFlag, Weird{Late: time.Microsecond, Disk: 10 * time.Microsecond})
		c, err := start(f, dir, Shape{Chains: 1, Replicas: 2, Layouts: 1, Heals: true}, 2*time.Millisecond, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			c.close()
			time.Sleep(time.Minute)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		reader, err := c.open(ctx, "reader", client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		writer, err := c.open(ctx, "writer", client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan client.Entry)
		go func() {
			defer close(got)
			for e, err := range reader.Follow(ctx, 0) {
				if err != nil {
					return
				}
				got <- e
			}
		}()
		if _, err := writer.Append(ctx, []byte("before")); err != nil {
			t.Fatal(err)
		}
		<-got
		time.Sleep(10 * time.Second)
		tail := unitName(2)
		for _, other := range []string{"writer", unitName(1), seqName(1), layoutName(1)} {
			f.Block(tail, other, true)
			f.Block(other, tail, true)
		}
		f.Block("reader", layoutName(1), true)
		f.Block(layoutName(1), "reader", true)
		if _, err := writer.Append(ctx, []byte("behind")); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if e := <-got; string(e.Payload) != "behind" {
			t.Errorf("the follower was given %+v", e)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the follower learned of the new epoch after %v; want a few seconds", took)
		}
		cancel()
		for range got {
		}
		f.Heal()
	})
}
