package devcluster_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"corfu/client"
	"corfu/internal/certs"
	"corfu/internal/certs/certstest"
	"corfu/internal/control"
	"corfu/internal/devcluster"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// TestClusterUnderMutualTLS: three layout servers, units, spare and standby, each with a certificate of its own. Under load it is
// reconfigured, a unit is killed and rebuilt, the sequencer and the leading layout server are lost, and all certificates are made anew.
func TestClusterUnderMutualTLS(t *testing.T) {
	notInLab(t, "certificates are the control plane's: TestRevokedClientIsLockedOut has them over verbs, and what they do to sessions")
	ctx, dev, set := testContext(t), openDevice(t), certstest.New(t, "corfu")
	c, err := devcluster.Start(ctx, devcluster.Options{
		Device: dev, Dir: t.TempDir(), Geometry: small, FailAfter: failAfter, LayoutServers: 3, Election: time.Second,
		Chains: 1, Spares: 1, Standbys: 1, RebuildRate: 1 << 20,
		TLS: func(role certs.Role, name string) (*certs.Source, error) { return set.Source(role, name), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	files := set.Files(certs.Client, "client-1")
	log, err := client.Open(ctx, client.Options{LayoutServers: c.LayoutAddrs(), Device: dev, TLS: client.TLS(files)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	l := startLoad(t, ctx, log)
	l.more(300)
	for _, name := range []string{"layout-1", "layout-2", "layout-3"} {
		set.Files(certs.Layout, name)
	}
	for _, name := range []string{"unit-1", "unit-2", "unit-3"} {
		set.Files(certs.Unit, name)
	}
	set.Files(certs.Seq, "seq-1")
	set.Files(certs.Client, "client-1")
	before := log.Layout().Epoch
	if next, err := c.Reconfigure(ctx); err != nil || next.Epoch <= before {
		t.Fatalf("reconfigure: %+v, %v", next, err)
	}
	if err := c.KillUnit(1); err != nil {
		t.Fatal(err)
	}
	awaitLayout(t, log, "the spare has it all", func(l *layout.Layout) bool { return l.IsMember(3) && rebuilt(l) })
	if err := c.KillSequencer(1); err != nil {
		t.Fatal(err)
	}
	awaitLayout(t, log, "the standby serves", func(l *layout.Layout) bool { return l.Sequencer.ID == 2 })
	epoch := log.Layout().Epoch
	op, leader := control.DialOptions(set.Source(certs.Admin, "operator")), -1
	for i, addr := range c.LayoutAddrs() {
		conn, err := control.Dial(addr, op...)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := pb.NewLayoutServerServiceClient(conn).State(ctx, &pb.LayoutServerStateRequest{}); err != nil {
			t.Error(err)
		} else if m.Role == "leader" {
			leader = i
		}
		_ = conn.Close()
	}
	if leader < 0 {
		t.Fatal("nobody leads")
	}
	if err := c.StopLayout(leader); err != nil {
		t.Fatal(err)
	}
	if next, err := c.Reconfigure(ctx); err != nil || next.Epoch <= epoch {
		t.Fatalf("reconfigure under another leader: %+v, %v", next, err)
	}
	if err := c.StartLayout(ctx, leader); err != nil {
		t.Fatal(err)
	}
	l.more(100)
	l.finish(ctx)
}

// TestRevokedClientIsLockedOut: a client whose certificate is revoked while it appends loses its sessions, the open connections of the control plane and any
// way back, within seconds, at the same epoch; one beside it goes on.
func TestRevokedClientIsLockedOut(t *testing.T) {
	ctx, dev, set := testContext(t), openDevice(t), certstest.New(t, "corfu")
	list := set.Revoke()
	c, err := devcluster.Start(ctx, devcluster.Options{Device: dev, Dir: t.TempDir(), Geometry: small, Chains: 1,
		TLS: func(role certs.Role, name string) (*certs.Source, error) {
			f := set.Files(role, name)
			f.CRL = list
			return set.Load(f), nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	open := func(f certs.Files) *client.Log {
		log, err := client.Open(ctx, client.Options{LayoutServers: c.LayoutAddrs(), Device: dev, TLS: client.TLS(f), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = log.Close() })
		if _, err := log.Append(ctx, []byte("x")); err != nil {
			t.Fatal(err)
		}
		return log
	}
	stolen := set.Files(certs.Client, "stolen")
	bad, good := open(stolen), open(set.Files(certs.Client, "good"))
	awaitSessions(ctx, t, c, 2)
	set.Revoke(stolen.Cert)
	awaitSessions(ctx, t, c, 1)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		_, err := bad.Append(short, []byte("by a thief"))
		cancel()
		if err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a revoked client appends still")
		}
	}
	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := bad.Tail(short); err == nil {
		t.Error("a revoked client reads the sequencer's word")
	}
	if _, err := bad.Read(short, 0); err == nil {
		t.Error("a revoked client reads the log")
	}
	if _, err := good.Append(ctx, []byte("y")); err != nil {
		t.Errorf("a client beside it: %v", err)
	}
	if e := good.Layout().Epoch; e != 1 {
		t.Errorf("epoch %d: nobody but the revoked client should notice", e)
	}
}

// awaitSessions waits until each unit and sequencer says that it has n sessions.
func awaitSessions(ctx context.Context, t *testing.T, c *devcluster.Cluster, n uint32) {
	t.Helper()
	var last []uint32
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		s, err := c.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		last = last[:0]
		for _, u := range s.Units {
			last = append(last, u.Sessions)
		}
		for _, q := range s.Sequencers {
			last = append(last, q.Sessions)
		}
		if len(last) >= 2 && !slices.ContainsFunc(last, func(has uint32) bool { return has != n }) {
			return
		}
	}
	t.Fatalf("units and sequencers have %v sessions, want %d each", last, n)
}

// TestClusterUnderMutualTLSRefuses clients that have no certificate of a client.
func TestClusterUnderMutualTLSRefuses(t *testing.T) {
	notInLab(t, "the control plane refuses, before any fabric is dialled")
	ctx, dev, set, stranger := testContext(t), openDevice(t), certstest.New(t, "corfu"), certstest.New(t, "corfu")
	c, err := devcluster.Start(ctx, devcluster.Options{Device: dev, Dir: t.TempDir(), Geometry: small, Chains: 1,
		TLS: func(role certs.Role, name string) (*certs.Source, error) { return set.Source(role, name), nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	for name, x := range map[string]struct {
		files certs.Files
		want  string
	}{
		"in clear":          {certs.Files{}, "not available"},
		"a monitor":         {set.Files(certs.Monitor, "prometheus"), "may not call"},
		"a unit":            {set.Files(certs.Unit, "unit-9"), "may not call"},
		"another authority": {stranger.Files(certs.Client, "c"), "unknown authority"},
	} {
		eventually(t, name, func() error { // a busy machine needs longer for a handshake
			short, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			log, err := client.Open(short, client.Options{LayoutServers: c.LayoutAddrs(), Device: dev, TLS: client.TLS(x.files),
				Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				_ = log.Close()
				t.Fatalf("%s: let in", name)
			}
			if !strings.Contains(err.Error(), x.want) {
				return err
			}
			return nil
		})
	}
	if _, err := client.Open(ctx, client.Options{LayoutServers: c.LayoutAddrs(), Device: dev, TLS: client.TLS(set.Ended(certs.Client, "ended"))}); err == nil ||
		!strings.Contains(err.Error(), "ended at") {
		t.Errorf("ended: %v", err)
	}
	log, err := client.Open(ctx, client.Options{LayoutServers: c.LayoutAddrs(), Device: dev, TLS: client.TLS(set.Files(certs.Client, "c"))})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := log.Append(ctx, []byte("x")); p != 0 || err != nil {
		t.Errorf("afterwards: %d, %v", p, err)
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
}
