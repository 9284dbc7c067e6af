package doctor

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"corfu/rdma"
	"corfu/rdma/selftest"
	"corfu/rdma/tcp"
)

func open(t *testing.T) rdma.Device {
	t.Helper()
	dev, err := tcp.Open(tcp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

// serve runs a server on dev until the test is over.
func serve(t *testing.T, dev rdma.Device, token string, facts Facts) string {
	t.Helper()
	s, err := NewServer(dev, net.JoinHostPort(dev.Info().Addr, "0"), token, facts, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, dev.Close()); err != nil {
			t.Errorf("the server leaves something behind: %v", err)
		}
	})
	return s.Addr()
}

var few = Trials{Order: 500, Ops: 50, Rate: 20 * time.Millisecond, Rounds: 2}

func live(t *testing.T, dev rdma.Device, p Peer, own Facts, base *Measured) ([]Result, Measured) {
	t.Helper()
	return liveWith(t, dev, p, own, base, few)
}

func liveWith(t *testing.T, dev rdma.Device, p Peer, own Facts, base *Measured, trials Trials) ([]Result, Measured) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	rs, got, err := Live(ctx, dev, p, own, base, trials)
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Close(); err != nil {
		t.Errorf("the tester leaves something behind: %v", err)
	}
	return rs, got
}

// names and states of results, a line each.
func states(rs []Result) string {
	var out []string
	for _, r := range rs {
		out = append(out, string(r.State)+" "+r.Name)
	}
	return strings.Join(out, "\n")
}

func TestSelfTestsPassOnAFabricThatKeepsItsPromises(t *testing.T) {
	addr := serve(t, open(t), "secret", Facts{Version: "1", Provider: "tcp", Device: "tcp"})
	p := Peer{Name: "peer", Addr: addr, Token: "secret"}
	rs, got := live(t, open(t), p, Facts{}, nil)
	want := "ok peer\nok peer: large packets\nok peer: fetch_add rate\nok peer: latency\nok peer: order\nok peer: revoked key\nok peer: revoke under load"
	if states(rs) != want {
		t.Fatalf("got\n%s", lines(rs))
	}
	if got.Rate <= 0 || got.FetchAdd.P50 <= 0 || got.Publish.P50 <= 0 || got.Read.P99 < got.Read.P50 {
		t.Errorf("measured %+v", got)
	}
	// The server is free again for the next, and holds it against what it is told to.
	base := Measured{Rate: got.Rate * 1000, FetchAdd: selftest.Latency{P50: 1}, Publish: got.Publish, Read: got.Read}
	base.FetchAdd.P50 = -heldExtra // no network is that fast
	rs, _ = live(t, open(t), p, Facts{MTU: 4096}, &base)
	want = strings.NewReplacer("ok peer: latency", "warning peer: latency", "ok peer: fetch_add", "warning peer: fetch_add").Replace(want)
	if states(rs) != want {
		t.Errorf("got\n%s", lines(rs))
	}
}

func TestPathMTUOfBothEndsIsCompared(t *testing.T) {
	x := &tester{peer: Peer{Name: "peer"}}
	for _, c := range []struct {
		here, there int
		want        string
	}{{0, 4096, ""}, {4096, 4096, "ok peer: path mtu"}, {4096, 1024, "warning peer: path mtu"}} {
		if got := states(x.compareMTU(Facts{MTU: c.here}, Facts{MTU: c.there})); got != c.want {
			t.Errorf("%d and %d: %q", c.here, c.there, got)
		}
	}
}

func TestServersTurnStrangersAway(t *testing.T) {
	addr := serve(t, open(t), "secret", Facts{})
	for _, token := range []string{"", "secre", "secrets"} {
		rs, _ := live(t, open(t), Peer{Name: "peer", Addr: addr, Token: token}, Facts{}, nil)
		if len(rs) != 1 || rs[0].State != Failure || !strings.Contains(rs[0].Says, "not a doctor with this server's token") {
			t.Errorf("token %q: %s", token, lines(rs))
		}
	}
	// A connection to try things on is for those alone that are being served.
	dev := open(t)
	_, err := dev.Dial(t.Context(), addr, private(forTrial, "secret"), rdma.ConnOptions{})
	var rejected *rdma.RejectError
	if !errors.As(err, &rejected) || rejected.Reason != "ask first" {
		t.Errorf("a trial connection out of nowhere: %v", err)
	}
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err, l.Close())
	rs, _ := live(t, open(t), Peer{Name: "peer", Addr: l.Addr().String()}, Facts{}, nil)
	if len(rs) != 1 || rs[0].State != Failure || rs[0].Do == "" {
		t.Errorf("%s", lines(rs))
	}
}

// lying is a device that breaks a promise. Region: the key stays good after it was closed. Order: a CAS goes before the WRITE in front of it.
type lying struct {
	rdma.Device
	region bool
	order  bool

	mu   sync.Mutex
	kept []rdma.Region
}

func (d *lying) Register(m *rdma.Memory, off, n int, a rdma.Access) (rdma.Region, error) {
	r, err := d.Device.Register(m, off, n, a)
	if err != nil || !d.region {
		return r, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept = append(d.kept, r)
	return stubborn{r}, nil
}

// stubborn regions close with their device only.
type stubborn struct{ rdma.Region }

func (stubborn) Close() error { return nil }

func (d *lying) Close() error {
	for _, r := range d.kept {
		if err := r.Close(); err != nil {
			return err
		}
	}
	// Its memory did not close, since the regions had not: there is nothing to hold against anybody.
	_ = d.Device.Close()
	return nil
}

func (d *lying) Dial(ctx context.Context, addr string, private []byte, o rdma.ConnOptions) (rdma.Conn, error) {
	c, err := d.Device.Dial(ctx, addr, private, o)
	if err != nil || !d.order {
		return c, err
	}
	return &hasty{Conn: c, old: map[*rdma.Batch]uint64{}}, nil
}

// hasty connections carry out a CAS a moment before the WRITE in front of it. One goroutine uses them.
type hasty struct {
	rdma.Conn
	old map[*rdma.Batch]uint64
}

func (c *hasty) Post(ctx context.Context, b *rdma.Batch) error {
	if len(b.Ops) != 2 || b.Ops[0].Kind != rdma.OpWrite || b.Ops[1].Kind != rdma.OpCompareSwap {
		return c.Conn.Post(ctx, b)
	}
	first := rdma.NewBatch(1)
	first.CompareSwap(b.Ops[1].Remote, b.Ops[1].Compare, b.Ops[1].Swap)
	if err := c.Do(ctx, first); err != nil {
		return err
	}
	c.old[b] = first.Old(0)
	time.Sleep(time.Millisecond)
	return c.Conn.Post(ctx, b)
}

func (c *hasty) Wait(ctx context.Context, b *rdma.Batch) error {
	err := c.Conn.Wait(ctx, b)
	if old, ok := c.old[b]; ok {
		b.Ops[1].Old = old
	}
	return err
}

func TestR15AKeyThatSurvivesItsRevocationIsFound(t *testing.T) {
	addr := serve(t, &lying{Device: open(t), region: true}, "", Facts{})
	lazy := few
	lazy.Grace = time.Second // its connections never break
	rs, _ := liveWith(t, open(t), Peer{Name: "peer", Addr: addr}, Facts{}, nil, lazy)
	want := "ok peer\nok peer: large packets\nok peer: fetch_add rate\nok peer: latency\nok peer: order\nfailure peer: revoked key\nfailure peer: revoke under load"
	if states(rs) != want || !strings.Contains(lines(rs), "a FETCH_ADD under a revoked key was carried out") ||
		!strings.Contains(lines(rs), "changed after the key was revoked") {
		t.Errorf("got\n%s", lines(rs))
	}
}

func TestR6ACASAheadOfItsWriteIsFound(t *testing.T) {
	addr := serve(t, open(t), "", Facts{})
	rs, _ := live(t, &lying{Device: open(t), order: true}, Peer{Name: "peer", Addr: addr}, Facts{}, nil)
	want := "ok peer\nok peer: large packets\nok peer: fetch_add rate\nok peer: latency\nfailure peer: order\nok peer: revoked key\nok peer: revoke under load"
	if states(rs) != want || !strings.Contains(lines(rs), "rule R6") {
		t.Errorf("got\n%s", lines(rs))
	}
}
