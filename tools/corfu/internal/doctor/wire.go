package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"corfu/rdma"
	"corfu/rdma/selftest"
)

// The two processes of a self-test talk over the fabric itself, so that nothing else has to be open between the machines: one connection
// for questions and answers, JSON in a message each, and others for what is tried. A connection's private data is
//
//	"corfu-dr" | 1 byte, what for | token
const (
	magic    = "corfu-dr"
	forTalk  = 't'
	forTrial = 'd'
	// MaxToken is how many bytes a token has at most: it travels in a connection's private data.
	MaxToken    = rdma.MaxPrivate - len(magic) - 1
	messageSize = 4096
)

// The memory that a server lends: the pages and words of selftest.Order, an area for each writer of selftest.RevokeWriter, a word to count in, and
// room for large transfers.
const (
	writers    = 3
	areaOff    = (selftest.OrderTarget + 4095) &^ 4095
	countOff   = areaOff + (writers*selftest.RevokeArea+4095)&^4095
	bulkOff    = countOff + 4096
	bulkSize   = 64 << 10
	memorySize = bulkOff + bulkSize
)

// question is what the tester asks the server.
type question struct {
	Do string `json:"do"`
}

// answer to every question. What is not asked for is empty.
type answer struct {
	Error string  `json:"error,omitempty"`
	Facts *Facts  `json:"facts,omitempty"`
	Addr  uint64  `json:"addr,omitempty"` // begin: of the memory
	Key   uint32  `json:"key,omitempty"`
	Fresh int     `json:"fresh,omitempty"` // unwatch: how often the CPU saw something new
	Sums  []int64 `json:"sums,omitempty"`  // revoke: the first word of each writer's area
	Count uint64  `json:"count,omitempty"` // revoke: the word to count in
	Late  string  `json:"late,omitempty"`  // revoke: what changed afterwards
}

// Facts are what one end says of itself.
type Facts struct {
	Version  string `json:"version"`
	Provider string `json:"provider"`
	Device   string `json:"device"`
	MTU      int    `json:"mtu"`       // of the path as the port has it, in bytes; 0 with tcp
	EtherMTU string `json:"ether_mtu"` // of its netdev
}

// The questions.
const (
	doFacts   = "facts"
	doBegin   = "begin"   // zero the memory and register it anew
	doWatch   = "watch"   // look for a CAS that is ahead of its WRITE
	doUnwatch = "unwatch" // and stop
	doRevoke  = "revoke"  // close the region, see whether anything lands afterwards
)

func private(kind byte, token string) []byte {
	return append(append([]byte(magic), kind), token...)
}

// talk sends and receives JSON over a connection. One goroutine sends.
type talk struct {
	conn rdma.Conn
	out  *rdma.Memory
	in   chan []byte // closed once the connection is at its end
}

func newTalk(dev rdma.Device, c rdma.Conn) (*talk, error) {
	out, err := dev.Alloc(messageSize)
	if err != nil {
		return nil, err
	}
	t := &talk{conn: c, out: out, in: make(chan []byte, 4)}
	go func() {
		defer close(t.in)
		for c.Receive(func(msg []byte) { t.in <- append([]byte(nil), msg...) }) == nil {
		}
	}()
	return t, nil
}

func (t *talk) send(ctx context.Context, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > messageSize {
		return fmt.Errorf("a message of %d bytes", len(b))
	}
	batch := rdma.NewBatch(1)
	batch.Send(t.out.Slice(0, copy(t.out.Bytes(), b)))
	return t.conn.Do(ctx, batch)
}

func (t *talk) receive(ctx context.Context, v any) error {
	select {
	case msg, ok := <-t.in:
		if !ok {
			return errors.Join(errors.New("the peer is gone"), t.conn.Err())
		}
		return json.Unmarshal(msg, v)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask sends a question and waits for its answer.
func (t *talk) ask(ctx context.Context, do string) (answer, error) {
	var a answer
	if err := t.send(ctx, question{do}); err != nil {
		return a, fmt.Errorf("%s: %w", do, err)
	}
	if err := t.receive(ctx, &a); err != nil {
		return a, fmt.Errorf("%s: %w", do, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s: the peer says: %s", do, a.Error)
	}
	return a, nil
}

// close ends the connection and the memory it needed. The receiving goroutine may be waiting to hand over a message that nobody wants.
func (t *talk) close() error {
	err := t.conn.Close()
	for range t.in {
	}
	return errors.Join(err, t.out.Close())
}

func talkOptions() rdma.ConnOptions {
	return rdma.ConnOptions{MaxMessage: messageSize, SendDepth: 16, RecvDepth: 16}
}
