package control

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"corfu/internal/certs"
)

// ServerOptions make a gRPC server speak mutual TLS; none for a nil source: in clear.
func ServerOptions(s *certs.Source) []grpc.ServerOption {
	if s == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.Creds(&transport{source: s})}
}

// DialOptions make a gRPC connection speak mutual TLS; none for a nil source: in clear.
func DialOptions(s *certs.Source) []grpc.DialOption {
	if s == nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithTransportCredentials(&transport{source: s}), grpc.WithPerRPCCredentials(rightServer{})}
}

// transport is gRPC's TLS with what the source says at each handshake, on connections that end when the peer's certificate does.
type transport struct {
	source *certs.Source
	server string // name to look for in the server's certificate in place of the one that is dialled
}

var alpn = []string{"h2"}

// ClientHandshake implements credentials.TransportCredentials.
func (t *transport) ClientHandshake(ctx context.Context, authority string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	host := t.server
	if host == "" {
		var err error
		if host, _, err = net.SplitHostPort(authority); err != nil {
			host = strings.Trim(authority, "[]")
		}
	}
	return t.expire(credentials.NewTLS(t.source.Client(host, alpn)).ClientHandshake(ctx, authority, c))
}

// ServerHandshake implements credentials.TransportCredentials.
func (t *transport) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	x, info, err := credentials.NewTLS(t.source.Server(alpn)).ServerHandshake(c)
	if err != nil {
		t.source.HandshakeRefused(c, err)
	}
	return t.expire(x, info, err)
}

// authInfo is what TLS says of a peer, and how it stands since.
type authInfo struct {
	credentials.TLSInfo
	standing *certs.Standing
}

func (t *transport) expire(c net.Conn, a credentials.AuthInfo, err error) (net.Conn, credentials.AuthInfo, error) {
	if err != nil {
		return nil, nil, err
	}
	info, ok := a.(credentials.TLSInfo)
	if !ok {
		return nil, nil, errors.Join(errors.New("TLS without TLS info"), c.Close())
	}
	return t.source.Expire(c, info.State), authInfo{info, t.source.Standing(info.State)}, nil
}

// Info implements credentials.TransportCredentials.
func (t *transport) Info() credentials.ProtocolInfo {
	return credentials.NewTLS(&tls.Config{ServerName: t.server, MinVersion: tls.VersionTLS13}).Info()
}

// Clone implements credentials.TransportCredentials.
func (t *transport) Clone() credentials.TransportCredentials { c := *t; return &c }

// OverrideServerName implements credentials.TransportCredentials.
//
// Deprecated: gRPC's interface asks for it; nobody calls it.
func (t *transport) OverrideServerName(name string) error { t.server = name; return nil }
