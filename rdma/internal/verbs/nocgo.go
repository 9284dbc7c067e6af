//go:build !cgo

package verbs

import (
	"context"
	"fmt"
	"net/netip"
)

// Without cgo nothing of this package works: Load says so, and all else that can
// fail fails with the same error.

var errNoCgo = fmt.Errorf("%w: built with CGO_ENABLED=0", ErrUnavailable)

// Load fails.
func Load() error { return errNoCgo }

// Devices fails.
func Devices() ([]DeviceInfo, error) { return nil, errNoCgo }

type (
	// Context cannot be opened.
	Context struct{ object }
	// PD cannot be made.
	PD struct{ object }
	// MR cannot be made.
	MR struct {
		object
		LKey, RKey uint32
	}
	// CompChannel cannot be made.
	CompChannel struct{ object }
	// CQ cannot be made.
	CQ struct{ object }
	// QP cannot be made.
	QP struct{ object }
	// EventChannel cannot be made.
	EventChannel struct{ object }
	// ID cannot be made.
	ID struct{ object }
)

func OpenContext(netip.Addr) (*Context, error)                    { return nil, errNoCgo }
func (*Context) Name() string                                     { return "" }
func (*Context) Query() (DeviceInfo, error)                       { return DeviceInfo{}, errNoCgo }
func (*Context) Owns(*ID) bool                                    { return false }
func (*Context) Removed() (string, error)                         { return "", errNoCgo }
func (*Context) Fatal() (string, error)                           { return "", errNoCgo }
func (*Context) Interrupt()                                       {}
func (*Context) AllocPD() (*PD, error)                            { return nil, errNoCgo }
func (*PD) Register(uint64, int, Access) (*MR, error)             { return nil, errNoCgo }
func (*Context) NewCompChannel() (*CompChannel, error)            { return nil, errNoCgo }
func (*CompChannel) Wait() error                                  { return errNoCgo }
func (*CompChannel) Interrupt()                                   {}
func (*Context) NewCQ(int, *CompChannel) (*CQ, error)             { return nil, errNoCgo }
func NewCall() *Call                                              { return new(Call) }
func (*Call) Free()                                               {}
func NewRecvCall() *RecvCall                                      { return new(RecvCall) }
func (*RecvCall) Free()                                           {}
func NewQP(*ID, *PD, *CQ, *CQ, QPOptions) (*QP, error)            { return nil, errNoCgo }
func (*QP) MaxInline() int                                        { return 0 }
func (*QP) SetRNRTimer(int) error                                 { return errNoCgo }
func (*QP) Error() error                                          { return errNoCgo }
func (*QP) Destroy()                                              {}
func (*QP) Slot(uint32) *Slot                                     { return new(Slot) }
func (*QP) Post(*Call)                                            {}
func (*QP) Wait(*Call)                                            {}
func (*QP) Reap(*Call)                                            {}
func (*QP) Awake()                                                {}
func (*QP) Sleepers() int                                         { return 0 }
func (*QP) RecvPost(*RecvCall)                                    {}
func (*QP) RecvPoll(*RecvCall)                                    {}
func NewEventChannel() (*EventChannel, error)                     { return nil, errNoCgo }
func (*EventChannel) Next(context.Context) (Event, error)         { return Event{}, errNoCgo }
func (*EventChannel) Interrupt()                                  {}
func (*EventChannel) NewID() (*ID, error)                         { return nil, errNoCgo }
func (*ID) Migrate(*EventChannel) error                           { return errNoCgo }
func (*ID) Bind(netip.AddrPort) error                             { return errNoCgo }
func (*ID) Listen(int) error                                      { return errNoCgo }
func (*ID) ResolveAddr(netip.AddrPort, netip.AddrPort, int) error { return errNoCgo }
func (*ID) ResolveRoute(int) error                                { return errNoCgo }
func (*ID) SetAckTimeout(uint8) error                             { return errNoCgo }
func (*ID) Connect(ConnParam) error                               { return errNoCgo }
func (*ID) Accept(ConnParam) error                                { return errNoCgo }
func (*ID) Reject([]byte) error                                   { return errNoCgo }
func (*ID) Disconnect() error                                     { return errNoCgo }
func (*ID) Addrs() (local, peer netip.AddrPort)                   { return }
