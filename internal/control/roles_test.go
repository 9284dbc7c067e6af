package control

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"corfu/internal/certs"
	"corfu/internal/certs/certstest"
	"corfu/internal/wire/pb"
)

// methods are all of the control plane, as its protobuf says.
func methods() (all []string) {
	protoregistry.GlobalFiles.RangeFilesByPackage("corfu.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for k := range s.Methods().Len() {
				all = append(all, "/"+string(s.FullName())+"/"+string(s.Methods().Get(k).Name()))
			}
		}
		return true
	})
	return all
}

func TestEveryMethodHasARule(t *testing.T) {
	all := methods()
	if len(all) < 20 {
		t.Fatalf("only %d methods found", len(all))
	}
	for _, m := range all {
		r, ok := rules[m]
		if !ok {
			t.Errorf("%s: nobody may call it; give it a line in roles.go", m)
			continue
		}
		if len(r.callers) == 0 || len(r.servers) == 0 {
			t.Errorf("%s: %+v", m, r)
		}
	}
	for m, r := range rules {
		if !slices.Contains(all, m) {
			t.Errorf("%s: there is no such method", m)
		}
		if slices.Contains(r.callers, certs.Monitor) || slices.Contains(r.callers, certs.Unit) || slices.Contains(r.callers, certs.Seq) {
			t.Errorf("%s: %v may call it, who call nobody", m, r.callers)
		}
	}
}

// startAll serves the whole control plane, unimplemented: a call that is let in ends with UNIMPLEMENTED.
func startAll(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	l, err := Listen(FreePort, false, false)
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(options...)
	pb.RegisterLayoutServiceServer(s, pb.UnimplementedLayoutServiceServer{})
	pb.RegisterLayoutServerServiceServer(s, pb.UnimplementedLayoutServerServiceServer{})
	pb.RegisterUnitServiceServer(s, pb.UnimplementedUnitServiceServer{})
	pb.RegisterSequencerServiceServer(s, pb.UnimplementedSequencerServiceServer{})
	pb.RegisterMessageServiceServer(s, pb.UnimplementedMessageServiceServer{})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// call calls any method as a stream of one message each way, which every method looks like from outside.
func call(conn *grpc.ClientConn, method string, o ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, o...)
	if err != nil {
		return err
	}
	_ = s.SendMsg(&pb.GetRequest{})
	_ = s.CloseSend()
	return s.RecvMsg(&pb.GetRequest{})
}

// letIn is for calls over a connection that the server accepts: on a busy machine it may take more than one try.
var letIn = grpc.WaitForReady(true)

func dial(t *testing.T, addr string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	c, err := Dial(addr, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestRolesMayCallWhatTheTableSays tries every method with every role, at a server of every role.
func TestRolesMayCallWhatTheTableSays(t *testing.T) {
	set := certstest.New(t, "corfu")
	for _, server := range []certs.Role{certs.Layout, certs.Unit, certs.Seq} {
		addr := startAll(t, ServerOptions(set.Source(server, "the-"+string(server)))...)
		for _, role := range certs.Roles() {
			conn := dial(t, addr, DialOptions(set.Source(role, "a-"+string(role)))...)
			for _, m := range methods() {
				want := codes.PermissionDenied
				switch r := rules[m]; {
				case !slices.Contains(r.servers, server):
					want = codes.Unauthenticated // and nothing was sent
				case slices.Contains(r.callers, role):
					want = codes.Unimplemented
				}
				if err := call(conn, m, letIn); status.Code(err) != want {
					t.Errorf("%s at %s of %s: %v, want %v", m, server, role, err, want)
				}
			}
		}
	}
}

// TestServerLooksAtRolesItself: a caller of somebody else's making does not.
func TestServerLooksAtRolesItself(t *testing.T) {
	set := certstest.New(t, "corfu")
	addr := startAll(t, ServerOptions(set.Source(certs.Unit, "unit-1"))...)
	careless := func(role certs.Role) *grpc.ClientConn {
		return dial(t, addr, grpc.WithTransportCredentials(credentials.NewTLS(set.Source(role, string(role)).Client("127.0.0.1", []string{"h2"}))))
	}
	for role, want := range map[certs.Role]codes.Code{certs.Client: codes.PermissionDenied, certs.Monitor: codes.PermissionDenied, certs.Layout: codes.Unimplemented} {
		if err := call(careless(role), pb.UnitService_Seal_FullMethodName, letIn); status.Code(err) != want {
			t.Errorf("%s: %v, want %v", role, err, want)
		}
	}
	if err := call(careless(certs.Layout), "/corfu.v1.UnitService/Format"); status.Code(err) != codes.PermissionDenied && status.Code(err) != codes.Unimplemented {
		t.Errorf("a method that is not there: %v", err)
	}
}

// TestNobodyGetsInWithoutACertificate: no certificate, one that ended, of another authority, and clear text.
func TestNobodyGetsInWithoutACertificate(t *testing.T) {
	set, stranger := certstest.New(t, "corfu"), certstest.New(t, "corfu")
	server := set.Source(certs.Unit, "unit-1")
	addr := startAll(t, ServerOptions(server)...)
	pair := func(f certs.Files) []tls.Certificate {
		p, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{p}
	}
	creds := func(c *tls.Config) []grpc.DialOption {
		c.InsecureSkipVerify = true // this peer does not care whom it talks to
		return []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(c))}
	}
	for name, o := range map[string][]grpc.DialOption{
		"no certificate":                creds(&tls.Config{}),
		"one that ended":                creds(&tls.Config{Certificates: pair(set.Ended(certs.Admin, "ended"))}),
		"one of another authority":      creds(&tls.Config{Certificates: pair(stranger.Files(certs.Admin, "op"))}),
		"an honest one, whom to trust?": DialOptions(stranger.Source(certs.Admin, "op")),
		"clear text":                    nil,
	} {
		before := server.HandshakesRefused()
		if err := call(dial(t, addr, o...), pb.UnitService_State_FullMethodName); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
		for end := time.Now().Add(30 * time.Second); server.HandshakesRefused() == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: the server says nothing of it", name)
			}
		}
	}
	if err := call(dial(t, addr, DialOptions(set.Source(certs.Admin, "op"))...), pb.UnitService_State_FullMethodName, letIn); status.Code(err) != codes.Unimplemented {
		t.Errorf("an operator, afterwards: %v", err)
	}
}

// TestServersInClearAreNotTakenForSecure: a caller with certificates does not talk in clear.
func TestServersInClearAreNotTakenForSecure(t *testing.T) {
	set := certstest.New(t, "corfu")
	addr := startAll(t)
	if err := call(dial(t, addr, DialOptions(set.Source(certs.Admin, "op"))...), pb.UnitService_State_FullMethodName); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	if err := call(dial(t, addr), pb.UnitService_State_FullMethodName, letIn); status.Code(err) != codes.Unimplemented {
		t.Errorf("in clear, on loopback: %v", err)
	}
	if err := call(dial(t, addr), "/corfu.v1.UnitService/Format"); err == nil {
		t.Error("a method that is not there")
	}
}

// TestControlPortSurvivesRubbish: what is oversized or makes no sense ends its own connection, in TLS and in clear.
func TestControlPortSurvivesRubbish(t *testing.T) {
	set := certstest.New(t, "corfu")
	for name, x := range map[string]struct {
		server []grpc.ServerOption
		client []grpc.DialOption
	}{"TLS": {ServerOptions(set.Source(certs.Unit, "unit-1")), DialOptions(set.Source(certs.Admin, "op"))}, "clear": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // what is too short is dropped when its time is over
			survives(t, startAll(t, x.server...), x.client)
		})
	}
}

// survives throws rubbish at a control port, and calls it afterwards.
func survives(t *testing.T, addr string, options []grpc.DialOption) {
	for _, rubbish := range [][]byte{
		[]byte("GET / HTTP/1.1\r\n\r\n"),
		[]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\x00\x00\x00\x00\x00"),
		[]byte(strings.Repeat("\x16\x03\x01\xff\xff", 4000)),
		make([]byte, 1<<20),
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(handshakeTime + 30*time.Second))
		_, _ = c.Write(rubbish)
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%.20q: the connection stands", rubbish)
		}
		_ = c.Close()
	}
	conn := dial(t, addr, options...)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, pb.UnitService_State_FullMethodName, grpc.MaxCallSendMsgSize(1<<30))
	if err != nil {
		t.Fatal(err)
	}
	_ = s.SendMsg(&pb.ReconfigureRequest{Reason: strings.Repeat("x", MaxMessage+1)})
	if err := s.RecvMsg(&pb.GetRequest{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of %d bytes: %v", MaxMessage+1, err)
	}
	if err := call(conn, pb.UnitService_State_FullMethodName, letIn); status.Code(err) != codes.Unimplemented {
		t.Errorf("afterwards: %v", err)
	}
}
