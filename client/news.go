package client

import (
	"context"
	"sync"
	"time"

	"corfu/internal/messages"
	"corfu/internal/sleep"
	"corfu/layout"
)

// news are message connections to a few units. A client whose way to the layout servers is broken asks them over the fabric which
// layout they know: they outlive seals. What a unit says was ACTIVE, since the unit was opened in it; that nothing newer is, it cannot
// know. So its word moves the client on (rule R8: never back) and decides nothing: what became of an append, a unit that
// serves the newer epoch decides by its words (rule R9), as ever.
type news struct {
	l *Log

	mu    sync.Mutex
	conns map[layout.UnitID]*messages.Conn
}

const (
	informants   = 2               // units that are kept connected: one may be the one that fails
	newsPause    = time.Second     // between looks at whether they still stand
	newsTimeout  = 2 * time.Second // to open one
	newsPatience = 500 * time.Millisecond
	// headStart is how long the layout servers have to answer before the units are asked beside them.
	headStart = 100 * time.Millisecond
)

// keep keeps the connections while the Log lives.
func (n *news) keep(ctx context.Context) {
	for ctx.Err() == nil {
		n.complete(ctx)
		_ = sleep.For(ctx, newsPause)
	}
}

// complete opens what is missing, to units of the layout in use: each client begins at another one.
func (n *news) complete(ctx context.Context) {
	lay := n.l.current().layout
	units := lay.Units
	alive := n.sweep(lay)
	for i := 0; i < len(units) && alive < informants && ctx.Err() == nil; i++ {
		u := units[(int(n.l.client())+i)%len(units)]
		if n.has(u.ID) {
			continue
		}
		cc, err := n.l.control.get(u.Control)
		if err != nil {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, newsTimeout)
		c, err := messages.Open(bounded, cc, n.l.dev, messages.Reader, n.l.client())
		cancel()
		if err != nil {
			n.l.log.Debug("no message connection", "unit", u.ID, "cause", err)
			continue
		}
		n.mu.Lock()
		n.conns[u.ID] = c
		n.mu.Unlock()
		alive++
	}
}

// sweep closes what is broken, and what leads to units that left the layout: they hear of no newer one. It counts the rest.
// A close waits for the connection's end, and mu is not held meanwhile: a client that looks for a newer layout would wait as well.
func (n *news) sweep(lay *layout.Layout) (alive int) {
	n.mu.Lock()
	var over []*messages.Conn
	defer func() {
		n.mu.Unlock()
		for _, c := range over {
			c.Close()
		}
	}()
	for id, c := range n.conns {
		if _, member := lay.Unit(id); member && c.Alive() {
			alive++
			n.ping(c)
			continue
		}
		over = append(over, c)
		delete(n.conns, id)
	}
	return alive
}

// ping asks for the newest layout in the background, as a sign of life: one that does not come ends the connection, and one that comes
// shows the unit that the fabric carries to it, whatever other clients report. So a client that sends nothing, and hears of nothing, as one that
// sleeps in Follow, knows of a new epoch soon, also where the stream of layouts is cut and nobody says so.
func (n *news) ping(c *messages.Conn) {
	n.l.background(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, newsTimeout)
		defer cancel()
		switch l, err := c.Layout(ctx, n.l.current().epoch()); {
		case err != nil && ctx.Err() != nil:
			c.Close()
		case l != nil:
			n.use(l)
		}
	})
}

// use installs a layout that a unit knows, if it is newer than the one in use.
func (n *news) use(l *layout.Layout) {
	if err := n.l.install(l); err != nil {
		n.l.log.Error("a unit's layout is not used", "cause", err)
	}
}

func (n *news) has(id layout.UnitID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.conns[id] != nil
}

// newest asks all of them at once and installs what is newer than the layout in use. It reports whether anything was.
func (n *news) newest(ctx context.Context) bool {
	v := n.l.current()
	if v == nil {
		return false // Open has not come so far
	}
	known := v.epoch()
	ctx, cancel := context.WithTimeout(ctx, newsPatience)
	defer cancel()
	n.mu.Lock()
	answers := make(chan *layout.Layout, len(n.conns))
	asked := len(n.conns)
	for _, c := range n.conns {
		go func() {
			l, _ := c.Layout(ctx, known)
			answers <- l
		}()
	}
	n.mu.Unlock()
	for range asked {
		if l := <-answers; l != nil {
			n.use(l)
		}
	}
	moved := n.l.current().epoch() > known
	if moved {
		n.l.m.news.Inc()
	}
	return moved
}

func (n *news) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.Close()
	}
	clear(n.conns)
}
