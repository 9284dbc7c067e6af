package control

import (
	"context"
	"log/slog"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
)

// Observer counts, times and logs the calls that one server answers.
type Observer struct {
	metrics *grpcprom.ServerMetrics
	log     *slog.Logger
}

// callBuckets are the upper bounds of the time of a call, in seconds: 16 µs to 33 s.
var callBuckets = prometheus.ExponentialBuckets(16e-6, 4, 11)

// Observe makes the observer of a part of corfu, "layout", "seq" or "unit": its metrics are corfu_<part>_grpc_server_*. The name keeps those
// of several servers of one process apart.
func Observe(part string, log *slog.Logger) *Observer {
	return &Observer{log: log, metrics: grpcprom.NewServerMetrics(
		grpcprom.WithServerCounterOptions(func(o *prometheus.CounterOpts) { o.Namespace, o.Subsystem = "corfu", part }),
		grpcprom.WithServerHandlingTimeHistogram(func(o *prometheus.HistogramOpts) {
			o.Namespace, o.Subsystem, o.Buckets = "corfu", part, callBuckets
		}))}
}

// Collector are the metrics, to be registered.
func (o *Observer) Collector() prometheus.Collector { return o.metrics }

// Options are for Serve, in front of those that refuse calls: what was refused is counted, too.
func (o *Observer) Options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(o.metrics.UnaryServerInterceptor(), o.unary),
		grpc.ChainStreamInterceptor(o.metrics.StreamServerInterceptor(), o.stream),
	}
}

func (o *Observer) unary(ctx context.Context, q any, info *grpc.UnaryServerInfo, answer grpc.UnaryHandler) (any, error) {
	began := time.Now()
	ctx = incoming(ctx)
	a, err := answer(ctx, q)
	logCall(ctx, o.log, info.FullMethod, q, began, err)
	return a, err
}

func (o *Observer) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, answer grpc.StreamHandler) error {
	began := time.Now()
	ctx := incoming(s.Context())
	err := answer(srv, observed{s, ctx})
	logCall(ctx, o.log, info.FullMethod, nil, began, err)
	return err
}

// observed is a stream whose context carries the operation.
type observed struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s observed) Context() context.Context { return s.ctx }
