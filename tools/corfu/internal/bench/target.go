package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"corfu/rdma"
)

// target is registered memory of this process and one connection to it.
type target struct {
	mem      *rdma.Memory
	region   rdma.Region
	listener rdma.Listener
	served   rdma.Conn // the passive end
	conn     rdma.Conn // the active end, which operations are posted on
}

func openTarget(ctx context.Context, dev rdma.Device, size int, spin time.Duration) (t *target, err error) {
	t = &target{}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	if t.mem, err = dev.Alloc(size); err != nil {
		return t, err
	}
	if t.region, err = dev.Register(t.mem, 0, size, rdma.RemoteRead|rdma.RemoteWrite|rdma.RemoteAtomic); err != nil {
		return t, err
	}
	if t.listener, err = dev.Listen(net.JoinHostPort(dev.Info().Addr, "0")); err != nil {
		return t, err
	}
	o := rdma.ConnOptions{Spin: spin}
	accepted := make(chan error, 1)
	go func() {
		r, err := t.listener.Accept(ctx)
		if err == nil {
			t.served, err = r.Accept(ctx, o)
		}
		accepted <- err
	}()
	if t.conn, err = dev.Dial(ctx, t.listener.Addr(), nil, o); err != nil {
		err = fmt.Errorf("dial %s: %w", t.listener.Addr(), err)
		_ = t.listener.Close()
		<-accepted
		return t, err
	}
	return t, <-accepted
}

// close goes from the outside in: connections before the region, the region before the memory.
func (t *target) close() error {
	var errs []error
	if t.conn != nil {
		errs = append(errs, t.conn.Close())
	}
	if t.served != nil {
		errs = append(errs, t.served.Close())
	}
	if t.listener != nil {
		errs = append(errs, t.listener.Close())
	}
	if t.region != nil {
		errs = append(errs, t.region.Close())
	}
	if t.mem != nil {
		errs = append(errs, t.mem.Close())
	}
	return errors.Join(errs...)
}
