package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"corfu/layout"
)

// Messages on a session's fabric connections. Each starts with its type and is
// fixed in size but for Acks:
//
//	Doorbell  16: type, 0, count:2, 0×4, address                   client → unit: look at these words, tell me when they are durable; count 0: one
//	Acks   8+16n: type, n, followed, 0×5, n × (address, slot:4, use:2, state, 0)  unit → client
//	ColdRead  32: type, 0×3, request:4, address, buffer, key:4, 0×4 client → unit: WRITE the page into my buffer, then reply
//	Trim      16: type, prefix, 0×2, request:4, address            client → unit; prefix: all addresses below
//	MaxAddr   16: type, 0×3, request:4, 0×8                        client → unit: first address above all entries
//	Reply     16: type, state, status, 0, request:4, value         unit → client
//	ReadRun   40: type, 0, count:2, request:4, address, pages, states, key:4, 0×4
//	                                                               client → unit: WRITE count pages and their states into my buffers, then reply
//	Subscribe 24: type, 0×7, from, above                           client → unit: send me one Progress once there is something to say
//	Progress  24: type, 0×7, below, top                            unit → client
//
// Types 7 to 11 are control messages: see [Seal].
const (
	msgDoorbell = iota + 1
	msgAcks
	msgColdRead
	msgTrim
	msgMaxAddr
	msgReply

	smallMessage = 16
	coldReadSize = 32
	readRunSize  = 40
	progressSize = 24
	ackSize      = 16
)

// MaxAcks is how many acknowledgements one message holds.
const MaxAcks = 15

// MaxMessage is the longest message, in bytes.
const MaxMessage = 8 + MaxAcks*ackSize

// Status answers a request.
type Status uint8

const (
	StatusOK       Status = iota
	StatusTooNew          // the address is not written, or above the window
	StatusBadQuery        // the request makes no sense to the unit; a bug or an attack
	StatusIO              // the unit could not read or write its flash
	StatusFull            // with the value of MaxAddr: the window stands still because flash has no room
	StatusPromised        // to a Seal: the epoch is not above the promise (rule R14)
	StatusOtherLog        // to a Seal: the unit holds another log
	StatusNotNewer        // to a GetLayout: no newer epoch is known to be ACTIVE
	StatusCorrupt         // to a Seal: it is sealed, and knows of CORRUPT copies, for which the answer has no room (rule R16): ask over TCP
)

func (s Status) String() string {
	names := [...]string{"OK", "TOO_NEW", "BAD_QUERY", "IO", "FULL", "PROMISED", "OTHER_LOG", "NOT_NEWER", "CORRUPT"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}

// RequestID pairs a reply with its request on one connection.
type RequestID uint32

// Message is one of the types below.
type Message interface{ isMessage() }

// Doorbell asks the unit to look at the words of Count addresses from Address on (0 stands for 1; at most MaxBell), and for an Ack of each once it
// is durable. A unit that does not say in OpenSessionReply that it knows runs looks at the first one alone.
type Doorbell struct {
	Address layout.Address
	Count   int
}

// MaxBell is how many addresses one Doorbell may name.
const MaxBell = 64

// N is the number of addresses, 1 or more.
func (m Doorbell) N() int { return max(1, m.Count) }

// Ack says that Address is decided and durable at this unit (rule R3), in the state given. Use is the tag of the word: where
// it names a slot of the receiver's session, that slot may be used again (rule R6). An address may be acknowledged more than
// once. For one below the window the unit knows no use: it names the last possible slot and count.
type Ack struct {
	Address layout.Address
	Use     Use
	State   State
}

// Acks are up to MaxAcks acknowledgements. Followed says that clients wait for entries at this unit (Subscribe), so that it is
// worth while to ring for each, under memory durability, too. A unit of the release before never says so.
type Acks struct {
	Followed bool
	N        int
	List     [MaxAcks]Ack
}

// ColdRead asks for the page of an address below the window. The unit writes it to Buffer, PageSize bytes, and replies after it.
type ColdRead struct {
	Request RequestID
	Address layout.Address
	Buffer  Buffer
}

// ReadRun asks for Count consecutive addresses, most of them below the window. The unit writes their
// pages, PageSize bytes each, to Pages, and for each a word to States: the State of the address, or
// EMPTY if nothing is durable there. The page of an address in any other state than DURABLE is
// zero. The Value of the Reply is the lowest address in the window. Both buffers lie in one region.
//
// Count is 1 to what the unit offered with the session (UnitSession.read_run; a unit of an older
// release offers none).
type ReadRun struct {
	Request RequestID
	Count   int
	Address layout.Address
	Pages   Buffer
	States  uint64 // address in the region of Pages
}

// Buffer names the asker's registered memory, as rdma.Remote does; this package stays free of the fabric.
type Buffer struct {
	Addr uint64
	Key  uint32
}

// Subscribe asks for one Progress: as soon as a reader may have the entry at From (rule R11), or one
// at Above or higher. Of several on one connection the last one counts. So a unit has at most one
// Progress to send on a connection, and a client hears at most one for each Subscribe.
//
// A unit that takes it says so with the session (UnitSession.progress).
type Subscribe struct{ From, Above layout.Address }

// Progress answers a Subscribe: a reader may have every address from its From up to, but not
// including, Below, and none from Top on. If Top lies above Below, nothing that may be read stands at
// Below. It is a hint: what stands at an address, its word says (rule R11).
type Progress struct{ Below, Top layout.Address }

// Trim gives up Address, or with Prefix all addresses below it.
type Trim struct {
	Request RequestID
	Prefix  bool
	Address layout.Address
}

// MaxAddr asks for the first address above all entries of the unit.
type MaxAddr struct{ Request RequestID }

// Reply answers ReadRun (Value: the lowest address in the window), ColdRead (State of the address; if that is TRIMMED, Value is the address below which everything was trimmed, 0 from a unit of an
// older release), Trim and MaxAddr (Value: the address).
type Reply struct {
	Request RequestID
	State   State
	Status  Status
	Value   uint64
}

func (Doorbell) isMessage()  {}
func (*Acks) isMessage()     {}
func (ColdRead) isMessage()  {}
func (Trim) isMessage()      {}
func (MaxAddr) isMessage()   {}
func (ReadRun) isMessage()   {}
func (Subscribe) isMessage() {}
func (Progress) isMessage()  {}
func (Reply) isMessage()     {}

// Append encodes the message behind b.
func (m Doorbell) Append(b []byte) []byte {
	b = append(b, msgDoorbell, 0, byte(m.Count), byte(m.Count>>8), 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint64(b, uint64(m.Address))
}

// Append encodes the message behind b. It panics if N is out of range.
func (m *Acks) Append(b []byte) []byte {
	followed := byte(0)
	if m.Followed {
		followed = 1
	}
	b = append(b, msgAcks, byte(m.N), followed, 0, 0, 0, 0, 0)
	for _, a := range m.List[:m.N] {
		b = binary.LittleEndian.AppendUint64(b, uint64(a.Address))
		b = binary.LittleEndian.AppendUint32(b, uint32(a.Use.Slot))
		b = binary.LittleEndian.AppendUint16(b, a.Use.Count)
		b = append(b, byte(a.State), 0)
	}
	return b
}

// Append encodes the message behind b.
func (m ColdRead) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(append(b, msgColdRead, 0, 0, 0), uint32(m.Request))
	b = le.AppendUint64(b, uint64(m.Address))
	b = le.AppendUint64(b, m.Buffer.Addr)
	return append(le.AppendUint32(b, m.Buffer.Key), 0, 0, 0, 0)
}

// Append encodes the message behind b.
func (m ReadRun) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(append(b, msgReadRun, 0), uint16(m.Count))
	b = le.AppendUint32(b, uint32(m.Request))
	b = le.AppendUint64(b, uint64(m.Address))
	b = le.AppendUint64(b, m.Pages.Addr)
	b = le.AppendUint64(b, m.States)
	return append(le.AppendUint32(b, m.Pages.Key), 0, 0, 0, 0)
}

// Append encodes the message behind b.
func (m Subscribe) Append(b []byte) []byte {
	return appendAddresses(append(b, msgSubscribe, 0, 0, 0, 0, 0, 0, 0), m.From, m.Above)
}

// Append encodes the message behind b.
func (m Progress) Append(b []byte) []byte {
	return appendAddresses(append(b, msgProgress, 0, 0, 0, 0, 0, 0, 0), m.Below, m.Top)
}

func appendAddresses(b []byte, x, y layout.Address) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(x))
	return binary.LittleEndian.AppendUint64(b, uint64(y))
}

// Append encodes the message behind b.
func (m Trim) Append(b []byte) []byte {
	prefix := byte(0)
	if m.Prefix {
		prefix = 1
	}
	b = binary.LittleEndian.AppendUint32(append(b, msgTrim, prefix, 0, 0), uint32(m.Request))
	return binary.LittleEndian.AppendUint64(b, uint64(m.Address))
}

// Append encodes the message behind b.
func (m MaxAddr) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(append(b, msgMaxAddr, 0, 0, 0), uint32(m.Request))
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

// Append encodes the message behind b.
func (m Reply) Append(b []byte) []byte {
	b = append(b, msgReply, byte(m.State), byte(m.Status), 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(m.Request))
	return binary.LittleEndian.AppendUint64(b, m.Value)
}

// ErrBadMessage: the bytes are not a message. The connection that brought them is not to be trusted further.
var ErrBadMessage = errors.New("not a valid message")

// Decoder decodes messages without allocation: the Acks that it returns are overwritten by the next call.
type Decoder struct{ acks Acks }

// Doorbell decodes b if it is one: the message that a unit sees most, without boxing it.
func (d *Decoder) Doorbell(b []byte) (Doorbell, bool) {
	if len(b) != smallMessage || b[0] != msgDoorbell {
		return Doorbell{}, false
	}
	return decodeDoorbell(b), true
}

func decodeDoorbell(b []byte) Doorbell {
	return Doorbell{layout.Address(binary.LittleEndian.Uint64(b[8:])), int(binary.LittleEndian.Uint16(b[2:]))}
}

// Decode decodes one message. It fails with ErrBadMessage.
func (d *Decoder) Decode(b []byte) (Message, error) {
	if len(b) < smallMessage && !(len(b) == 8 && b[0] == msgAcks) {
		return nil, fmt.Errorf("wire: %d bytes: %w", len(b), ErrBadMessage)
	}
	le := binary.LittleEndian
	size := smallMessage
	switch b[0] {
	case msgAcks:
		size = 8 + int(b[1])*ackSize
	case msgColdRead:
		size = coldReadSize
	case msgReadRun:
		size = readRunSize
	case msgSubscribe, msgProgress:
		size = progressSize
	case msgSeal, msgSealed, msgGetLayout, msgLayoutPart, msgSealedStore:
		size = controlSize(b[0])
	}
	if len(b) != size || (b[0] == msgAcks && b[1] > MaxAcks) {
		return nil, fmt.Errorf("wire: type %d with %d bytes: %w", b[0], len(b), ErrBadMessage)
	}
	req := RequestID(le.Uint32(b[4:]))
	switch b[0] {
	case msgDoorbell:
		return decodeDoorbell(b), nil
	case msgAcks:
		return d.decodeAcks(b), nil
	case msgColdRead:
		return ColdRead{req, layout.Address(le.Uint64(b[8:])), Buffer{Addr: le.Uint64(b[16:]), Key: le.Uint32(b[24:])}}, nil
	case msgReadRun:
		return ReadRun{req, int(le.Uint16(b[2:])), layout.Address(le.Uint64(b[8:])), Buffer{Addr: le.Uint64(b[16:]), Key: le.Uint32(b[32:])}, le.Uint64(b[24:])}, nil
	case msgSubscribe:
		return Subscribe{layout.Address(le.Uint64(b[8:])), layout.Address(le.Uint64(b[16:]))}, nil
	case msgProgress:
		return Progress{layout.Address(le.Uint64(b[8:])), layout.Address(le.Uint64(b[16:]))}, nil
	case msgTrim:
		return Trim{req, b[1] == 1, layout.Address(le.Uint64(b[8:]))}, nil
	case msgMaxAddr:
		return MaxAddr{req}, nil
	case msgReply:
		return Reply{req, State(b[1]), Status(b[2]), le.Uint64(b[8:])}, nil
	}
	if m := decodeControl(b, req); m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("wire: type %d: %w", b[0], ErrBadMessage)
}

func (d *Decoder) decodeAcks(b []byte) *Acks {
	le := binary.LittleEndian
	d.acks.N, d.acks.Followed = int(b[1]), b[2] == 1
	for i := range d.acks.N {
		a := b[8+i*ackSize:]
		d.acks.List[i] = Ack{
			Address: layout.Address(le.Uint64(a)),
			Use:     Use{StagingSlot(le.Uint32(a[8:])), le.Uint16(a[12:])},
			State:   State(a[14]),
		}
	}
	return &d.acks
}
