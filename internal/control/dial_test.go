package control

import (
	"context"
	"errors"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"corfu/internal/wire/pb"
)

// TestAddressIsDialledAsItIsGiven, whatever a URL would make of it: a connection is made of any, and fails when it is used.
func TestAddressIsDialledAsItIsGiven(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:7000", "[fe80::1%eth0]:7000", "host:%zz", "a/b?c#d:1", "host\n:1"} {
		dialled := make(chan string, 1)
		conn, err := Dial(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(func(_ context.Context, to string) (net.Conn, error) {
			select {
			case dialled <- to:
			default:
			}
			return nil, errors.New("not now")
		}))
		if err != nil {
			t.Errorf("%q: %v", addr, err)
			continue
		}
		_, err = pb.NewUnitServiceClient(conn).State(context.Background(), &pb.UnitStateRequest{})
		if got := <-dialled; got != addr || err == nil {
			t.Errorf("%q: dialled %q, %v", addr, got, err)
		}
		_ = conn.Close()
	}
}
