package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"corfu/internal/certs"
	"corfu/internal/certs/certstest"
	"corfu/layout"
)

// raftStream is what Raft listens at under TLS.
func raftStream(t *testing.T, s *certs.Source) tlsStream {
	t.Helper()
	l := tlsStream{s.Listen(listen(t, "127.0.0.1:0"), certs.Layout), s}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// TestRaftTakesLayoutServersAlone: neither an operator nor a unit, nor one without TLS, gets a connection that Raft sees.
func TestRaftTakesLayoutServersAlone(t *testing.T) {
	set := certstest.New(t, "corfu")
	server := raftStream(t, set.Source(certs.Layout, "layout-1"))
	seen := make(chan net.Conn, 16)
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			seen <- c
		}
	}()
	addr := raft.ServerAddress(server.Addr().String())
	for _, role := range []certs.Role{certs.Admin, certs.Unit, certs.Client} {
		c, err := (tlsStream{nil, set.Source(role, string(role))}).Dial(addr, 30*time.Second)
		if err == nil { // the refusal comes behind the client's handshake
			_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
			if _, err = c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v", role, err)
			}
			_ = c.Close()
		}
	}
	for _, b := range [][]byte{{0}, bytes.Repeat([]byte{0xff}, 1<<20)} {
		c, err := net.Dial("tcp", string(addr))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(certs.HandshakeTimeout + 30*time.Second))
		_, _ = c.Write(b)
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%.3x: the connection stands", b)
		}
		_ = c.Close()
	}
	if len(seen) != 0 {
		t.Errorf("Raft saw %d connections", len(seen))
	}
	c, err := (tlsStream{nil, set.Source(certs.Layout, "layout-2")}).Dial(addr, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	select {
	case <-seen:
	case <-time.After(time.Minute):
		t.Error("Raft did not see a layout server")
	}
	// One who dials finds out, too.
	other := raftStream(t, set.Source(certs.Unit, "unit-1"))
	if _, err := server.tls.Dial(context.Background(), other.Addr().String(), certs.Layout); err == nil {
		t.Error("a unit was taken for a layout server")
	}
}

// TestRaftInClearSurvivesRubbish: on loopback, or where the operator trusts the network, whoever reaches the port ends its own connection alone.
func TestRaftInClearSurvivesRubbish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, calm)
		c.leader()
		for _, b := range [][]byte{{0}, {0xff}, bytes.Repeat([]byte{0xff}, 1<<20), append([]byte{0}, bytes.Repeat([]byte{0xdf}, 1<<16)...)} {
			for _, p := range c.peers {
				conn, err := memory.dial(t.Context(), p.Raft)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = conn.Write(b)
				_ = conn.Close()
			}
		}
		s := c.leader()
		if _, err := s.store.apply(layout.NewClient{}); err != nil {
			t.Error(err)
		}
		c.agree()
	})
}
