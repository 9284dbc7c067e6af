package devcluster_test

import (
	"testing"

	"google.golang.org/grpc"

	"corfu/internal/control"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// dialer returns a way to dial members in clear; the connections end with the test.
func dialer(t *testing.T) func(string) (grpc.ClientConnInterface, error) {
	return func(addr string) (grpc.ClientConnInterface, error) {
		conn, err := control.Dial(addr)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn, nil
	}
}

func unitOf(x *bereft, u layout.UnitID) pb.UnitServiceClient {
	conn, err := dialer(x.t)(x.Units[u-1].ControlAddr())
	if err != nil {
		x.t.Error(err)
	}
	return pb.NewUnitServiceClient(conn)
}

// seal makes a unit promise epoch n, as an attempt does that came to nothing. It returns the record
// that the unit knows to be active.
func seal(x *bereft, u layout.UnitID, n layout.Epoch) uint64 {
	x.t.Helper()
	c := unitOf(x, u)
	k, err := c.Known(x.ctx, &pb.KnownRequest{})
	if err != nil {
		x.t.Fatal(err)
	}
	if _, err := c.Seal(x.ctx, &pb.SealRequest{Log: k.Log, Epoch: uint64(n), Base: k.State.Active.Epoch, BaseId: k.State.Active.Id}); err != nil {
		x.t.Fatal(err)
	}
	return k.State.Active.Id
}
