package control

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Protocol numbers all that peers say to each other: the control plane's messages, those on the fabric's connections, the
// words in registered memory and the page's header. A change that a peer of the release before would misread takes the next number. What
// protobuf skips when it does not know it is no such change.
//
// Every control call says in its metadata which numbers the caller speaks, and is refused if the server speaks none of them. Connections
// of the fabric need no number of their own: each takes a token that such a call gave.
const (
	Protocol       = 1 // the newest that this build speaks
	OldestProtocol = 1 // the oldest
)

// protocolKey in a call's metadata: "oldest-newest". A caller without it is of a release before there were numbers: it speaks 1.
const protocolKey = "corfu-protocol"

// protocols is a range of numbers that somebody speaks.
type protocols struct{ oldest, newest uint64 }

var ours = protocols{OldestProtocol, Protocol}

func (p protocols) String() string { return fmt.Sprintf("%d-%d", p.oldest, p.newest) }

func parseProtocols(s string) (p protocols, err error) {
	oldest, newest, ok := strings.Cut(s, "-")
	if p.oldest, err = strconv.ParseUint(oldest, 10, 32); err == nil {
		p.newest, err = strconv.ParseUint(newest, 10, 32)
	}
	if !ok || err != nil || p.oldest > p.newest {
		return p, fmt.Errorf("%q is no range of protocols", s)
	}
	return p, nil
}

// speak decides whether a server that speaks s answers the call in ctx. It fails with FailedPrecondition: to ask again is of no use
// before one of the two is of another release.
func (s protocols) speak(ctx context.Context) error {
	caller := protocols{1, 1}
	if said := metadata.ValueFromIncomingContext(ctx, protocolKey); len(said) > 0 {
		var err error
		if caller, err = parseProtocols(said[0]); err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
	}
	switch {
	case caller.oldest > s.newest:
		return status.Errorf(codes.FailedPrecondition, "the caller speaks corfu protocol %v, this server only %v: upgrade the server, or use a client of its release", caller, s)
	case caller.newest < s.oldest:
		return status.Errorf(codes.FailedPrecondition, "the caller speaks corfu protocol %v, this server only %v: upgrade the caller", caller, s)
	}
	return nil
}

// serve gives the options of a server that speaks s.
func (s protocols) serve() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, q any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := s.speak(ctx); err != nil {
				return nil, err
			}
			return next(ctx, q)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := s.speak(stream.Context()); err != nil {
				return err
			}
			return next(srv, stream)
		}),
	}
}

// dial gives the options of a connection of a caller that speaks s.
func (s protocols) dial() []grpc.DialOption {
	say := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, protocolKey, s.String())
	}
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, q, a any, c *grpc.ClientConn, next grpc.UnaryInvoker, o ...grpc.CallOption) error {
			return next(say(ctx), method, q, a, c, o...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, c *grpc.ClientConn, method string, next grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
			return next(say(ctx), d, c, method, o...)
		}),
	}
}
