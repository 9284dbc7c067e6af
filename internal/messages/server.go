package messages

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/internal/certs"
	"corfu/internal/control"
	"corfu/internal/tickets"
	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma"
)

// How many connections and unused tokens there may be of each kind. Apart: clients must not keep the layout leader out.
const (
	maxReaders = 4096
	maxSealers = 64

	maxReadersOfOne = maxReaders / 2 // of one identity, so that one client does not keep all others out. In clear nobody has one
)

// Handler is the member behind a Server. Its methods may be called by several goroutines at once.
type Handler struct {
	// Seal does what a seal over the control plane does, and returns the answer but for its request. store is what a unit says of its store;
	// nil: nothing.
	Seal func(wire.Seal) (answer wire.Sealed, store *layout.StoreState)

	// Layout is the newest layout that is known to be ACTIVE, as layout.Encode gives it; epoch 0: none. Nil: readers are not let in.
	Layout func() (layout.Epoch, []byte)

	// Failed is told why a connection could not be made. Nil: nobody is.
	Failed func(error)
}

// Server is a member's end of all message connections.
type Server struct {
	pb.UnimplementedMessageServiceServer
	handler  Handler
	fabric   string
	provider string
	life     time.Duration
	log      *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	serves sync.WaitGroup

	mu     sync.Mutex
	closed bool
	tokens tickets.Office[Pass]
	inUse  [kinds]int     // connections, and tokens that are not used yet
	ofWhom map[string]int // readers among them, by identity
	conns  map[rdma.Conn]*heard
}

// heard is when something came last over a connection, and from which client.
type heard struct {
	client uint32
	at     time.Time
}

// Kind is what a connection is for.
type Kind int

// The kinds.
const (
	Reader Kind = iota // asks for layouts
	Sealer             // seals, and asks for layouts
	kinds
)

// Pass is what a token was redeemed for.
type Pass struct {
	kind     Kind
	client   uint32          // that asked; 0: none
	whose    string          // identity, as TLS had it; "": in clear
	standing *certs.Standing // of whom it was given to
}

// NewServer makes the end of a member that is dialled at fabric. life is how long a token is good for.
func NewServer(h Handler, dev rdma.Device, fabric string, life time.Duration, log *slog.Logger) *Server {
	s := &Server{handler: h, fabric: fabric, provider: dev.Info().Provider, life: life, log: log, conns: map[rdma.Conn]*heard{}, ofWhom: map[string]int{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// OpenReader implements pb.MessageServiceServer.
func (s *Server) OpenReader(ctx context.Context, q *pb.OpenMessagesRequest) (*pb.MessageConnection, error) {
	if s.handler.Layout == nil {
		return nil, status.Error(codes.Unimplemented, "this member knows no layout: ask a unit")
	}
	return s.issue(ctx, Reader, q.GetClient(), maxReaders)
}

// OpenSealer implements pb.MessageServiceServer.
func (s *Server) OpenSealer(ctx context.Context, _ *pb.OpenMessagesRequest) (*pb.MessageConnection, error) {
	return s.issue(ctx, Sealer, 0, maxSealers)
}

func (s *Server) issue(ctx context.Context, k Kind, client uint32, limit int) (*pb.MessageConnection, error) {
	who, err := control.Caller(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	p := Pass{k, client, who.String(), control.Standing(ctx)}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(now)
	if s.closed || s.inUse[k] >= limit {
		return nil, status.Errorf(codes.ResourceExhausted, "all %d message connections are in use", limit)
	}
	if s.ofWhom[p.whose] >= maxReadersOfOne && k == Reader {
		return nil, status.Errorf(codes.ResourceExhausted, "%s has %d message connections", p.whose, maxReadersOfOne)
	}
	s.charge(p, 1)
	t := s.tokens.Issue(p, now.Add(s.life))
	return &pb.MessageConnection{Fabric: s.fabric, Provider: s.provider, Token: t[:]}, nil
}

// charge notes n more connections or tokens of whom p was given to. mu is held.
func (s *Server) charge(p Pass, n int) {
	s.inUse[p.kind] += n
	if p.kind != Reader || p.whose == "" {
		return
	}
	if s.ofWhom[p.whose] += n; s.ofWhom[p.whose] <= 0 {
		delete(s.ofWhom, p.whose)
	}
}

// Redeem takes the token of a connection request: it is good once. Not ok: it is none of this server's.
func (s *Server) Redeem(private []byte) (p Pass, ok bool) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(now) // so that one that is too old is not counted any more
	p, err := s.tokens.Redeem(private, now)
	return p, err == nil
}

// expire forgets tokens that nobody used. mu is held.
func (s *Server) expire(now time.Time) {
	s.tokens.Expire(now, func(p Pass) { s.charge(p, -1) })
}

// serverConn: a reader has one GetLayout outstanding, a sealer a seal or two.
var serverConn = rdma.ConnOptions{SendDepth: 4 * wire.PartsAtOnce, RecvDepth: 16, MaxMessage: rdma.MaxInline, Spin: -1}

const (
	handshake = 10 * time.Second
	patience  = 5 * time.Second // for the peer to take an answer
)

// Accept makes the connection that a token was redeemed for, and serves it in the background, until whose it is is revoked at the latest.
func (s *Server) Accept(req rdma.Request, p Pass) {
	k := p.kind
	ctx, cancel := context.WithTimeout(s.ctx, handshake)
	defer cancel()
	conn, err := req.Accept(ctx, serverConn)
	if err != nil {
		s.log.Debug("message connection failed", "peer", req.RemoteAddr(), "error", err)
		if s.handler.Failed != nil {
			s.handler.Failed(err)
		}
	}
	s.mu.Lock()
	if err != nil || s.closed {
		s.charge(p, -1)
		s.mu.Unlock()
		if err == nil {
			_ = conn.Close()
		}
		return
	}
	s.conns[conn] = &heard{p.client, time.Now()}
	s.serves.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.serves.Done()
		forget := p.standing.OnRevoked(func() { _ = conn.Close() })
		s.serve(conn, k)
		forget()
		_ = conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.charge(p, -1)
		s.mu.Unlock()
	}()
}

// serve answers until the connection breaks, or something comes that this kind of peer may not say.
func (s *Server) serve(conn rdma.Conn, k Kind) {
	var d wire.Decoder
	var got []wire.Message
	for {
		got = got[:0]
		var bad error
		err := conn.Receive(func(b []byte) {
			m, err := d.Decode(b)
			switch m.(type) {
			case wire.GetLayout:
				got = append(got, m)
			case wire.Seal:
				if k == Sealer {
					got = append(got, m)
					break
				}
				bad = wire.ErrBadMessage
			default:
				if bad = err; bad == nil {
					bad = wire.ErrBadMessage
				}
			}
		})
		if err != nil {
			return
		}
		s.hear(conn, time.Now())
		for _, m := range got {
			if err := s.answer(conn, m); err != nil {
				s.log.Debug("message connection ended", "peer", conn.RemoteAddr(), "error", err)
				return
			}
		}
		if bad != nil {
			s.log.Warn("a peer sent what it may not: its message connection ends", "peer", conn.RemoteAddr(), "error", bad)
			return
		}
	}
}

func (s *Server) answer(conn rdma.Conn, m wire.Message) error {
	b := rdma.NewBatch(wire.PartsAtOnce)
	var buf [rdma.MaxInline]byte
	switch m := m.(type) {
	case wire.Seal:
		a, store := s.handler.Seal(m)
		a.Request = m.Request
		if m.Store && store != nil {
			b.SendInline(wire.SealedStore{Request: m.Request, Store: *store}.Append(nil))
		}
		b.SendInline(a.Append(buf[:0]))
	case wire.GetLayout:
		var epoch layout.Epoch
		var encoded []byte
		if s.handler.Layout != nil {
			epoch, encoded = s.handler.Layout()
		}
		for _, p := range parts(m, epoch, encoded) {
			b.SendInline(p.Append(buf[:0]))
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	return conn.Do(ctx, b)
}

// parts answers m by what is known: the layout of an epoch, encoded.
func parts(m wire.GetLayout, epoch layout.Epoch, encoded []byte) []wire.LayoutPart {
	p := wire.LayoutPart{Request: m.Request, Epoch: epoch}
	switch {
	case epoch <= m.Known:
		p.Status = wire.StatusNotNewer
		return []wire.LayoutPart{p}
	case int64(m.Offset) >= int64(len(encoded)):
		p.Status = wire.StatusBadQuery // or a newer layout, and shorter: the asker begins anew
		return []wire.LayoutPart{p}
	}
	var list []wire.LayoutPart
	p.Total = uint32(len(encoded))
	for off := int(m.Offset); off < len(encoded) && len(list) < wire.PartsAtOnce; off += wire.PartBytes {
		p.Offset, p.Data = uint32(off), [wire.PartBytes]byte{}
		p.N = uint8(copy(p.Data[:], encoded[off:]))
		list = append(list, p)
	}
	return list
}

// Addr returns the address that peers are told to dial.
func (s *Server) Addr() string { return s.fabric }

func (s *Server) hear(conn rdma.Conn, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.conns[conn]; h != nil {
		h.at = now
	}
}

// Heard returns the ids of clients from which something came since a moment.
func (s *Server) Heard(since time.Time) (list []uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.conns {
		if h.client != 0 && h.at.After(since) {
			list = append(list, h.client)
		}
	}
	return list
}

// Count is how many connections of a kind there are, unused tokens included.
func (s *Server) Count(k Kind) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(time.Now())
	return s.inUse[k]
}

// Close ends all connections and waits for what they are at. Idempotent; a nil Server is closed.
func (s *Server) Close() {
	if s == nil {
		return
	}
	s.cancel()
	s.mu.Lock()
	s.closed = true
	list := make([]rdma.Conn, 0, len(s.conns))
	for c := range s.conns {
		list = append(list, c)
	}
	s.mu.Unlock()
	for _, c := range list {
		_ = c.Close()
	}
	s.serves.Wait()
}
