package control

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"corfu/internal/wire/pb"
)

// TestPeersOfOtherReleasesMeet: they understand each other where their ranges meet, and otherwise the call is refused, with a line that
// says who is to be upgraded; calls and streams alike.
func TestPeersOfOtherReleasesMeet(t *testing.T) {
	const answered = "answered"
	for name, c := range map[string]struct {
		caller, server protocols
		want           string
	}{
		"same":                        {protocols{1, 1}, protocols{1, 1}, answered},
		"newer server, knows the old": {protocols{1, 1}, protocols{1, 2}, answered},
		"newer caller, knows the old": {protocols{1, 2}, protocols{1, 1}, answered},
		"newer caller":                {protocols{2, 3}, protocols{1, 1}, "the caller speaks corfu protocol 2-3, this server only 1-1: upgrade the server, or use a client of its release"},
		"newer server":                {protocols{1, 1}, protocols{2, 3}, "the caller speaks corfu protocol 1-1, this server only 2-3: upgrade the caller"},
	} {
		t.Run(name, func(t *testing.T) {
			client := healthpb.NewHealthClient(meet(t, c.caller, c.server))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := client.Check(ctx, &healthpb.HealthCheckRequest{})
			said(t, "call", err, c.want == answered, c.want)
			stream, err := client.Watch(ctx, &healthpb.HealthCheckRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			said(t, "stream", err, c.want == answered, c.want)
		})
	}
}

func said(t *testing.T, what string, err error, good bool, want string) {
	t.Helper()
	s := status.Convert(err)
	if good && err != nil || !good && (s.Code() != codes.FailedPrecondition || s.Message() != want) {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

// meet gives a connection of a caller that speaks the one range to a server that speaks the other.
func meet(t *testing.T, caller, server protocols) *grpc.ClientConn {
	t.Helper()
	l, err := Listen(FreePort, false, false)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(server.serve()...)
	healthpb.RegisterHealthServer(s, health.NewServer())
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), append(caller.dial(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestCallersBeforeNumbersSpeakTheFirst, and what is no range is refused as such.
func TestCallersBeforeNumbersSpeakTheFirst(t *testing.T) {
	with := func(said string) context.Context {
		return metadata.NewIncomingContext(t.Context(), metadata.Pairs(protocolKey, said))
	}
	for _, c := range []struct {
		ctx  context.Context
		s    protocols
		want codes.Code
	}{
		{t.Context(), protocols{1, 5}, codes.OK},
		{t.Context(), protocols{2, 5}, codes.FailedPrecondition},
		{with("3-4"), protocols{2, 5}, codes.OK},
		{with("4-3"), protocols{2, 5}, codes.InvalidArgument},
		{with("4"), protocols{2, 5}, codes.InvalidArgument},
		{with("-1-4"), protocols{2, 5}, codes.InvalidArgument},
	} {
		if got := status.Code(c.s.speak(c.ctx)); got != c.want {
			t.Errorf("%v: %v, want %v", c.s, got, c.want)
		}
	}
}

// TestServeAndDialSayTheProtocol: what every server and every caller of ours is made with.
func TestServeAndDialSayTheProtocol(t *testing.T) {
	l, err := Listen(FreePort, false, false)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	s := Serve(grpc.UnaryInterceptor(func(ctx context.Context, q any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		said = metadata.ValueFromIncomingContext(ctx, protocolKey)
		return next(ctx, q)
	}))
	pb.RegisterUnitServiceServer(s, pb.UnimplementedUnitServiceServer{})
	go func() { _ = s.Serve(l) }()
	defer s.Stop()
	conn, err := Dial(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := pb.NewUnitServiceClient(conn).State(t.Context(), &pb.UnitStateRequest{}); status.Code(err) != codes.Unimplemented {
		t.Fatalf("it did not get there: %v", err)
	}
	if len(said) != 1 || said[0] != ours.String() {
		t.Errorf("said %q", said)
	}
	late := pb.NewUnitServiceClient(rawConn(t, l.Addr().String(), protocols{Protocol + 1, Protocol + 1}))
	if _, err := late.State(t.Context(), &pb.UnitStateRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a caller of a release to come: %v", err)
	}
}

func rawConn(t *testing.T, addr string, p protocols) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, append(p.dial(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
