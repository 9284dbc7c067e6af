package server

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"corfu/layout"
)

// Before Raft's own bytes each end of a connection says who it is:
//
//	hello    magic "CRFT", version (8 bits), standing (8), from (16), to (16), cluster (128), log (128)
//	answer   the same, of the other end, behind one byte: 0 it is accepted, 1 it is refused
//
// hashicorp/raft does not look: its messages name servers "layout-1", as those of every other log
// do, so that a server behind an address that was used anew, or a copied file, would join a group
// that is not its own.
//
// A release without the handshake begins with the number of a request, 0 to 4. It is accepted while
// not all of the other servers are known to have the handshake, so that a cluster is upgraded one
// server at a time.
const (
	helloMagic     = "CRFT"
	helloVersion   = 1
	helloLength    = 4 + 1 + 1 + 2 + 2 + 16 + 16
	helloPatience  = 5 * time.Second
	answerAccepted = 0
	answerRefused  = 1
	// refusalsLogged is how often refused connections of one kind are logged.
	refusalsLogged = time.Minute
)

// errForeign: the other end of a Raft connection belongs to another log, or is another server than
// was meant.
var errForeign = errors.New("a layout server of another log")

// hello is what one end of a connection says of itself.
type hello struct {
	empty    bool
	from, to uint16
	cluster  clusterID
	log      layout.LogID
}

func (h hello) encode() []byte {
	b := append([]byte(helloMagic), helloVersion, 0)
	if h.empty {
		b[5] = 1
	}
	b = binary.LittleEndian.AppendUint16(b, h.from)
	b = binary.LittleEndian.AppendUint16(b, h.to)
	return append(append(b, h.cluster[:]...), h.log[:]...)
}

func decodeHello(b []byte) (h hello, err error) {
	if len(b) != helloLength || string(b[:4]) != helloMagic {
		return h, errors.New("it does not speak as a layout server does")
	}
	if b[4] != helloVersion {
		return h, fmt.Errorf("it speaks version %d of the handshake, this one %d: upgrade the older one", b[4], helloVersion)
	}
	h.empty = b[5] == 1
	h.from, h.to = binary.LittleEndian.Uint16(b[6:]), binary.LittleEndian.Uint16(b[8:])
	copy(h.cluster[:], b[10:])
	copy(h.log[:], b[26:])
	return h, nil
}

func (h hello) String() string {
	switch {
	case !h.log.IsZero():
		return fmt.Sprintf("layout server %d of log %s", h.from, h.log)
	case h.cluster != clusterID{}:
		return fmt.Sprintf("layout server %d of cluster %s", h.from, h.cluster)
	case h.empty:
		return fmt.Sprintf("layout server %d, which is empty", h.from)
	}
	return fmt.Sprintf("layout server %d of an unknown log", h.from)
}

// judge returns why mine does not talk to theirs; nil: it does. An empty server belongs to none
// yet, and takes no part either.
func (h hello) judge(theirs hello) error {
	same := true
	switch none := (clusterID{}); {
	case h.cluster != none && theirs.cluster != none:
		same = h.cluster == theirs.cluster
	case !h.log.IsZero() && !theirs.log.IsZero():
		same = h.log == theirs.log
	case h.empty || theirs.empty:
	default:
		same = h.unknown() == theirs.unknown()
	}
	if !same {
		return fmt.Errorf("%w: that is %s, this is %s", errForeign, theirs, h)
	}
	return nil
}

func (h hello) unknown() bool { return h.cluster == clusterID{} && h.log.IsZero() }

// handshake adds the handshake to a stream of Raft.
type handshake struct {
	raft.StreamLayer
	self    uint16
	peers   []Peer
	id      func() identity
	log     *slog.Logger
	speaks  func(id uint16) bool // whether that server is known to have the handshake
	refused limiter
}

func newHandshake(s raft.StreamLayer, cfg Config, id func() identity, speaks func(uint16) bool) *handshake {
	return &handshake{StreamLayer: s, self: cfg.ID, peers: cfg.peers(), id: id, log: cfg.Logger, speaks: speaks}
}

func (s *handshake) hello(to uint16) hello {
	id := s.id()
	return hello{empty: id.Standing == standsEmpty, from: s.self, to: to, cluster: id.Cluster, log: id.Log}
}

// Dial implements raft.StreamLayer.
func (s *handshake) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	to := s.at(string(addr))
	conn, err := s.StreamLayer.Dial(addr, timeout)
	if err != nil {
		return nil, err
	}
	old, err := s.greet(conn, to, timeout)
	if err == nil {
		return conn, nil
	}
	_ = conn.Close()
	if errors.Is(err, errForeign) {
		s.report("a Raft connection was refused", string(addr), err)
	}
	if !old || s.speaks(to) {
		return nil, fmt.Errorf("layout server %d at %s: %w", to, addr, err)
	}
	if conn, err = s.StreamLayer.Dial(addr, timeout); err != nil {
		return nil, err
	}
	return conn, nil
}

func (s *handshake) at(addr string) uint16 {
	for _, p := range s.peers {
		if p.Raft == addr {
			return p.ID
		}
	}
	return 0
}

// greet says who this is and reads the answer. old: the other end hung up, as a release does that
// has no handshake.
func (s *handshake) greet(conn net.Conn, to uint16, timeout time.Duration) (old bool, err error) {
	_ = conn.SetDeadline(time.Now().Add(timeout))
	defer func() { _ = conn.SetDeadline(time.Time{}) }()
	mine := s.hello(to)
	if _, err := conn.Write(mine.encode()); err != nil {
		return true, err
	}
	b := make([]byte, 1+helloLength)
	if n, err := io.ReadFull(conn, b); err != nil {
		var late net.Error
		return n == 0 && !(errors.As(err, &late) && late.Timeout()), err
	}
	theirs, err := decodeHello(b[1:])
	switch {
	case err != nil:
		return false, err
	case theirs.from != to:
		return false, fmt.Errorf("%w: layout server %d answers there, not %d", errForeign, theirs.from, to)
	}
	if err := mine.judge(theirs); err != nil {
		return false, err
	}
	if b[0] != answerAccepted {
		return false, fmt.Errorf("%w: %s refuses this one", errForeign, theirs)
	}
	return false, nil
}

// Accept implements net.Listener. The handshake takes place with the first Read, so that a
// connection which says nothing keeps nobody else waiting.
func (s *handshake) Accept() (net.Conn, error) {
	conn, err := s.StreamLayer.Accept()
	if err != nil {
		return nil, err
	}
	return &acceptedConn{Conn: conn, s: s}, nil
}

// acceptedConn is a connection that another server opened.
type acceptedConn struct {
	net.Conn
	s     *handshake
	once  sync.Once
	err   error
	first []byte // read already: of a release without the handshake
}

// Read implements net.Conn.
func (c *acceptedConn) Read(b []byte) (int, error) {
	c.once.Do(func() {
		if c.err = c.s.welcome(c); c.err != nil {
			_ = c.Conn.Close()
		}
	})
	if c.err != nil {
		return 0, io.EOF // the reason was logged
	}
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

func (s *handshake) welcome(c *acceptedConn) error {
	_ = c.Conn.SetDeadline(time.Now().Add(helloPatience))
	defer func() { _ = c.Conn.SetDeadline(time.Time{}) }()
	b := make([]byte, helloLength)
	if _, err := io.ReadFull(c.Conn, b[:1]); err != nil {
		return err
	}
	peer := c.Conn.RemoteAddr().String()
	if b[0] != helloMagic[0] {
		if s.allSpeak() {
			err := fmt.Errorf("%w: it is of a release without the handshake, and all servers of this log have a newer one", errForeign)
			s.report("a Raft connection was refused", peer, err)
			return err
		}
		c.first = b[:1]
		return nil
	}
	if _, err := io.ReadFull(c.Conn, b[1:]); err != nil {
		return err
	}
	theirs, err := decodeHello(b)
	mine := s.hello(theirs.from)
	if err == nil {
		err = mine.judge(theirs)
	}
	switch {
	case err != nil:
	case theirs.to != s.self:
		err = fmt.Errorf("%w: %s wants layout server %d, this is %d: the addresses in a configuration are mixed up", errForeign, theirs, theirs.to, s.self)
	case !s.listed(theirs.from):
		err = fmt.Errorf("%w: %s is not among the servers of this one's configuration", errForeign, theirs)
	}
	answer := byte(answerAccepted)
	if err != nil {
		answer = answerRefused
		s.report("a Raft connection was refused", peer, err)
	}
	if _, wrote := c.Conn.Write(append([]byte{answer}, mine.encode()...)); wrote != nil {
		return wrote
	}
	return err
}

func (s *handshake) listed(id uint16) bool {
	for _, p := range s.peers {
		if p.ID == id && id != s.self {
			return true
		}
	}
	return false
}

func (s *handshake) allSpeak() bool {
	for _, p := range s.peers {
		if p.ID != s.self && !s.speaks(p.ID) {
			return false
		}
	}
	return true
}

func (s *handshake) report(what, addr string, err error) {
	host, _, splitErr := net.SplitHostPort(addr)
	if splitErr != nil {
		host = addr
	}
	if n, ok := s.refused.allow(host); ok {
		s.log.Warn(what, "address", addr, "err", err, "since_the_last_line", n)
	}
}

// limiter lets one line through for each key in a while, and counts the others.
type limiter struct {
	every time.Duration // zero means refusalsLogged
	mu    sync.Mutex
	last  map[string]time.Time
	more  map[string]int
}

// allow reports whether a line may be logged, and how many were not since the last one.
func (l *limiter) allow(key string) (withheld int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil || len(l.last) > 1024 { // of so many hosts none is worth remembering
		l.last, l.more = map[string]time.Time{}, map[string]int{}
	}
	now := time.Now()
	if was, known := l.last[key]; known && now.Sub(was) < cmp.Or(l.every, refusalsLogged) {
		l.more[key]++
		return 0, false
	}
	withheld = l.more[key]
	l.last[key], l.more[key] = now, 0
	return withheld, true
}
