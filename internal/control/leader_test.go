package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire/pb"
)

// fakes is a layout server that answers client ids by a script, and the connection to it. It lives in a synctest bubble, where a server is
// silent only if the script says so.
type fakes struct {
	answer func() (uint32, error)
	mu     sync.Mutex
	asked  int
}

// Invoke implements grpc.ClientConnInterface. When ctx ends it returns, and leaves the server to its answer.
func (f *fakes) Invoke(ctx context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	f.mu.Lock()
	f.asked++
	f.mu.Unlock()
	type answer struct {
		id  uint32
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		id, err := f.answer()
		answers <- answer{id, err}
	}()
	select {
	case a := <-answers:
		reply.(*pb.NewClientIDReply).Client = a.id
		return status.Convert(a.err).Err()
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// NewStream implements grpc.ClientConnInterface.
func (f *fakes) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("client ids come by calls of one answer")
}

// startFakes returns servers, their addresses, and a Layouts over all of them.
func startFakes(n int) (all []*fakes, addrs []string, l *Layouts) {
	conns := map[string]*fakes{}
	for i := range n {
		f, addr := &fakes{}, fmt.Sprintf("192.0.2.%d:7770", 10+i)
		all, addrs, conns[addr] = append(all, f), append(addrs, addr), f
	}
	return all, addrs, NewLayouts(addrs, func(addr string) (grpc.ClientConnInterface, error) {
		if conns[addr] == nil {
			return nil, fmt.Errorf("%s is not to be dialled", addr)
		}
		return conns[addr], nil
	})
}

func askID(ctx context.Context, l *Layouts) (uint32, error) {
	defer synctest.Wait() // calls that were given up are over, or wait for a script
	return Ask(ctx, l, func(ctx context.Context, c pb.LayoutServiceClient) (uint32, error) {
		m, err := c.NewClientID(ctx, &pb.NewClientIDRequest{})
		return m.GetClient(), err
	})
}

func leads(id uint32) func() (uint32, error) { return func() (uint32, error) { return id, nil } }

func follows(id uint16, addr string) func() (uint32, error) {
	return func() (uint32, error) { return 0, NotLeader(id, addr, "follows "+addr) }
}

func (f *fakes) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestAskFollowsTheHintAndRemembersTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, addrs, l := startFakes(3)
		f[0].answer, f[1].answer, f[2].answer = follows(3, addrs[2]), leads(1), leads(7)
		for range 2 {
			if id, err := askID(testContext(t), l); id != 7 || err != nil {
				t.Fatal(id, err)
			}
		}
		if f[0].count() != 1 || f[1].count() != 0 || f[2].count() != 2 {
			t.Errorf("asked %d, %d and %d times", f[0].count(), f[1].count(), f[2].count())
		}
		f[2].answer, f[0].answer = follows(1, addrs[0]), leads(8)
		if id, err := askID(testContext(t), l); id != 8 || err != nil || l.Next() != addrs[0] {
			t.Errorf("%d, %v; next is %s", id, err, l.Next())
		}
	})
}

// TestAskDoesNotWaitForASilentServer: the leader that was stopped does not answer, and after a while another one leads.
func TestAskDoesNotWaitForASilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, addrs, l := startFakes(3)
		free := make(chan struct{})
		defer close(free)
		f[0].answer = func() (uint32, error) { <-free; return 0, errors.New("too late") }
		f[1].answer = follows(1, addrs[0])
		var mu sync.Mutex
		n := 0
		f[2].answer = func() (uint32, error) {
			mu.Lock()
			defer mu.Unlock()
			if n++; n < 3 {
				return 0, NotLeader(1, addrs[0], "follows")
			}
			return 9, nil
		}
		if id, err := askID(testContext(t), l); id != 9 || err != nil {
			t.Error(id, err)
		}
	})
}

func TestAskEndsWhereNobodyLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, addrs, l := startFakes(3)
		f[0].answer, f[1].answer = follows(2, addrs[1]), follows(1, addrs[0]) // they take each other for the leader
		f[2].answer = follows(0, "")
		id, err := askID(testContext(t), l)
		if id != 0 || status.Code(err) != codes.Unavailable || !Answered(err) {
			t.Errorf("%d, %v", id, err)
		}
		for _, want := range []string{addrs[0] + ": follows " + addrs[1], addrs[1] + ": follows " + addrs[0], addrs[2] + ": follows"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in %v", want, err)
			}
		}
		if n := f[0].count(); n > askedAtMost {
			t.Errorf("the first was asked %d times", n)
		}
		f[0].answer = follows(9, "192.0.2.1:1") // a hint that may not be followed
		if _, err := askID(testContext(t), l); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "not to be dialled") {
			t.Error(err)
		}
	})
}

func TestAskGivesTheLeadersRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, l := startFakes(2)
		f[0].answer = func() (uint32, error) { return 0, status.Error(codes.ResourceExhausted, "no client id is left") }
		if _, err := askID(testContext(t), l); status.Code(err) != codes.ResourceExhausted || f[1].count() != 0 {
			t.Errorf("%v; the second was asked %d times", err, f[1].count())
		}
		ctx, cancel := context.WithCancel(context.Background())
		over := make(chan struct{})
		defer close(over)
		f[0].answer = func() (uint32, error) { cancel(); <-over; return 1, nil }
		if _, err := askID(ctx, l); !errors.Is(err, context.Canceled) && status.Code(err) != codes.Canceled {
			t.Errorf("cancelled: %v", err)
		}
	})
}
