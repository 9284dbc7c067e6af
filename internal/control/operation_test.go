package control

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"corfu/internal/wire/pb"
)

// heard is a sequencer that notes the operation of each call.
type heard struct {
	pb.UnimplementedSequencerServiceServer
	mu  sync.Mutex
	ops []string
}

func (h *heard) note(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, Operation(ctx))
}

func (h *heard) Seal(ctx context.Context, q *pb.SealRequest) (*pb.SequencerSealReply, error) {
	h.note(ctx)
	if q.Epoch == 0 {
		return nil, status.Error(codes.FailedPrecondition, "promised")
	}
	return &pb.SequencerSealReply{}, nil
}

func (h *heard) State(ctx context.Context, _ *pb.SequencerStateRequest) (*pb.SequencerStateReply, error) {
	h.note(ctx)
	return &pb.SequencerStateReply{}, nil
}

// watched serves h behind an observer, and gives a client of it, its registry, and its log.
func watched(t *testing.T, h *heard) (pb.SequencerServiceClient, *prometheus.Registry, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	o := Observe("test", slog.New(slog.NewTextHandler(&log, nil)))
	reg := prometheus.NewRegistry()
	reg.MustRegister(o.Collector())
	l, err := net.Listen("tcp", FreePort)
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(o.Options()...)
	pb.RegisterSequencerServiceServer(s, h)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	c, err := Dial(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return pb.NewSequencerServiceClient(c), reg, &log
}

func TestAnOperationsIDReachesEveryDaemonAndItsLog(t *testing.T) {
	h := &heard{}
	c, reg, log := watched(t, h)
	ctx := Begin(testContext(t))
	id := Operation(ctx)
	if len(id) != 2*idBytes || Operation(Begin(ctx)) != id || Operation(Begin(context.Background())) == id {
		t.Fatalf("id %q", id)
	}
	if _, err := c.Seal(ctx, &pb.SealRequest{Epoch: 7}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Seal(Resume(context.WithoutCancel(testContext(t)), "mine-1"), &pb.SealRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Fatal(err)
	}
	if _, err := c.State(ctx, &pb.SequencerStateRequest{}); err != nil { // a heartbeat: no line
		t.Fatal(err)
	}
	if _, err := c.Seal(testContext(t), &pb.SealRequest{Epoch: 8}); err != nil { // of no operation: no line
		t.Fatal(err)
	}
	bad := metadata.AppendToOutgoingContext(testContext(t), operationKey, "a level=ERROR")
	if _, err := c.Seal(bad, &pb.SealRequest{Epoch: 9}); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(h.ops, " "), id+" mine-1 "+id+"  "; got != want {
		t.Errorf("heard %q, want %q", got, want)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "op="+id+" epoch=7") || !strings.Contains(lines[0], "Seal") ||
		!strings.Contains(lines[1], "code=FailedPrecondition op=mine-1 epoch=0") {
		t.Errorf("log:\n%s", log)
	}
	want := `# HELP corfu_test_grpc_server_handled_total Total number of RPCs completed on the server, regardless of success or failure.
# TYPE corfu_test_grpc_server_handled_total counter
corfu_test_grpc_server_handled_total{grpc_code="FailedPrecondition",grpc_method="Seal",grpc_service="corfu.v1.SequencerService",grpc_type="unary"} 1
corfu_test_grpc_server_handled_total{grpc_code="OK",grpc_method="Seal",grpc_service="corfu.v1.SequencerService",grpc_type="unary"} 3
corfu_test_grpc_server_handled_total{grpc_code="OK",grpc_method="State",grpc_service="corfu.v1.SequencerService",grpc_type="unary"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "corfu_test_grpc_server_handled_total"); err != nil {
		t.Error(err)
	}
}
