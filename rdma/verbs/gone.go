package verbs

import (
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// lookEvery is how often the kernel's list of devices is looked at. It is the last of three ways to
// hear that the device goes: which of the others speaks depends on the driver and on the order in
// which the kernel's modules were loaded.
const lookEvery = time.Second

// watchGone waits for the end of the device: the connection manager's event (rdma_get_cm_event(3)),
// the device's own (ibv_get_async_event(3)), or that the kernel no longer lists it. A removal waits
// in the kernel for every process that has the device open.
func (d *Device) watchGone() {
	for _, wait := range []func() (string, error){d.ctx.Removed, d.ctx.Fatal} {
		d.watches.Go(func() {
			if event, err := wait(); err == nil {
				d.lose(event)
			}
		})
	}
	d.watches.Go(func() {
		t := time.NewTicker(lookEvery)
		defer t.Stop()
		for listed := false; ; {
			select {
			case <-d.stop:
				return
			case <-d.gone:
				return
			case <-t.C:
			}
			links, err := netlink.RdmaLinkList()
			if err != nil {
				continue
			}
			now := slices.ContainsFunc(links, func(l *netlink.RdmaLink) bool { return l.Attrs.Name == d.info.Name })
			if listed && !now {
				d.lose("the kernel lists it no more")
				return
			}
			listed = now
		}
	})
}

func (d *Device) lose(how string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.goneErr == nil {
		d.goneErr = fmt.Errorf("RDMA device %s was removed (%s)", d.info.Name, how)
		close(d.gone)
	}
}

// Gone returns a channel that is closed once the device was removed from the machine. Its
// connections are broken then, its listeners dead; a device that is added again, even under the
// same name, is another one. The removal waits in the kernel until every process that has the
// device open ended: librdmacm keeps its context for as long as the process lives.
func (d *Device) Gone() <-chan struct{} { return d.gone }

// GoneErr returns how the device went, or nil.
func (d *Device) GoneErr() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.goneErr
}
