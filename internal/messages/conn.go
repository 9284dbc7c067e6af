package messages

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/layout"
	"corfu/rdma"
)

// Conn is an asker's end of a message connection. Its methods may be called by several goroutines.
type Conn struct {
	conn rdma.Conn
	addr string        // that was dialled
	over chan struct{} // closed once nothing more is received

	mu      sync.Mutex
	next    wire.RequestID
	waiting map[wire.RequestID]chan wire.Message

	asking chan struct{} // held by the one who asks for a layout: the receive buffers are for the parts of one answer
}

var errNonsense = errors.New("the answer makes no sense")

// maxLayout bounds a layout that is taken, in bytes: 64 chains in a hundred segments are a tenth of it.
const maxLayout = 4 << 20

var askerConn = rdma.ConnOptions{SendDepth: 16, RecvDepth: 4 * wire.PartsAtOnce, MaxMessage: rdma.MaxInline, Spin: -1}

// Open asks a member for a connection of a kind over its control plane, and makes it. client is the id of the client that asks; 0: it is none. It fails with what
// the control plane says, or as rdma.Dial does.
func Open(ctx context.Context, cc grpc.ClientConnInterface, dev rdma.Device, k Kind, client layout.ClientID) (*Conn, error) {
	ask := pb.NewMessageServiceClient(cc).OpenReader
	if k == Sealer {
		ask = pb.NewMessageServiceClient(cc).OpenSealer
	}
	m, err := ask(ctx, &pb.OpenMessagesRequest{Client: uint32(client)})
	if err != nil {
		return nil, err
	}
	conn, err := rdma.Dial(ctx, dev, m.Provider, m.Fabric, m.Token, askerConn)
	if err != nil {
		return nil, fmt.Errorf("messages: %w", err)
	}
	c := &Conn{conn: conn, addr: m.Fabric, over: make(chan struct{}), asking: make(chan struct{}, 1), waiting: map[wire.RequestID]chan wire.Message{}}
	go c.receive()
	return c, nil
}

func (c *Conn) receive() {
	defer close(c.over)
	var d wire.Decoder
	for {
		if err := c.conn.Receive(func(b []byte) {
			switch m, _ := d.Decode(b); m := m.(type) {
			case wire.Sealed:
				c.take(m.Request, m)
			case wire.SealedStore:
				c.take(m.Request, m)
			case wire.LayoutPart:
				c.take(m.Request, m)
			}
		}); err != nil {
			return
		}
	}
}

func (c *Conn) take(id wire.RequestID, m wire.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if to := c.waiting[id]; to != nil {
		select {
		case to <- m:
		default: // more than was asked for
		}
	}
}

// begin makes a request id, and the channel of its answers.
func (c *Conn) begin() (wire.RequestID, chan wire.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	answers := make(chan wire.Message, wire.PartsAtOnce)
	c.waiting[c.next] = answers
	return c.next, answers
}

func (c *Conn) end(id wire.RequestID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Conn) send(ctx context.Context, msg []byte) error {
	b := rdma.NewBatch(1)
	b.SendInline(msg)
	return c.conn.Do(ctx, b)
}

func (c *Conn) wait(ctx context.Context, answers chan wire.Message) (wire.Message, error) {
	select {
	case m := <-answers:
		return m, nil
	default:
	}
	select {
	case m := <-answers:
		return m, nil
	case <-c.over:
		return nil, fmt.Errorf("messages: %w", rdma.ErrBroken)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Seal asks the member for a promise (rules R14, R15). An error says that the answer did not come: the member may be sealed. What
// the member answers, a refusal included, is in the status. The store is what a unit says of its store; zero: it said nothing.
func (c *Conn) Seal(ctx context.Context, log layout.LogID, n layout.Epoch, base layout.RecordRef) (wire.Sealed, layout.StoreState, error) {
	id, answers := c.begin()
	defer c.end(id)
	var store layout.StoreState
	var buf [rdma.MaxInline]byte
	q := wire.Seal{Request: id, Log: log, Epoch: n, Base: base.Epoch, BaseID: base.ID, Store: true}
	if err := c.send(ctx, q.Append(buf[:0])); err != nil {
		return wire.Sealed{}, store, err
	}
	for {
		m, err := c.wait(ctx, answers)
		if err != nil {
			return wire.Sealed{}, store, err
		}
		switch m := m.(type) {
		case wire.SealedStore:
			store = m.Store
		case wire.Sealed:
			store.Entries = m.End > 0 || m.TrimmedBelow > 0
			return m, store, nil
		default:
			return wire.Sealed{}, store, fmt.Errorf("messages: %w", errNonsense)
		}
	}
}

// Layout gives the newest layout that the unit knows to be ACTIVE, if its epoch is above known; else nil. That it was ACTIVE is certain;
// that nothing newer is, is not.
func (c *Conn) Layout(ctx context.Context, known layout.Epoch) (*layout.Layout, error) {
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		epoch, encoded, err := c.collect(ctx, known)
		if errors.Is(err, errChanged) {
			continue
		}
		if err != nil || epoch == 0 {
			return nil, err
		}
		l, err := layout.Decode(encoded)
		if err != nil || l.Epoch != epoch {
			return nil, errors.Join(fmt.Errorf("messages: layout of epoch %d: %w", epoch, errNonsense), err)
		}
		return l, nil
	}
}

// Ping returns once the member answered. An answer proves that the fabric carries both ways, and that the member is at work.
func (c *Conn) Ping(ctx context.Context) error {
	_, err := c.Layout(ctx, layout.MaxEpoch) // nothing is newer
	return err
}

// Addr returns the fabric address that was dialled.
func (c *Conn) Addr() string { return c.addr }

// errChanged: the unit learned of a newer layout between two parts.
var errChanged = errors.New("another layout meanwhile")

// collect asks for part after part. Epoch 0: there is nothing newer.
func (c *Conn) collect(ctx context.Context, known layout.Epoch) (epoch layout.Epoch, encoded []byte, err error) {
	var buf [rdma.MaxInline]byte
	for {
		id, answers := c.begin()
		err := c.send(ctx, wire.GetLayout{Request: id, Known: known, Offset: uint32(len(encoded))}.Append(buf[:0]))
		for n := 0; err == nil && n < wire.PartsAtOnce; n++ {
			var m wire.Message
			if m, err = c.wait(ctx, answers); err != nil {
				break
			}
			p, ok := m.(wire.LayoutPart)
			switch {
			case !ok || p.Status == wire.StatusOK && (p.N == 0 || p.Total > maxLayout):
				err = fmt.Errorf("messages: %w", errNonsense)
			case epoch != 0 && p.Epoch != epoch:
				err = errChanged
			case p.Status == wire.StatusNotNewer:
				c.end(id)
				return 0, nil, nil
			case p.Status != wire.StatusOK || int(p.Offset) != len(encoded):
				err = fmt.Errorf("messages: %v at %d: %w", p.Status, p.Offset, errNonsense)
			}
			if err != nil {
				break
			}
			epoch = p.Epoch
			if encoded = append(encoded, p.Data[:p.N]...); len(encoded) >= int(p.Total) {
				c.end(id)
				return epoch, encoded, nil
			}
		}
		c.end(id)
		if err != nil {
			return 0, nil, err
		}
	}
}

// Alive tells whether the connection is not known to be broken.
func (c *Conn) Alive() bool {
	select {
	case <-c.over:
		return false
	case <-c.conn.Broken():
		return false
	default:
		return true
	}
}

// Close ends the connection. Idempotent.
func (c *Conn) Close() {
	_ = c.conn.Close()
	<-c.over
}
