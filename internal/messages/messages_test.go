package messages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/certs"
	"corfu/internal/certs/certstest"
	"corfu/internal/control"
	"corfu/internal/tickets"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma"
	"corfu/rdma/fabric"
)

// openDevice opens verbs in the lab, which must not skip it, and tcp elsewhere.
func openDevice(t *testing.T) rdma.Device {
	t.Helper()
	provider := fabric.TCP
	if os.Getenv("CORFU_LAB") == "1" {
		provider = fabric.Verbs
	}
	dev, _, err := fabric.Open(fabric.Options{Provider: provider})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dev.Close(); err != nil {
			t.Error("device:", err)
		}
	})
	return dev
}

// member is a Server behind both networks.
type member struct {
	*Server
	dev  rdma.Device
	conn interface {
		pb.MessageServiceClient
	}
	dial func(k Kind) (*Conn, error)

	mu      sync.Mutex
	seals   []wire.Seal
	answer  wire.Sealed
	store   *layout.StoreState
	epoch   layout.Epoch
	encoded []byte

	turn atomic.Pointer[func()] // called before each part of a layout is given
}

func startMember(t *testing.T, life time.Duration) *member {
	t.Helper()
	return startMemberWith(t, life, nil, nil)
}

// startMemberWith starts one that has a certificate, and a peer of it that has another; in clear without.
func startMemberWith(t *testing.T, life time.Duration, own, peer *certs.Source) *member {
	t.Helper()
	m := &member{dev: openDevice(t)}
	l, err := m.dev.Listen(":0")
	if err != nil {
		t.Fatal(err)
	}
	h := Handler{
		Seal: func(q wire.Seal) (wire.Sealed, *layout.StoreState) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.seals = append(m.seals, q)
			return m.answer, m.store
		},
		Layout: func() (layout.Epoch, []byte) {
			if turn := m.turn.Load(); turn != nil {
				(*turn)()
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.epoch, m.encoded
		},
	}
	m.Server = NewServer(h, m.dev, l.Addr(), life, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			r, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			if k, ok := m.Redeem(r.Private()); ok {
				m.Accept(r, k)
			} else {
				_ = r.Reject("no such token")
			}
		}
	}()
	cl, err := control.Listen(control.FreePort, false, false)
	if err != nil {
		t.Fatal(err)
	}
	g := control.Serve(control.ServerOptions(own)...)
	pb.RegisterMessageServiceServer(g, m.Server)
	go func() { _ = g.Serve(cl) }()
	cc, err := control.Dial(cl.Addr().String(), control.DialOptions(peer)...)
	if err != nil {
		t.Fatal(err)
	}
	m.conn = pb.NewMessageServiceClient(cc)
	m.dial = func(k Kind) (*Conn, error) { return Open(testContext(t), cc, m.dev, k, 0) }
	t.Cleanup(func() {
		_ = cc.Close()
		g.Stop()
		m.Close()
		_ = l.Close()
		<-done
	})
	return m
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func (m *member) open(t *testing.T, k Kind) *Conn {
	t.Helper()
	c, err := m.dial(k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// asked are the seals that came.
func (m *member) asked() []wire.Seal {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]wire.Seal(nil), m.seals...)
}

// knows makes the member know a layout of an epoch with many units, so that it takes many parts.
func (m *member) knows(e layout.Epoch, units int) *layout.Layout {
	l := &layout.Layout{Log: layout.LogID{1}, Epoch: e, Geometry: layout.DefaultGeometry(), Sequencer: layout.Sequencer{ID: 1, Control: "192.0.2.1:7771"}}
	var s layout.Segment
	for i := range units {
		id := layout.UnitID(i + 1)
		l.Units = append(l.Units, layout.Unit{ID: id, Control: fmt.Sprintf("192.0.2.%d:7781", i+2)})
		s.Chains = append(s.Chains, layout.Chain{Units: []layout.UnitID{id}})
	}
	l.Segments = []layout.Segment{s}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch, m.encoded = e, layout.Encode(l)
	return l
}

func TestSealAndItsAnswer(t *testing.T) {
	m := startMember(t, time.Minute)
	c := m.open(t, Sealer)
	store := &layout.StoreState{Store: layout.StoreID{3}, Start: 4, Reconciled: layout.RecordRef{Epoch: 6, ID: 5},
		Active: layout.RecordRef{Epoch: 5, ID: 7}, Changes: 1 << 40, Entries: true}
	for i, want := range []struct {
		answer wire.Sealed
		store  *layout.StoreState
	}{
		{wire.Sealed{Intact: 6, Watermark: 1 << 40, End: 1<<40 + 3, TrimmedBelow: 9}, store},
		{wire.Sealed{Status: wire.StatusPromised, Promise: 77}, &layout.StoreState{}},
	} {
		m.mu.Lock()
		if m.answer, m.store = want.answer, want.store; want.answer.Status != wire.StatusOK {
			m.store = nil
		}
		m.mu.Unlock()
		got, of, err := c.Seal(testContext(t), layout.LogID{7: 1}, layout.Epoch(8+i), layout.RecordRef{Epoch: 6, ID: 11})
		got.Request = 0
		if err != nil || got != want.answer || of != *want.store {
			t.Errorf("answered %+v of %+v, %v; want %+v of %+v", got, of, err, want.answer, *want.store)
		}
	}
	want := []wire.Seal{{Request: 1, Log: layout.LogID{7: 1}, Epoch: 8, Base: 6, BaseID: 11, Store: true},
		{Request: 2, Log: layout.LogID{7: 1}, Epoch: 9, Base: 6, BaseID: 11, Store: true}}
	if got := m.asked(); !reflect.DeepEqual(got, want) {
		t.Errorf("the member was asked %+v, not %+v", got, want)
	}
}

func TestLayoutOfManyPartsAndOnlyNewerOnes(t *testing.T) {
	m := startMember(t, time.Minute)
	c := m.open(t, Reader)
	ctx := testContext(t)
	if l, err := c.Layout(ctx, 0); l != nil || err != nil {
		t.Errorf("a member that knows nothing: %+v, %v", l, err)
	}
	for _, units := range []int{1, 2, 60} {
		want := m.knows(layout.Epoch(5+units), units)
		if got, err := c.Layout(ctx, want.Epoch-1); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%d units: %+v, %v; want %+v", units, got, err, want)
		}
		if l, err := c.Layout(ctx, want.Epoch); l != nil || err != nil {
			t.Errorf("no newer one: %+v, %v", l, err)
		}
	}
}

// TestLayoutThatChangesBetweenParts: parts of two layouts are never joined.
func TestLayoutThatChangesBetweenParts(t *testing.T) {
	m := startMember(t, time.Minute)
	c := m.open(t, Reader)
	ctx := testContext(t)
	e, random := layout.Epoch(1), rand.New(rand.NewPCG(1, 1))
	change := func() { // at every other layout, between some of its parts
		if e == 1 || random.IntN(10) == 0 {
			e++
			m.knows(e, 20+int(e%7))
		}
	}
	m.turn.Store(&change)
	known := layout.Epoch(0)
	for known < 50 {
		l, err := c.Layout(ctx, known)
		if err != nil {
			t.Fatal(err)
		}
		if l == nil {
			continue
		}
		if l.Epoch <= known || len(l.Units) != 20+int(l.Epoch%7) {
			t.Fatalf("epoch %d after %d, %d units", l.Epoch, known, len(l.Units))
		}
		known = l.Epoch
	}
}

// TestOnlySealersSeal: the control plane decided who is one when it gave the token away (rule R14: nobody else takes a promise).
func TestOnlySealersSeal(t *testing.T) {
	m := startMember(t, time.Minute)
	c := m.open(t, Reader)
	if _, _, err := c.Seal(testContext(t), layout.LogID{1}, 9, layout.RecordRef{Epoch: 8}); !errors.Is(err, rdma.ErrBroken) {
		t.Errorf("a reader's seal: %v", err)
	}
	if got := m.asked(); len(got) != 0 {
		t.Errorf("it was obeyed: %+v", got)
	}
	if c.Alive() {
		t.Error("its connection stands still")
	}
	want := m.knows(3, 1)
	if l, err := m.open(t, Sealer).Layout(testContext(t), 0); err != nil || !reflect.DeepEqual(l, want) {
		t.Errorf("a sealer asks for a layout: %+v, %v", l, err)
	}
}

// A layout server whose certificate is revoked seals nothing any more, over a connection that was open before, too.
func TestConnectionsEndWhenTheirPeerIsRevoked(t *testing.T) {
	set := certstest.New(t, "corfu")
	peer, own := set.Files(certs.Layout, "layout-1"), set.Files(certs.Unit, "unit-1")
	own.CRL = set.Revoke()
	m := startMemberWith(t, time.Minute, set.Load(own), set.Load(peer))
	c := m.open(t, Sealer)
	set.Revoke(peer.Cert)
	select {
	case <-c.over:
	case <-time.After(time.Minute):
		t.Fatal("the connection of a revoked layout server stands")
	}
	if _, err := m.dial(Sealer); err == nil {
		t.Error("it gets another one")
	}
}

func TestTokensAreGoodOnceAndForAWhile(t *testing.T) {
	m := startMember(t, time.Hour)
	ctx := testContext(t)
	a, err := m.conn.OpenSealer(ctx, &pb.OpenMessagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Token) != tickets.Size {
		t.Errorf("a token of %d bytes, sessions have %d", len(a.Token), tickets.Size)
	}
	forged := bytes.Clone(a.Token)
	forged[len(forged)-1] ^= 1
	if _, ok := m.Redeem(forged); ok {
		t.Error("the right name was enough")
	}
	if _, ok := m.Redeem(a.Token[:8]); ok {
		t.Error("half a token was taken")
	}
	if k, ok := m.Redeem(a.Token); !ok || k.kind != Sealer {
		t.Errorf("a fresh token: %v, %v", k, ok)
	}
	if _, ok := m.Redeem(a.Token); ok {
		t.Error("a token was good twice")
	}

	m = startMember(t, time.Millisecond)
	if a, err = m.conn.OpenReader(ctx, &pb.OpenMessagesRequest{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the only token is too old", func() bool { return m.Count(Reader) == 0 })
	if _, ok := m.Redeem(a.Token); ok {
		t.Error("an old token was taken")
	}
	if n := m.Count(Reader); n != 0 {
		t.Errorf("%d readers are counted", n)
	}
	var rejected *rdma.RejectError
	if c, err := m.dev.Dial(ctx, a.Fabric, a.Token, askerConn); !errors.As(err, &rejected) {
		t.Errorf("dialled with an old token: %v, %v", c, err)
	}
}

// until polls until ok, for as long as a busy machine may need.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// TestReadersDoNotKeepSealersOut: limits are apart, and what is given back can be taken again.
func TestReadersDoNotKeepSealersOut(t *testing.T) {
	m := startMember(t, time.Hour)
	ctx := testContext(t)
	var last *pb.MessageConnection
	for i := range maxReaders {
		var err error
		if last, err = m.OpenReader(ctx, nil); err != nil {
			t.Fatalf("reader %d: %v", i, err)
		}
	}
	if _, err := m.OpenReader(ctx, nil); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one too many: %v", err)
	}
	m.open(t, Sealer)
	conn, err := m.dev.Dial(ctx, last.Fabric, last.Token, askerConn)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	until(t, "a reader is gone", func() bool { return m.Count(Reader) < maxReaders })
	m.open(t, Reader)
}

// TestReadersOfOneIdentityAreBounded: one client does not keep the others out, and what it gives back it can have again.
func TestReadersOfOneIdentityAreBounded(t *testing.T) {
	set := certstest.New(t, "corfu")
	m := startMemberWith(t, time.Hour, set.Source(certs.Unit, "unit-1"), set.Source(certs.Client, "client-1"))
	ctx := testContext(t)
	c := m.open(t, Reader)
	for i := 1; i < maxReadersOfOne; i++ {
		if _, err := m.conn.OpenReader(ctx, &pb.OpenMessagesRequest{}); err != nil {
			t.Fatalf("reader %d: %v", i, err)
		}
	}
	if _, err := m.conn.OpenReader(ctx, &pb.OpenMessagesRequest{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one too many: %v", err)
	}
	if _, err := m.OpenReader(ctx, nil); err != nil {
		t.Errorf("another one: %v", err)
	}
	c.Close()
	until(t, "its reader is gone", func() bool { return m.Count(Reader) <= maxReadersOfOne })
	m.open(t, Reader)
}

func TestAskerLearnsThatTheMemberIsGone(t *testing.T) {
	m := startMember(t, time.Minute)
	c := m.open(t, Reader)
	m.Close()
	if _, err := c.Layout(testContext(t), 0); err == nil || strings.Contains(err.Error(), "deadline") {
		t.Errorf("asked after the end: %v", err)
	}
	if _, err := m.OpenReader(testContext(t), nil); err == nil {
		t.Error("a closed server gave a token away")
	}
}
