package main

import (
	"errors"
	"fmt"
	"net"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// subnet is of the range for benchmarks of network devices (RFC 2544): it exists in the namespaces of this run only.
const subnet = "198.18.0."

// nowhere is a link address that nobody has: the bridge hands such a frame to everybody, and everybody drops it.
var nowhere = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x01}

// network is a bridge with a port for each machine.
type network struct {
	bridge netlink.Link
	root   netns.NsHandle
	next   int
	free   []*host // released
}

// host is a machine: a network namespace and its one link.
type host struct {
	addr   string
	ns     netns.NsHandle
	inside *netlink.Handle
	link   netlink.Link // in the namespace
	port   netlink.Link // of the bridge
}

func newNetwork() (*network, error) {
	root, err := netns.Get()
	if err != nil {
		return nil, err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("loopback: %w", err)
	}
	n := &network{root: root, next: 10, bridge: &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "chaos"}}}
	if err := netlink.LinkAdd(n.bridge); err != nil {
		return nil, fmt.Errorf("bridge: %w", err)
	}
	if err := addAddr(netlink.AddrAdd, n.bridge, subnet+"1"); err != nil {
		return nil, err
	}
	return n, netlink.LinkSetUp(n.bridge)
}

func addAddr(add func(netlink.Link, *netlink.Addr) error, l netlink.Link, addr string) error {
	a, err := netlink.ParseAddr(addr + "/24")
	if err != nil {
		return err
	}
	if err := add(l, a); err != nil {
		return fmt.Errorf("address %s: %w", addr, err)
	}
	return nil
}

// newHost makes a machine that all others can reach.
func (n *network) newHost() (h *host, err error) {
	if last := len(n.free) - 1; last >= 0 {
		h, n.free = n.free[last], n.free[:last]
		return h, nil
	}
	h = &host{addr: fmt.Sprint(subnet, n.next)}
	port := fmt.Sprintf("port%d", n.next)
	n.next++
	if h.ns, err = newNamespace(); err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port, MasterIndex: n.bridge.Attrs().Index}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(h.ns))}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	if h.port, err = netlink.LinkByName(port); err != nil {
		return nil, err
	}
	if h.inside, err = netlink.NewHandleAt(h.ns); err != nil {
		return nil, err
	}
	if h.link, err = h.inside.LinkByName("eth0"); err != nil {
		return nil, err
	}
	lo, err := h.inside.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	return h, errors.Join(addAddr(h.inside.AddrAdd, h.link, h.addr), h.inside.LinkSetUp(lo), h.inside.LinkSetUp(h.link), netlink.LinkSetUp(h.port))
}

// release lets a machine on which nothing runs any more be another member's. Without a network nothing is to be done.
func (n *network) release(h *host) {
	if n != nil {
		n.free = append(n.free, h)
	}
}

// newNamespace makes a network namespace. The thread that made it is thrown away with its goroutine.
func newNamespace() (ns netns.NsHandle, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			ns, err = netns.Get()
		}
	}()
	<-done
	return ns, err
}

// within calls fn on a thread of the machine's namespace; processes that it starts are in there. A nil host is the machine that all runs on.
func (h *host) within(fn func() error) (err error) {
	if h == nil {
		return fn()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err = netns.Set(h.ns); err == nil {
			err = fn()
		}
	}()
	<-done
	return err
}

// deafen drops silently what h sends to the other one.
func (h *host) deafen(to *host) error {
	return h.inside.NeighSet(&netlink.Neigh{LinkIndex: h.link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(to.addr), HardwareAddr: nowhere})
}

// undeafen is the end of deafen.
func (h *host) undeafen(to *host) error {
	err := h.inside.NeighDel(&netlink.Neigh{LinkIndex: h.link.Attrs().Index, IP: net.ParseIP(to.addr)})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// unplug takes the machine off the network, as pulling its cable does.
func (h *host) unplug() error { return netlink.LinkSetDown(h.port) }

// plug puts it back.
func (h *host) plug() error { return netlink.LinkSetUp(h.port) }
