package verbs

// Sizes that the C side shares (cf.h).
const (
	MaxBatch  = 64 // work requests of one list
	MaxInline = 64 // bytes of an inline message
	maxWoken  = 64
	MaxRecv   = 64 // messages of one RecvCall
)

// OpWriteImm is an Op of WR beside the rdma.Kinds: a WRITE with immediate data. It is for tests, which are hostile peers with it.
const OpWriteImm = 6

// WR is one work request. Op is an rdma.Kind.
type WR struct {
	Local, Remote uint64 // addresses
	Compare       uint64 // CAS: compare; FETCH_ADD: what is added
	Swap          uint64 // CAS
	Length        uint32
	LKey, RKey    uint32
	Op            uint16
	Inline        uint16 // 1: the bytes are Msg of the Call, at the same index
}

// Call is what one crossing into C takes and gives. Make it with NewCall; it may
// be used for one crossing at a time.
type Call struct {
	Slot, Gen uint32 // the batch of the caller
	N         uint32 // work requests in WR
	Arm       uint32 // 1: if the batch is not done after the spin, count as a sleeper and arm the queue
	SpinNS    int64  // ≤ 0: do not spin. Changed to what is left of it

	Err     int32  // errno of ibv_post_send; if all was posted: the completion queue is broken
	Posted  uint32 // work requests taken before Err
	Done    uint32 // the caller's batch is complete, and is the caller's to finish
	Gone    uint32 // the caller's batch is complete, and another thread finishes it
	Armed   uint32 // counted as a sleeper: call QP.Awake afterwards
	More    uint32 // the queue was not seen empty: finish Woken, then call again
	NWoken  uint32
	_       uint32
	Woken   [maxWoken]uint32 // slots of others' batches that are the caller's to finish
	WR      [MaxBatch]WR
	Message [MaxBatch][MaxInline]byte
}

// Slot is the state of one batch in flight.
type Slot struct {
	State     uint64 // generation << 2 | state
	Last      uint32
	ErrOp     uint32 // the first operation that failed
	Status    Status // its status; StatusSuccess if none failed
	VendorErr uint32
	_         [40]byte
}

// Msg is one entry of the receive queue's completions.
type Msg struct {
	Index  uint32 // of the buffer
	Len    uint32 // bytes that arrived
	Status Status
	Vendor uint32
}

// RecvCall is what one crossing for the receive side takes and gives.
type RecvCall struct {
	N    uint32 // entries of Msg after RecvPoll; of Post for RecvPost
	Err  int32
	Arm  uint32 // 1: if nothing is there, arm the queue and look again
	_    uint32
	Msg  [MaxRecv]Msg
	Post [MaxRecv]uint32 // buffers to post
}

// Access is what a memory registration allows. Relaxed ordering is not offered (rule R7).
type Access int

// The values of enum ibv_access_flags.
const (
	LocalWrite   Access = 1
	RemoteWrite  Access = 2
	RemoteRead   Access = 4
	RemoteAtomic Access = 8
)

// Atomic capabilities of a device: enum ibv_atomic_cap.
const (
	AtomicNone   = 0 // no atomic operations
	AtomicHCA    = 1 // atomic among all queue pairs of the device
	AtomicGlobal = 2 // and with the CPU
)

// GIDType tells what a GID is good for: enum ibv_gid_type_sysfs as ibv_query_gid_table gives it.
type GIDType uint32

// The types of GIDs.
const (
	GIDIB     GIDType = 0
	GIDRoCEv1 GIDType = 1
	GIDRoCEv2 GIDType = 2
)

// Port states and link layers: enum ibv_port_state, IBV_LINK_LAYER_*.
const (
	PortActive         = 4
	LinkLayerIB        = 1
	LinkLayerEthernet  = 2
	maxGIDs            = 256
	maxPrivateInEvents = 196
)

// DeviceInfo is what a device says of itself.
type DeviceInfo struct {
	Name      string
	Err       error  // why it says nothing: then only its name is known
	NodeGUID  uint64 // big-endian, as the verb gives it
	Firmware  string
	AtomicCap int // AtomicNone, AtomicHCA, AtomicGlobal
	MaxQPWR   int // work requests of one queue
	MaxCQE    int
	MaxRDAtom int // READs and atomics that a queue pair answers at once
	MaxInit   int // READs and atomics that a queue pair asks at once
	Ports     []Port
}

// Port is a port of a device.
type Port struct {
	Number    int
	State     int // PortActive is good
	LinkLayer int
	ActiveMTU int // bytes
	MaxMsg    uint32
	GIDs      []GID
}

// GID is an entry of a port's GID table.
type GID struct {
	Index   int
	Type    GIDType
	Raw     [16]byte
	IfIndex int // of the netdev; 0 if there is none
}

// EventType is the type of a connection manager event: enum rdma_cm_event_type.
type EventType int32

// The events that somebody here waits for.
const (
	AddrResolved   EventType = 0
	AddrError      EventType = 1
	RouteResolved  EventType = 2
	RouteError     EventType = 3
	ConnectRequest EventType = 4
	ConnectError   EventType = 6
	Unreachable    EventType = 7
	Rejected       EventType = 8
	Established    EventType = 9
	Disconnected   EventType = 10
	DeviceRemoval  EventType = 11
	AddrChange     EventType = 14
	TimewaitExit   EventType = 15
)

// AsyncFatal is IBV_EVENT_DEVICE_FATAL of enum ibv_event_type: the device is of no more use (ibv_get_async_event(3)).
const AsyncFatal = 8

// Event is an event of the connection manager.
type Event struct {
	Type      EventType
	Status    int // a negative errno, or with Rejected the reason (enum ib_cm_rej_reason)
	ID        *ID // ConnectRequest: the new connection's id, on the listener's channel
	Responder uint8
	Initiator uint8
	Retry     uint8 // ConnectRequest: what the peer asks of this side's queue pair, which Accept cannot change
	RNRRetry  uint8
	Private   []byte
}

// RejectConsumer is the Status of a Rejected event that the peer's program sent: IB_CM_REJ_CONSUMER_DEFINED.
const RejectConsumer = 28

// Reasons that the peer's kernel rejects a connection for.
const (
	RejectInvalidService = 8 // IB_CM_REJ_INVALID_SERVICE_ID: nobody listens
)

// ConnParam are the parameters of rdma_connect and rdma_accept.
type ConnParam struct {
	Responder, Initiator uint8 // READs and atomics answered and asked at once
	Retry                uint8 // 0 to 6; ignored by Accept
	RNRRetry             uint8
	Private              []byte // at most 196 bytes; the protocol allows fewer
}

// QPOptions are the sizes of a queue pair.
type QPOptions struct {
	SendDepth, RecvDepth int
	Slots                int // batches in flight
	MaxInline            int
	MaxSpinners          int // threads that poll at once
	RecvBase             uint64
	RecvKey              uint32
	RecvSize             int // of each buffer, in bytes
}
