package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

func TestFillAndTrim(t *testing.T) {
	durabilities(t, func(t *testing.T, d layout.Durability) {
		c := start(t, devcluster.Options{Durability: d})
		l, ctx := c.open(client.Options{}), within(t)
		for i := range 20 {
			if _, err := l.Append(ctx, fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
		for _, err := range []error{l.Fill(ctx, 20), l.Trim(ctx, 20), l.TrimPrefix(ctx, 21)} {
			if !errors.Is(err, client.ErrUnwritten) {
				t.Errorf("beyond the tail: %v, want ErrUnwritten", err)
			}
		}
		if err := l.Fill(ctx, 3); err != nil { // written: stays
			t.Fatal(err)
		}
		if got, err := l.Read(ctx, 3); err != nil || string(got) != "3" {
			t.Errorf("a fill took the place of an entry: %q, %v", got, err)
		}
		for range 2 { // idempotent
			if err := l.Trim(ctx, 5); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := l.Read(ctx, 5); !errors.Is(err, client.ErrTrimmed) {
			t.Errorf("read of a trimmed position: %v", err)
		}
		for _, p := range []layout.Position{4, 11, 11, 2} {
			if err := l.TrimPrefix(ctx, p); err != nil {
				t.Fatalf("trim prefix %d: %v", p, err)
			}
		}
		for p := range layout.Position(20) {
			got, err := l.Read(ctx, p)
			if p < 11 {
				if !errors.Is(err, client.ErrTrimmed) {
					t.Errorf("read %d below the trimmed prefix: %q, %v", p, got, err)
				}
			} else if err != nil || string(got) != fmt.Sprint(p) {
				t.Errorf("read %d above the trimmed prefix: %q, %v", p, got, err)
			}
		}
		var positions []layout.Position
		var cut *client.TrimmedError
		for _, err := range l.ReadRange(ctx, 7, 20) {
			if !errors.As(err, &cut) || !errors.Is(err, client.ErrTrimmed) || *cut != (client.TrimmedError{From: 7, To: 11}) {
				t.Fatalf("the iterator over a trimmed prefix: %v, want positions 7 to 10", err)
			}
		}
		for e, err := range l.ReadRange(ctx, cut.To, 20) {
			if err != nil {
				t.Fatal(err)
			}
			positions = append(positions, e.Position)
		}
		if want := []layout.Position{11, 12, 13, 14, 15, 16, 17, 18, 19}; fmt.Sprint(positions) != fmt.Sprint(want) {
			t.Errorf("the iterator gave %v, want %v", positions, want)
		}
	})
}

// Beyond the tail an iterator says so, and a reader that stops early leaves nothing running.
func TestReadRangeEnds(t *testing.T) {
	c := start(t, devcluster.Options{})
	l, ctx := c.open(client.Options{}), within(t)
	for i := range 10 {
		if _, err := l.Append(ctx, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	for e, err := range l.ReadRange(ctx, 0, 10) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Position == 4 {
			break
		}
	}
	n := 0
	var last error
	for _, err := range l.ReadRange(ctx, 2, 1000) {
		if err == nil {
			n++
		}
		last = err
	}
	if n != 8 || !errors.Is(last, client.ErrUnwritten) {
		t.Errorf("%d entries, then %v; want 8, then ErrUnwritten", n, last)
	}
}

func TestFollowSeesWhatIsAppendedLater(t *testing.T) {
	c := start(t, devcluster.Options{})
	l := c.open(client.Options{})
	seen := make(chan struct{}, 50)
	var appending sync.WaitGroup
	defer appending.Wait()
	ctx, end := context.WithCancel(within(t))
	defer end()
	appending.Go(func() {
		for i := range 50 {
			if _, err := l.Append(ctx, fmt.Append(nil, i)); err != nil {
				t.Errorf("append: %v", err)
				return
			}
			if i%2 == 1 { // Follow catches up, and waits at the tail
				for range 2 {
					select {
					case <-seen:
					case <-ctx.Done():
					}
				}
			}
		}
	})
	n := 0
	var next layout.Position // not always 50: a slow append finds its position filled, and takes another one
	for e, err := range l.Follow(ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Payload) != fmt.Sprint(n) {
			t.Fatalf("entry %d is %q at %d", n, e.Payload, e.Position)
		}
		next = e.Position + 1
		seen <- struct{}{}
		if n++; n == 50 {
			break
		}
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	for _, err := range l.Follow(short, next) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("follow at the tail ended with %v", err)
		}
	}
}

// Appends go on through a change of epoch, by clients that learn of it from a refusal or a push; nothing acknowledged is lost.
func TestAppendsGoOnThroughEpochs(t *testing.T) {
	durabilities(t, func(t *testing.T, d layout.Durability) {
		c := start(t, devcluster.Options{Durability: d})
		ctx := within(t)
		type ack struct {
			p       layout.Position
			payload string
		}
		acks := make(chan ack, 10000)
		stop := make(chan struct{})
		done := make(chan struct{})
		const workers = 4
		for w := range workers {
			l := c.open(client.Options{})
			go func() {
				defer func() { done <- struct{}{} }()
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					payload := fmt.Sprintf("%d/%d", w, i)
					p, err := l.Append(ctx, []byte(payload))
					if err != nil {
						t.Errorf("append %s: %v", payload, err)
						return
					}
					acks <- ack{p, payload}
				}
			}()
		}
		for range 3 {
			seen := len(acks)
			for len(acks) < seen+50 && ctx.Err() == nil && !t.Failed() {
				time.Sleep(time.Millisecond)
			}
			if _, err := c.Reconfigure(ctx); err != nil {
				t.Fatal(err)
			}
		}
		for seen := len(acks); len(acks) < seen+50 && ctx.Err() == nil && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		close(stop)
		for range workers {
			<-done
		}
		close(acks)
		reader := c.open(client.Options{})
		at := map[layout.Position]string{}
		for a := range acks {
			if was, dup := at[a.p]; dup {
				t.Errorf("position %d acknowledged for %s and %s", a.p, was, a.payload)
			}
			at[a.p] = a.payload
		}
		for p, want := range at {
			if got, err := reader.Read(ctx, p); err != nil || string(got) != want {
				t.Errorf("position %d: %q, %v; want %q", p, got, err, want)
			}
		}
		if e := reader.Layout().Epoch; e < 4 {
			t.Errorf("epoch %d after three reconfigurations", e)
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	c := start(t, devcluster.Options{})
	l := c.open(client.Options{})
	ctx := within(t)
	const n = 100
	results := make(chan error, n)
	for range n {
		if err := l.AppendAsync(ctx, []byte("x"), func(_ layout.Position, err error) { results <- err }); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for range n {
		err := <-results
		if err != nil && !errors.Is(err, client.ErrUnknown) && !errors.Is(err, client.ErrClosed) {
			t.Errorf("an append ended with %v", err)
		}
	}
	if _, err := l.Append(ctx, nil); !errors.Is(err, client.ErrClosed) {
		t.Errorf("append on a closed log: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

// once gives a reason for its first refusal, is silent from then on, and tells when it was asked again.
type once struct {
	pb.UnimplementedLayoutServiceServer
	asked atomic.Int32
	again chan struct{}
}

func (o *once) Get(ctx context.Context, q *pb.GetRequest) (*pb.Layout, error) {
	if q.Known {
		return nil, status.Error(codes.FailedPrecondition, "it knows no layout")
	}
	switch o.asked.Add(1) {
	case 1:
		return nil, status.Error(codes.Unavailable, "the dog ate the log")
	case 2:
		close(o.again)
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// Whose time ends while a question is on its way is told what the one before was answered.
func TestOpenTellsTheLastReason(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	silent := &once{again: make(chan struct{})}
	pb.RegisterLayoutServiceServer(s, silent)
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-silent.again
		cancel()
	}()
	_, err = client.Open(ctx, client.Options{LayoutServers: []string{l.Addr().String()}, Logger: quiet(t)})
	if !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the dog ate the log") {
		t.Errorf("%v", err)
	}
}

func TestOpenWithoutACluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := client.Open(ctx, client.Options{LayoutServers: []string{"127.0.0.1:1"}, Logger: quiet(t)}); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("nobody there: %v, want ErrUnavailable", err)
	}
	_, err := client.Open(ctx, client.Options{LayoutServers: []string{"192.0.2.1:7770", "nonsense"}, Provider: "carrier pigeon", MaxOutstanding: -1})
	if err == nil {
		t.Fatal("bad options were taken")
	}
	t.Log(err)
}
