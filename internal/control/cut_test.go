package control

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/wire/pb"
)

// alone says to the test's own process that the network is its own.
const alone = "CORFU_TEST_ALONE"

// TestPeerIsReachedSoonAfterItsNetworkIsMended: not when TCP, whose patience doubles, tries again by itself. The loopback device of a network
// namespace of its own is what is cut, just after TCP has tried, for the first time that it would wait for long.
func TestPeerIsReachedSoonAfterItsNetworkIsMended(t *testing.T) {
	if os.Getenv(alone) == "" {
		c := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		c.Env = append(os.Environ(), alone+"=1")
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if err := exec.Command("ip", "-V").Run(); err != nil || os.Getuid() != 0 {
			t.Skip("it takes root, and ip(8): ", err)
		}
		out, err := c.CombinedOutput()
		if errors.Is(err, syscall.EPERM) {
			t.Skip("no network namespace: ", err)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	loopback := func(state string) {
		t.Helper()
		if out, err := exec.Command("ip", "link", "set", "lo", state).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	loopback("up")
	l, err := net.Listen("tcp", FreePort)
	if err != nil {
		t.Fatal(err)
	}
	s := Serve()
	defer s.Stop()
	pb.RegisterUnitServiceServer(s, pb.UnimplementedUnitServiceServer{})
	go func() { _ = s.Serve(l) }()
	conn, err := Dial(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 250*time.Millisecond)
		defer cancel()
		_, err := pb.NewUnitServiceClient(conn).State(ctx, &pb.UnitStateRequest{})
		return status.Code(err) == codes.Unimplemented
	}
	until := func(done func() bool) {
		for !done() {
			time.Sleep(50 * time.Millisecond)
		}
	}
	until(ask)
	loopback("down")
	cut := time.Now()
	until(func() bool { return ask() || time.Since(cut) > 14*time.Second }) // it tries after 13 s, and after 26
	loopback("up")
	mended := time.Now()
	until(ask)
	if took := time.Since(mended); took > 3*unanswered { // TCP by itself: 12 s
		t.Errorf("it answers %v after its network was mended", took)
	}
}
