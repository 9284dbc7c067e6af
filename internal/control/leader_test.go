package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire/pb"
)

// fakes are layout servers that answer client ids by a script.
type fakes struct {
	pb.UnimplementedLayoutServiceServer
	answer func() (uint32, error)
	mu     sync.Mutex
	asked  int
}

func (f *fakes) NewClientID(context.Context, *pb.NewClientIDRequest) (*pb.NewClientIDReply, error) {
	f.mu.Lock()
	f.asked++
	f.mu.Unlock()
	id, err := f.answer()
	return &pb.NewClientIDReply{Client: id}, err
}

// startFakes gives servers, their addresses, and a Layouts over all of them.
func startFakes(t *testing.T, n int) ([]*fakes, []string, *Layouts) {
	t.Helper()
	var all []*fakes
	var addrs []string
	conns := map[string]*grpc.ClientConn{}
	for range n {
		f := &fakes{}
		l, err := net.Listen("tcp", FreePort)
		if err != nil {
			t.Fatal(err)
		}
		s := Serve()
		pb.RegisterLayoutServiceServer(s, f)
		go func() { _ = s.Serve(l) }()
		t.Cleanup(s.Stop)
		all, addrs = append(all, f), append(addrs, l.Addr().String())
	}
	for _, addr := range addrs {
		c, err := Dial(addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		conns[addr] = c
	}
	return all, addrs, NewLayouts(addrs, func(addr string) (grpc.ClientConnInterface, error) {
		if conns[addr] == nil {
			return nil, fmt.Errorf("%s is not to be dialled", addr)
		}
		return conns[addr], nil
	})
}

func askID(ctx context.Context, l *Layouts) (uint32, error) {
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
	f, addrs, l := startFakes(t, 3)
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
}

// TestAskDoesNotWaitForASilentServer: the leader that was stopped does not answer, and after a while another one leads.
func TestAskDoesNotWaitForASilentServer(t *testing.T) {
	f, addrs, l := startFakes(t, 3)
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
}

func TestAskEndsWhereNobodyLeads(t *testing.T) {
	f, addrs, l := startFakes(t, 3)
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
}

func TestAskGivesTheLeadersRefusal(t *testing.T) {
	f, _, l := startFakes(t, 2)
	f[0].answer = func() (uint32, error) { return 0, status.Error(codes.ResourceExhausted, "no client id is left") }
	if _, err := askID(testContext(t), l); status.Code(err) != codes.ResourceExhausted || f[1].count() != 0 {
		t.Errorf("%v; the second was asked %d times", err, f[1].count())
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	defer close(over) // before the fakes stop
	f[0].answer = func() (uint32, error) { cancel(); <-over; return 1, nil }
	if _, err := askID(ctx, l); !errors.Is(err, context.Canceled) && status.Code(err) != codes.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}
