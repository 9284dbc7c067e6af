package server

import (
	"context"
	"errors"
	"net"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"corfu/internal/control"
)

func TestServersAreValidated(t *testing.T) {
	three := []Peer{{1, "127.0.0.1:1", "127.0.0.1:2"}, {2, "127.0.0.1:3", "127.0.0.1:4"}, {3, "127.0.0.1:5", "127.0.0.1:6"}}
	for name, x := range map[string]struct {
		cfg  Config
		want string // "": it is good
	}{
		"alone":           {Config{ID: 7}, ""},
		"alone and named": {Config{ID: 7, Servers: []Peer{{ID: 7}}}, ""},
		"three":           {Config{ID: 2, Servers: three}, ""},
		"two":             {Config{ID: 2, Servers: three[:2]}, "2 layout servers: must be 1, 3, 5 or 7"},
		"not among them":  {Config{ID: 4, Servers: three}, "this is layout server 4: it is not among the servers"},
		"an id twice":     {Config{ID: 1, Servers: append(three[:2:2], Peer{2, "127.0.0.1:7", "127.0.0.1:8"})}, "layout server 2 is named twice"},
		"an address twice": {Config{ID: 1, Servers: append(three[:2:2], Peer{3, "127.0.0.1:3", "127.0.0.1:8"})},
			"address 127.0.0.1:3 is named twice"},
		"no raft address": {Config{ID: 1, Servers: append(three[:2:2], Peer{3, "127.0.0.1:5", ""})}, "raft address of layout server 3"},
		"id 0":            {Config{ID: 1, Servers: append(three[:2:2], Peer{0, "127.0.0.1:5", "127.0.0.1:6"})}, "ids are numbers from 1"},
		"election":        {Config{ID: 1, Election: 1}, "election time-out is 1ns: must be at least 20ms"},
	} {
		x.cfg.Dir = "d"
		switch err := x.cfg.withDefaults().Validate(); {
		case x.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)):
			t.Errorf("%s: %v; want %q", name, err, x.want)
		}
	}
}

// TestServersOfAStoreAreFixed: a store is not opened as a member of another group, whose quorum it would corrupt.
func TestServersOfAStoreAreFixed(t *testing.T) {
	c := newCluster(t)
	before := c.start().open(1)
	c.stop()
	single := c.cfg
	three := c.cfg
	three.Servers = []Peer{{1, "127.0.0.1:1", "127.0.0.1:2"}, {2, "127.0.0.1:3", "127.0.0.1:4"}, {3, "127.0.0.1:5", "127.0.0.1:6"}}
	l, err := net.Listen("tcp", control.FreePort)
	if err != nil {
		t.Fatal(err)
	}
	three.Control, three.RaftListener = control.FreePort, l
	if s, err := Start(context.Background(), three); !errors.Is(err, errServers) || !strings.Contains(err.Error(), "it names layout-1, the configuration layout-1, layout-2, layout-3") {
		if s != nil {
			_ = s.Close()
		}
		t.Fatalf("one of three, in the store of a single server: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener was left open: %v", err)
	}
	single.Servers = []Peer{{ID: 1}} // the same, said aloud
	c.cfg = single
	if after := c.start().open(1); !reflect.DeepEqual(after, before) {
		t.Errorf("the layout is %+v, was %+v", after, before)
	}
}

// TestServersMayMove: addresses are those of the configuration, whatever they were when the store was made.
func TestServersMayMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTrio(t, mortal)
		before := c.open(1)
		for id := range c.servers {
			c.stopServer(id)
		}
		listeners := map[uint16]net.Listener{}
		for i := range c.peers {
			l := memoryListen(t, "")
			listeners[c.peers[i].ID], c.peers[i].Raft = l, l.Addr().String()
		}
		for _, p := range c.peers {
			c.startServer(p.ID, memoryListen(t, p.Control), listeners[p.ID])
		}
		if after := c.open(1); !reflect.DeepEqual(after, before) {
			t.Errorf("the layout is %+v, was %+v", after, before)
		}
		c.agree()
	})
}

// TestRaftInClearStaysOnLoopback: whoever reaches Raft can vote.
func TestRaftInClearStaysOnLoopback(t *testing.T) {
	c := newCluster(t)
	c.cfg.Servers = []Peer{{1, control.FreePort, "0.0.0.0:0"}, {2, "127.0.0.1:3", "127.0.0.1:4"}, {3, "127.0.0.1:5", "127.0.0.1:6"}}
	if s, err := Start(context.Background(), c.cfg); !errors.Is(err, control.ErrClear) {
		if err == nil {
			_ = s.Close()
		}
		t.Error(err)
	}
}
