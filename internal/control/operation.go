package control

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"path"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// A control operation, such as one reconfiguration, makes calls to many daemons. Its id travels with them in gRPC's metadata, and
// stands in the log lines of all of them under the key "op": searching for it shows the operation as a whole.

// operationKey is the id's name in the metadata.
const operationKey = "corfu-operation"

// LogKey is the id's name in log lines.
const LogKey = "op"

// idBytes are enough that two operations of one cluster's life do not meet.
const idBytes = 6

// maxID bounds what is taken from a peer, in bytes: it goes into logs.
const maxID = 64

type operationCtx struct{}

// Operation is the id that ctx carries; "": none.
func Operation(ctx context.Context) string {
	id, _ := ctx.Value(operationCtx{}).(string)
	return id
}

// Begin makes ctx that of a control operation, with a new id, unless it is part of one already.
func Begin(ctx context.Context) context.Context {
	if Operation(ctx) != "" {
		return ctx
	}
	var b [idBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	return withOperation(ctx, hex.EncodeToString(b[:]))
}

// Resume makes ctx that of the operation with this id; "" begins a new one.
func Resume(ctx context.Context, id string) context.Context {
	if id == "" {
		return Begin(ctx)
	}
	return withOperation(ctx, id)
}

func withOperation(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, operationCtx{}, id)
}

// outgoing puts the id into the metadata of a call.
func outgoing(ctx context.Context) context.Context {
	if id := Operation(ctx); id != "" {
		return metadata.AppendToOutgoingContext(ctx, operationKey, id)
	}
	return ctx
}

// incoming takes it from there. What does not look like an id is left out: whoever calls must not write the log.
func incoming(ctx context.Context) context.Context {
	if v := metadata.ValueFromIncomingContext(ctx, operationKey); len(v) == 1 && wellFormed(v[0]) {
		return withOperation(ctx, v[0])
	}
	return ctx
}

func wellFormed(id string) bool {
	for _, c := range []byte(id) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_') {
			return false
		}
	}
	return id != "" && len(id) <= maxID
}

// passOn are the dial options with which calls carry the id of their operation.
func passOn() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, q, a any, cc *grpc.ClientConn, call grpc.UnaryInvoker, o ...grpc.CallOption) error {
			return call(outgoing(ctx), method, q, a, cc, o...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(outgoing(ctx), d, cc, method, o...)
		}),
	}
}

// epochal are requests that name the epoch that they are about.
type epochal interface{ GetEpoch() uint64 }

// quiet are calls of which an operation makes many: their lines are there with Debug alone.
var quiet = map[string]bool{"State": true, "Entries": true, "Backfill": true, "Corrupt": true, "Fetch": true, "Repair": true}

// logCall says that a call ended, at Info if it is part of an operation, else at Debug: heartbeats are calls, too.
func logCall(ctx context.Context, log *slog.Logger, method string, request any, began time.Time, err error) {
	level := slog.LevelDebug
	if Operation(ctx) != "" && !quiet[path.Base(method)] {
		level = slog.LevelInfo
	}
	if !log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String("method", method), slog.Duration("took", time.Since(began)), slog.String("code", status.Code(err).String())}
	if id := Operation(ctx); id != "" {
		attrs = append(attrs, slog.String(LogKey, id))
	}
	if e, ok := request.(epochal); ok {
		attrs = append(attrs, slog.Uint64("epoch", e.GetEpoch()))
	}
	if err != nil {
		attrs = append(attrs, slog.String("err", err.Error()))
	}
	log.LogAttrs(ctx, level, "control call", attrs...)
}
