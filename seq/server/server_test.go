package server

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/control"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma"
	"corfu/rdma/tcp"
)

var log1 = layout.LogID{1}

// bench is a sequencer over the software provider, with its control client.
type bench struct {
	*testing.T
	dev    *tcp.Device
	server *Server
	svc    pb.SequencerServiceClient
	reg    *prometheus.Registry
}

func start(t *testing.T, dir string, reuse bool) *bench {
	t.Helper()
	dev, err := tcp.Open(tcp.Options{ReuseKeys: reuse})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, dev: dev, reg: prometheus.NewRegistry()}
	b.server, err = Start(context.Background(), Config{ID: 1, Device: dev, Dir: dir, Registerer: b.reg,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := control.Dial(b.server.ControlAddr())
	if err != nil {
		t.Fatal(err)
	}
	b.svc = pb.NewSequencerServiceClient(conn)
	t.Cleanup(func() {
		_ = conn.Close()
		if err := b.server.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) seal(e layout.Epoch) error {
	_, err := b.svc.Seal(context.Background(), &pb.SealRequest{Log: log1[:], Epoch: uint64(e)})
	return err
}

func (b *bench) activate(e layout.Epoch, p layout.Position) error {
	_, err := b.svc.Activate(context.Background(), &pb.SequencerActivateRequest{Log: log1[:], Epoch: uint64(e), Start: uint64(p)})
	return err
}

func (b *bench) serve(e layout.Epoch, p layout.Position) {
	b.Helper()
	if err := errors.Join(b.seal(e), b.activate(e, p)); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) session(e layout.Epoch) (*pb.SequencerSession, error) {
	return b.svc.OpenSession(context.Background(), &pb.OpenSessionRequest{Log: log1[:], Epoch: uint64(e), Client: 3})
}

func (b *bench) dial(s *pb.SequencerSession) (rdma.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return b.dev.Dial(ctx, s.Fabric, s.Token, rdma.ConnOptions{})
}

// taker is a client that takes tokens.
type taker struct {
	conn rdma.Conn
	word rdma.Remote
}

func (b *bench) taker(e layout.Epoch) taker {
	b.Helper()
	s, err := b.session(e)
	if err != nil {
		b.Fatal(err)
	}
	c, err := b.dial(s)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return taker{c, rdma.Remote{Addr: s.Word.Addr, Key: rdma.RKey(s.Word.Key)}}
}

func (k taker) take(n uint64) (wire.SeqWord, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	l := rdma.NewBatch(1)
	i := l.FetchAdd(k.word, n)
	if err := k.conn.Do(ctx, l); err != nil {
		return 0, err
	}
	return wire.SeqWord(l.Old(i)), nil
}

func (b *bench) state() *pb.SequencerStateReply {
	b.Helper()
	s, err := b.svc.State(context.Background(), &pb.SequencerStateRequest{})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func (b *bench) expectState(state string, promise, next uint64) {
	b.Helper()
	if s := b.state(); s.Id != 1 || s.State != state || s.Promise != promise || s.Next != next {
		b.Errorf("state is %v, want %s, %d, %d", s, state, promise, next)
	}
}

func TestTokensComeOnceEach(t *testing.T) {
	b := start(t, "", false)
	b.expectState("closed", 0, 0)
	if b.server.Health() == nil {
		t.Error("a closed sequencer is healthy")
	}
	b.serve(1, 10)
	const clients, each = 4, 200
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[layout.Position]bool{}
	for range clients {
		k := b.taker(1)
		wg.Go(func() {
			for range each {
				w, err := k.take(1)
				if err != nil || !w.Of(1) {
					t.Errorf("%v, %v", w, err)
					return
				}
				mu.Lock()
				if got[w.Next()] {
					t.Errorf("position %d came twice", w.Next())
				}
				got[w.Next()] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for p := layout.Position(10); p < 10+clients*each; p++ {
		if !got[p] {
			t.Fatalf("position %d was left out", p)
		}
	}
	b.expectState("open", 1, 10+clients*each)
	if err := b.server.Health(); err != nil {
		t.Error(err)
	}
	want := `
# HELP corfu_seq_tokens_total Positions handed out since the start of the process.
# TYPE corfu_seq_tokens_total counter
corfu_seq_tokens_total 800
`
	if err := testutil.GatherAndCompare(b.reg, strings.NewReader(want), "corfu_seq_tokens_total"); err != nil {
		t.Error(err)
	}
	b.serve(2, 1000)
	if err := testutil.GatherAndCompare(b.reg, strings.NewReader(want), "corfu_seq_tokens_total"); err != nil {
		t.Errorf("after a seal: %v", err)
	}
}

func TestR15SealedSequencerHandsOutNothing(t *testing.T) {
	for name, reuse := range map[string]bool{"keys are new": false, "keys are reused": true} {
		t.Run(name, func(t *testing.T) {
			b := start(t, "", reuse)
			b.serve(1, 0)
			k := b.taker(1)
			unused, err := b.session(1)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.take(3); err != nil {
				t.Fatal(err)
			}
			if err := b.seal(2); err != nil {
				t.Fatal(err)
			}
			if err := b.seal(2); err != nil {
				t.Errorf("again: %v", err)
			}
			b.expectState("sealed", 2, 0)
			if w, err := k.take(1); err == nil {
				t.Errorf("a client of the old epoch took %v", w)
			}
			if _, err := b.session(1); status.Code(err) != codes.FailedPrecondition {
				t.Errorf("session in the old epoch: %v", err)
			}
			if _, err := b.session(2); status.Code(err) != codes.FailedPrecondition {
				t.Errorf("session before the activation: %v", err)
			}
			if err := b.activate(2, 3); err != nil {
				t.Fatal(err)
			}
			if err := b.activate(2, 3); err != nil {
				t.Errorf("again: %v", err)
			}
			if _, err := b.dial(unused); !errors.Is(err, rdma.ErrRejected) {
				t.Errorf("a token from before the seal: %v", err)
			}
			if w, err := k.take(1); err == nil {
				t.Errorf("a client of the old epoch took %v of the new one", w)
			}
			if w, err := b.taker(2).take(1); err != nil || w != wire.MakeSeqWord(2, 3) {
				t.Errorf("the new epoch begins with %v, %v", w, err)
			}
		})
	}
}

func TestSessionTokenIsGoodOnce(t *testing.T) {
	b := start(t, "", false)
	b.serve(1, 0)
	s, err := b.session(1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := b.dial(s)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := b.dial(s); !errors.Is(err, rdma.ErrRejected) {
		t.Errorf("a second time: %v", err)
	}
	s.Token = []byte("made up")
	if _, err := b.dial(s); !errors.Is(err, rdma.ErrRejected) {
		t.Errorf("made up: %v", err)
	}
}

func TestTokensExpireAndSessionsAreBounded(t *testing.T) {
	s := newSessions(Config{TokenLife: time.Second, MaxSessions: 3, MaxOfIdentity: 2})
	now := time.Now()
	one := holder{1, "one", nil}
	first, _ := s.issue(one, now)
	if _, err := s.issue(one, now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.issue(one, now); !errors.Is(err, errTooMany) {
		t.Errorf("a third of one identity: %v", err)
	}
	if _, err := s.issue(holder{2, "two", nil}, now); err != nil {
		t.Errorf("another identity: %v", err)
	}
	if _, err := s.issue(holder{3, "three", nil}, now); !errors.Is(err, errFull) {
		t.Errorf("a fourth: %v", err)
	}
	if _, _, err := s.redeem(first[:], now.Add(time.Second)); err == nil {
		t.Error("a token lives longer than its life")
	}
	s.expire(now.Add(2 * time.Second))
	if s.tokens.Len() != 0 || len(s.ofWhom) != 0 {
		t.Errorf("%d tokens are left, of %v", s.tokens.Len(), s.ofWhom)
	}
	next, err := s.issue(one, now)
	if err != nil {
		t.Fatal(err)
	}
	h, era, err := s.redeem(next[:], now)
	if h != one || err != nil || s.ofWhom["one"] != 1 {
		t.Errorf("%v, %v; %v", h, err, s.ofWhom)
	}
	if s.drop(h, era); len(s.ofWhom) != 0 {
		t.Errorf("a connection that failed counts: %v", s.ofWhom)
	}
}

func TestR14PromiseOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	t.Run("before", func(t *testing.T) { start(t, dir, false).serve(7, 0) })
	b := start(t, dir, false)
	b.expectState("closed", 7, 0)
	if err := b.seal(7); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("seal at the promise: %v", err)
	}
	if err := b.activate(7, 0); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("activate at the promise (rule R19): %v", err)
	}
	b.serve(8, 5)
	b.expectState("open", 8, 5)
}

func TestR14DamagedPromiseIsNotTakenForNone(t *testing.T) {
	good := encodePromise(1, 7)
	if e, err := decodePromise(good, 1); e != 7 || err != nil {
		t.Errorf("%d, %v", e, err)
	}
	if _, err := decodePromise(good, 2); !errors.Is(err, errPromise) {
		t.Errorf("of another sequencer: %v", err)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if _, err := decodePromise(bad, 1); !errors.Is(err, errPromise) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
		if _, err := decodePromise(good[:i], 1); !errors.Is(err, errPromise) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, promiseFile), good[:10], 0o600); err != nil {
		t.Fatal(err)
	}
	dev, err := tcp.Open(tcp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(context.Background(), Config{ID: 1, Device: dev, Dir: dir}); !errors.Is(err, errPromise) {
		t.Errorf("start: %v", err)
	}
}

func TestTamperedWordIsRevoked(t *testing.T) {
	b := start(t, "", false)
	b.serve(1, 0)
	k := b.taker(1)
	if _, err := k.take(1 << 48); err != nil { // carries into the epoch
		t.Fatal(err)
	}
	b.server.inspect()
	b.expectState("closed", 1, 0)
	if w, err := k.take(1); err == nil {
		t.Errorf("took %v", w)
	}
	if got := testutil.ToFloat64(b.server.metrics.alarms); got != 1 {
		t.Errorf("%v alarms", got)
	}
	b.serve(2, 0)
}

func TestControlInClearStaysOnLoopback(t *testing.T) {
	dev, err := tcp.Open(tcp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Start(context.Background(), Config{ID: 1, Device: dev, Control: "0.0.0.0:0"})
	if !errors.Is(err, control.ErrClear) {
		t.Errorf("%v, want ErrClear", err)
	}
	s, err := Start(context.Background(), Config{ID: 1, Device: dev, Control: "0.0.0.0:0", Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := dev.Close(); err != nil {
		t.Errorf("something of the sequencer is still open: %v", err)
	}
	if _, err := Start(context.Background(), Config{TokenLife: -1, MaxSessions: -1}); err == nil ||
		!strings.Contains(err.Error(), "id is 0") || !strings.Contains(err.Error(), "device") ||
		!strings.Contains(err.Error(), "token life") || !strings.Contains(err.Error(), "max sessions") {
		t.Errorf("everything wrong: %v", err)
	}
}

// TestStopIsAnnounced with the answer to the next heartbeat.
func TestStopIsAnnounced(t *testing.T) {
	b := start(t, t.TempDir(), false)
	if b.state().Stopping {
		t.Error("it stops before anybody said so")
	}
	ended := make(chan error, 1)
	go func() { ended <- b.server.AnnounceStop(t.Context()) }()
	for heard := false; ; heard = b.state().Stopping {
		select {
		case err := <-ended:
			if err != nil || !heard {
				t.Errorf("%v, heard %v", err, heard)
			}
			return
		default:
		}
	}
}
