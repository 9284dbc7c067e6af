package server

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"corfu/internal/control"
	"corfu/layout"
)

// patience is how long a connection may take: what is asked of it is said or refused at once, and a
// busy machine is no fault.
const patience = 2 * time.Minute

// ends are two servers' handshakes over one TCP connection each time.
type ends struct {
	dialer, acceptor   *handshake
	dials, accepts     identity
	speaks, othersKnow bool // that the acceptor has the handshake; that all servers have
	logged             *lines
	peers              []Peer
}

// lines keeps what was logged.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newEnds(t *testing.T) *ends {
	l := listen(t, control.FreePort)
	t.Cleanup(func() { _ = l.Close() })
	e := &ends{logged: &lines{}, speaks: true, othersKnow: true}
	e.peers = []Peer{{1, "a:1", "a:2"}, {2, "b:1", l.Addr().String()}, {3, "c:1", "c:2"}}
	log := slog.New(slog.NewTextHandler(e.logged, nil))
	e.dialer = newHandshake(tcpStream{l}, Config{ID: 1, Servers: e.peers, Logger: log}, func() identity { return e.dials }, func(uint16) bool { return e.speaks })
	e.acceptor = newHandshake(tcpStream{l}, Config{ID: 2, Servers: e.peers, Logger: log}, func() identity { return e.accepts }, func(uint16) bool { return e.othersKnow })
	return e
}

// echo answers one connection with what it says.
func (e *ends) echo(accept func() (net.Conn, error)) {
	conn, err := accept()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.CopyN(conn, conn, 5)
}

// say sends five bytes and reads them back.
func say(conn net.Conn, text string) error {
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(conn, b); err != nil {
		return err
	}
	if string(b) != text {
		return errors.New("other bytes came back")
	}
	return nil
}

// TestHandshake: which servers talk to each other.
func TestHandshake(t *testing.T) {
	member := func(c byte, l byte) identity {
		return identity{Standing: standsMember, Cluster: clusterID{c}, Log: layout.LogID{l}}
	}
	for name, x := range map[string]struct {
		a, b identity
		good bool
	}{
		"one cluster":                    {member(1, 1), member(1, 1), true},
		"one cluster, log not known yet": {member(1, 1), member(1, 0), true},
		"founded by an older release":    {member(0, 1), member(0, 1), true},
		"nobody knows anything":          {member(0, 0), member(0, 0), true},
		"an empty one":                   {member(1, 1), identity{Standing: standsEmpty}, true},
		"an empty one asks":              {identity{Standing: standsEmpty}, member(1, 1), true},
		"two clusters":                   {member(1, 1), member(2, 2), false},
		"two clusters, no log yet":       {member(1, 0), member(2, 0), false},
		"two logs of older releases":     {member(0, 1), member(0, 2), false},
		"known and unknown":              {member(1, 1), member(0, 0), false},
		"unknown and known":              {member(0, 0), member(1, 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnds(t)
			e.dials, e.accepts = x.a, x.b
			go e.echo(e.acceptor.Accept)
			conn, err := e.dialer.Dial(raft.ServerAddress(e.peers[1].Raft), patience)
			if err == nil {
				defer conn.Close()
				err = say(conn, "\x00abcd")
			}
			switch {
			case x.good && (err != nil || e.logged.String() != ""):
				t.Errorf("refused: %v; the log: %s", err, e.logged)
			case !x.good && !errors.Is(err, errForeign):
				t.Errorf("%v, want errForeign", err)
			}
			if x.good {
				return
			}
			await(t, "both ends log it", func() error {
				if n := strings.Count(e.logged.String(), "a Raft connection was refused"); n != 2 {
					return errors.New(e.logged.String())
				}
				return nil
			})
			for _, want := range []string{e.dialer.hello(2).String(), e.acceptor.hello(1).String(), "address=127.0.0.1:"} {
				if !strings.Contains(e.logged.String(), want) {
					t.Errorf("the log does not say %q: %s", want, e.logged)
				}
			}
		})
	}
}

// TestHandshakeMeetsTheWrongServer: an address that is another server's, of the same log, would
// count one disk twice.
func TestHandshakeMeetsTheWrongServer(t *testing.T) {
	e := newEnds(t)
	e.dials, e.accepts = identity{Standing: standsMember, Cluster: clusterID{1}}, identity{Standing: standsMember, Cluster: clusterID{1}}
	e.acceptor.self = 3
	go e.echo(e.acceptor.Accept)
	_, err := e.dialer.Dial(raft.ServerAddress(e.peers[1].Raft), patience)
	if !errors.Is(err, errForeign) || !strings.Contains(err.Error(), "layout server 3 answers there, not 2") {
		t.Error(err)
	}
	await(t, "the other end says so, too", func() error {
		if !strings.Contains(e.logged.String(), "the addresses in a configuration are mixed up") {
			return errors.New(e.logged.String())
		}
		return nil
	})
}

// TestHandshakeWithAnOlderRelease: it is talked to as it wants to be until all are known to be
// newer.
func TestHandshakeWithAnOlderRelease(t *testing.T) {
	old := func(c net.Conn) error { // hashicorp/raft ends a connection that does not begin with the number of a request
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
		if b[0] > 4 {
			return errors.New("unknown rpc type")
		}
		_, err := c.Write(b)
		return err
	}
	t.Run("it is dialled", func(t *testing.T) {
		e := newEnds(t)
		e.speaks = false
		go func() {
			for {
				conn, err := e.acceptor.StreamLayer.Accept()
				if err != nil {
					return
				}
				_ = old(conn)
				_ = conn.Close()
			}
		}()
		conn, err := e.dialer.Dial(raft.ServerAddress(e.peers[1].Raft), patience)
		if err == nil {
			err = say(conn, "\x01")
		}
		if err != nil {
			t.Errorf("an older release is not reached: %v", err)
		}
		e.speaks = true
		if conn, err := e.dialer.Dial(raft.ServerAddress(e.peers[1].Raft), patience); err == nil {
			_ = conn.Close()
			t.Error("one that is known to have the handshake is talked to without")
		}
	})
	for _, all := range []bool{false, true} {
		t.Run("it dials", func(t *testing.T) {
			e := newEnds(t)
			e.othersKnow = all
			go e.echo(e.acceptor.Accept)
			conn, err := net.Dial("tcp", e.peers[1].Raft)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := say(conn, "\x00abcd"); (err == nil) == all {
				t.Errorf("all servers are known to be newer: %v; it is let in: %v", all, err)
			}
		})
	}
}

// TestRefusalsAreLoggedSeldom: a stranger that dials for ever fills no log.
func TestRefusalsAreLoggedSeldom(t *testing.T) {
	e := newEnds(t)
	for range 100 {
		e.acceptor.report("a Raft connection was refused", "192.0.2.1:77", errForeign)
	}
	if n := strings.Count(e.logged.String(), "refused"); n != 1 {
		t.Errorf("%d lines for 100 refusals", n)
	}
}

// TestForeignServerJoinsNobody: a server of another log behind an address of this one hears
// nothing, and changes nothing.
func TestForeignServerJoinsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, mortal)
		c.open(1)
		st := c.agree()
		log := st.Founding().Log
		await(t, "all know their log", func() error {
			for id, s := range c.servers {
				if got := s.store.raft.(*raftLog).id.get().Log; got != log {
					return errors.New("server " + string(rune('0'+id)) + " does not")
				}
			}
			return nil
		})
		// The store of server 3 becomes one of another log, which has seen more elections.
		c.stopServer(3)
		store, err := openBolt(c.dirOf(3) + "/" + raftFile)
		if err != nil {
			t.Fatal(err)
		}
		r, err := readIdentity(store, true, layout.LogID{})
		if err == nil {
			err = r.set(func(i *identity) { i.Cluster, i.Log = clusterID{9}, layout.LogID{9} })
		}
		if err := errors.Join(err, store.SetUint64([]byte("CurrentTerm"), 1000), store.Close()); err != nil {
			t.Fatal(err)
		}
		c.restart(3)
		await(t, "it stands for election", func() error {
			if s := c.servers[3].store.raft.Standing(); s.Role != "candidate" {
				return errors.New("it is " + s.Role)
			}
			return nil
		})
		c.stopServer(1)
		await(t, "server 2 has lost its leader", func() error { // one of two is left
			if _, err := c.servers[2].store.verify(); err == nil || c.servers[2].store.leader().ID != 0 {
				return errors.New("it follows or leads")
			}
			return nil
		})
		if got := c.servers[2].store.raft.Standing().Term; got >= 1000 {
			t.Errorf("term %d: it listened to the foreign server", got)
		}
		c.restart(1)
		c.newEpoch()
	})
}
