package rdma

import "fmt"

// Kind is what an operation does.
type Kind uint8

// The operations of a Batch.
const (
	OpWrite       Kind = iota + 1 // local bytes → remote memory
	OpRead                        // remote memory → local bytes
	OpCompareSwap                 // remote 64-bit word: if it is Compare, it becomes Swap; Old is what it was
	OpFetchAdd                    // remote 64-bit word: Add is added; Old is what it was
	OpSend                        // local bytes → a receive buffer of the peer
)

func (k Kind) String() string {
	switch k {
	case OpWrite:
		return "WRITE"
	case OpRead:
		return "READ"
	case OpCompareSwap:
		return "CAS"
	case OpFetchAdd:
		return "FETCH_ADD"
	case OpSend:
		return "SEND"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// MaxInline is the longest message, in bytes, that SendInline takes.
const MaxInline = 64

// Op is one operation of a Batch. Providers read it; others use the methods of Batch.
type Op struct {
	Kind   Kind
	Inline uint8 // length of an inline SEND, whose bytes stand in Msg; 0: the bytes are Local
	Local  Local // source of WRITE and SEND, target of READ
	Remote Remote

	Compare uint64 // CAS
	Swap    uint64 // CAS: new value; FETCH_ADD: what is added
	Old     uint64 // CAS, FETCH_ADD: the word before, once the batch is complete

	Msg [MaxInline]byte
}

// MaxBatch is the largest number of operations in one Batch.
const MaxBatch = 64

// Batch is an ordered list of operations that is posted as one doorbell and
// completes as a whole. A Batch and all memory it names belong to the connection
// from Post until it is complete; it may be used again after that.
// One goroutine at a time fills, posts and awaits it.
//
// The zero Batch is not usable: call NewBatch.
type Batch struct {
	Ops []Op

	// For providers: what they keep of a posted batch.
	Slot int

	done   chan struct{} // holds one token once complete
	index  int
	err    error
	posted bool
}

// NewBatch makes an empty batch with room for n operations without allocation.
func NewBatch(n int) *Batch {
	return &Batch{Ops: make([]Op, 0, n), done: make(chan struct{}, 1)}
}

// Reset empties the batch for new operations. It panics if the batch is still in
// flight: a NIC may be writing to what it names.
func (b *Batch) Reset() {
	if b.posted {
		panic("rdma: Reset of a batch in flight")
	}
	b.Ops, b.err, b.index = b.Ops[:0], nil, 0
}

// InFlight tells whether the batch was posted and its completion was not yet taken by Wait.
func (b *Batch) InFlight() bool { return b.posted }

// grow appends an empty operation and gives its index; the fields that matter are set by the caller.
func (b *Batch) grow(k Kind) (*Op, int) {
	i := len(b.Ops)
	if i < cap(b.Ops) {
		b.Ops = b.Ops[:i+1]
	} else {
		b.Ops = append(b.Ops, Op{})
	}
	op := &b.Ops[i]
	op.Kind, op.Inline, op.Old = k, 0, 0
	return op, i
}

// Write copies src to dst.
func (b *Batch) Write(src Local, dst Remote) {
	op, _ := b.grow(OpWrite)
	op.Local, op.Remote = src, dst
}

// Read copies dst.Len bytes from src to dst.
func (b *Batch) Read(dst Local, src Remote) {
	op, _ := b.grow(OpRead)
	op.Local, op.Remote = dst, src
}

// CompareSwap sets the 8-byte aligned word at dst to swap if it is compare. The
// index returned is for Old.
func (b *Batch) CompareSwap(dst Remote, compare, swap uint64) int {
	op, i := b.grow(OpCompareSwap)
	op.Remote, op.Compare, op.Swap = dst, compare, swap
	return i
}

// FetchAdd adds n to the 8-byte aligned word at dst. The index returned is for Old.
func (b *Batch) FetchAdd(dst Remote, n uint64) int {
	op, i := b.grow(OpFetchAdd)
	op.Remote, op.Swap = dst, n
	return i
}

// Send sends src as one message; the peer's Receive gets it.
func (b *Batch) Send(src Local) {
	op, _ := b.grow(OpSend)
	op.Local = src
}

// SendInline sends a message of at most MaxInline bytes; msg may be used again at once.
// It panics on a longer one.
func (b *Batch) SendInline(msg []byte) {
	if len(msg) == 0 || len(msg) > MaxInline {
		panic("rdma: inline message of bad length")
	}
	op, _ := b.grow(OpSend)
	op.Inline = uint8(copy(op.Msg[:], msg))
}

// Old is the word that the atomic operation i found, once the batch completed
// without error or failed at a later operation.
func (b *Batch) Old(i int) uint64 { return b.Ops[i].Old }

// Result is nil after a complete batch succeeded; else it is an *OpError.
// Operations before its Index took effect.
func (b *Batch) Result() error { return b.err }

// Begin marks the batch as posted. For providers.
func (b *Batch) Begin() { b.posted, b.err = true, nil }

// Abort takes Begin back: nothing of the batch was posted. For providers.
func (b *Batch) Abort() { b.posted = false }

// Complete ends the batch: err is nil, or what ended it. Exactly one call for each Begin. For providers.
func (b *Batch) Complete(err error) {
	b.err = err
	b.done <- struct{}{}
}

// Finish is Complete, and Wait's taking of the token, in one: for the goroutine
// that awaits the batch itself, and knows that nobody else completes it. For providers.
func (b *Batch) Finish(err error) error {
	b.err, b.posted = err, false
	return err
}

// Done gives the channel that holds one token once the batch is complete. Take
// the token with a receive and then call Taken. For providers.
func (b *Batch) Done() <-chan struct{} { return b.done }

// Taken ends the flight after the token of Done was received. For providers.
func (b *Batch) Taken() error {
	b.posted = false
	return b.err
}
