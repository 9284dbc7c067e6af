package pausebench

import (
	"net"
	"sync"

	"corfu/internal/control"
	"corfu/rdma"
	unitserver "corfu/unit/server"
)

// silence makes a unit die like a machine whose power fails: nothing comes from it any more, and nothing says goodbye. It stands between the
// unit and everybody else, in the control plane as a listener and in the fabric as a relay. The tcp provider alone can be relayed.
type silence struct {
	rdma.Device

	mu    sync.Mutex
	dead  bool
	until chan struct{} // closed by end
	conns map[net.Conn]struct{}
	ends  []net.Listener
}

func newSilence(dev rdma.Device) *silence {
	return &silence{Device: dev, until: make(chan struct{}), conns: map[net.Conn]struct{}{}}
}

// around changes a unit's configuration so that the unit can fall silent.
func (s *silence) around(c *unitserver.Config) error {
	l, err := control.Listen(control.FreePort, false, false)
	if err != nil {
		return err
	}
	c.Device, c.Listener = s, mutedListener{l, s}
	return nil
}

// begin: from now on the unit is dead to everybody.
func (s *silence) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
}

func (s *silence) on() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

// end lets go of all who hang.
func (s *silence) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.until:
	default:
		close(s.until)
	}
	for c := range s.conns {
		_ = c.Close()
	}
	for _, l := range s.ends {
		_ = l.Close()
	}
}

func (s *silence) keep(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
}

// Listen implements rdma.Device: the address that it gives is the relay's.
func (s *silence) Listen(addr string) (rdma.Listener, error) {
	inner, err := s.Device.Listen(addr)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(s.Device.Info().Addr, "0"))
	if err != nil {
		_ = inner.Close()
		return nil, err
	}
	s.mu.Lock()
	s.ends = append(s.ends, l)
	s.mu.Unlock()
	go s.relay(l, inner.Addr())
	return relayed{inner, l}, nil
}

type relayed struct {
	rdma.Listener
	front net.Listener
}

func (r relayed) Addr() string { return r.front.Addr().String() }

func (r relayed) Close() error {
	_ = r.front.Close()
	return r.Listener.Close()
}

func (s *silence) relay(l net.Listener, to string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		s.keep(in)
		if s.on() {
			continue // taken by nobody
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			_ = in.Close()
			continue
		}
		s.keep(out)
		go s.pass(in, out)
		go s.pass(out, in)
	}
}

// pass copies until one end closes. Once the unit is dead it swallows what comes, an end included.
func (s *silence) pass(from, to net.Conn) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if s.on() {
			if err != nil {
				return
			}
			continue
		}
		if err == nil {
			_, err = to.Write(b[:n])
		}
		if err != nil {
			_, _ = from.Close(), to.Close()
			return
		}
	}
}

// mutedListener is the unit's end of the control plane.
type mutedListener struct {
	net.Listener
	s *silence
}

func (l mutedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.s.keep(c)
	return mutedConn{c, l.s}, nil
}

type mutedConn struct {
	net.Conn
	s *silence
}

func (c mutedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.s.on() {
		<-c.s.until
		return 0, net.ErrClosed
	}
	return n, err
}

func (c mutedConn) Write(b []byte) (int, error) {
	if c.s.on() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c mutedConn) Close() error {
	if c.s.on() {
		return nil // the peer is not told; end is
	}
	return c.Conn.Close()
}
