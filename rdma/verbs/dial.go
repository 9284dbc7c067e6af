package verbs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

// resolveMS bounds each step of the address resolution, in milliseconds.
const resolveMS = 2000

// Private data of both kinds is a length byte and the bytes: rdma_cm pads what
// the other side gets with zeros.
const maxReason = 100

func packPrivate(b []byte) []byte { return append([]byte{byte(len(b))}, b...) }

func unpackPrivate(b []byte) ([]byte, bool) {
	if len(b) == 0 || int(b[0]) > len(b)-1 {
		return nil, false
	}
	return b[1 : 1+int(b[0])], true
}

// Dial connects to a listener.
func (d *Device) Dial(ctx context.Context, addr string, private []byte, o rdma.ConnOptions) (rdma.Conn, error) {
	if len(private) > rdma.MaxPrivate {
		return nil, fmt.Errorf("verbs: dial %s: %w: %d bytes of private data", addr, rdma.ErrInvalid, len(private))
	}
	o, err := d.options(o)
	if err != nil {
		return nil, err
	}
	to, err := d.lookup(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("verbs: dial %s: %w", addr, err)
	}
	c, err := d.connect(ctx, to, private, o)
	if err != nil {
		return nil, fmt.Errorf("verbs: dial %s: %w", addr, err)
	}
	return c, nil
}

// lookup finds an address of the peer in the family of our own.
func (d *Device) lookup(ctx context.Context, addr string) (netip.AddrPort, error) {
	host, ports, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", rdma.ErrInvalid, err)
	}
	port, err := strconv.ParseUint(ports, 10, 16)
	if err != nil || port == 0 {
		return netip.AddrPort{}, fmt.Errorf("%w: port %q", rdma.ErrInvalid, ports)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, ip := range ips {
		if ip = ip.Unmap(); ip.Is4() == d.addr.Is4() {
			return netip.AddrPortFrom(ip, uint16(port)), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("no address in the family of %v", d.addr)
}

func (d *Device) connect(ctx context.Context, to netip.AddrPort, private []byte, o rdma.ConnOptions) (*conn, error) {
	ec, err := ib.NewEventChannel()
	if err != nil {
		return nil, err
	}
	id, err := ec.NewID()
	if err != nil {
		return nil, errors.Join(err, ec.Close())
	}
	if err := resolve(ctx, ec, id, netip.AddrPortFrom(d.addr, 0), to); err != nil {
		return nil, errors.Join(err, id.Close(), ec.Close())
	}
	c, err := d.newConn(ec, id, o, nil)
	if err != nil {
		return nil, err
	}
	err = id.SetAckTimeout(ackTimeout(o.AckTimeout))
	if err == nil {
		err = id.Connect(ib.ConnParam{
			Responder: uint8(o.MaxRDAtomic), Initiator: uint8(o.MaxRDAtomic),
			Retry: uint8(o.RetryCount), RNRRetry: rnrRetry, Private: packPrivate(private),
		})
	}
	if err == nil {
		err = expect(ctx, ec, ib.Established)
	}
	if err != nil {
		// Only a refusal is told with its type; what else went wrong while freeing matters little.
		_ = c.release()
		return nil, err
	}
	return c.start(), nil
}

func resolve(ctx context.Context, ec *ib.EventChannel, id *ib.ID, from, to netip.AddrPort) error {
	if err := id.ResolveAddr(from, to, resolveMS); err != nil {
		return err
	}
	if err := expect(ctx, ec, ib.AddrResolved); err != nil {
		return err
	}
	if err := id.ResolveRoute(resolveMS); err != nil {
		return err
	}
	return expect(ctx, ec, ib.RouteResolved)
}

// expect waits for an event; another one is an error.
func expect(ctx context.Context, ec *ib.EventChannel, want ib.EventType) error {
	for {
		ev, err := ec.Next(ctx)
		switch {
		case err != nil:
			return err
		case ev.Type == want:
			return nil
		case ev.Type == ib.AddrChange:
		default:
			return eventError(ev)
		}
	}
}

func eventError(ev ib.Event) error {
	switch {
	case ev.Type == ib.Rejected && ev.Status == ib.RejectConsumer:
		reason, _ := unpackPrivate(ev.Private)
		return &rdma.RejectError{Reason: string(reason)}
	case ev.Type == ib.Rejected && ev.Status == ib.RejectInvalidService:
		return fmt.Errorf("nobody listens there: %w", syscall.ECONNREFUSED)
	case ev.Type == ib.Rejected:
		return fmt.Errorf("%v, reason %d: %w", ev.Type, ev.Status, syscall.ECONNREFUSED)
	case ev.Status < 0:
		return fmt.Errorf("%v: %w", ev.Type, syscall.Errno(-ev.Status))
	}
	return fmt.Errorf("%v, status %d", ev.Type, ev.Status)
}
