package fabric

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/Mellanox/rdmamap"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoSoftRoCE: the kernel has no Soft-RoCE, or no such netdev. Load rdma_rxe, which Debian's cloud kernels do not have, or mend the name.
var ErrNoSoftRoCE = errors.New("no Soft-RoCE here")

// AddSoftRoCE makes the RDMA device name, Soft-RoCE over the network interface netdev (rdma-link(8)), and tells which device
// stands there afterwards: where netdev carries one already that one stays, whatever its name, and made is false. It takes CAP_NET_ADMIN. It
// fails with ErrNoSoftRoCE, or with EEXIST if another device has the name.
func AddSoftRoCE(name, netdev string) (device string, made bool, err error) {
	link, err := netlink.LinkByName(netdev)
	if err != nil {
		return "", false, fmt.Errorf("%w: network interface %s: %w", ErrNoSoftRoCE, netdev, err)
	}
	if d := softRoCEOver(netdev); d != "" {
		return d, false, nil
	}
	if err := refuseVLAN(link); err != nil {
		return "", false, err
	}
	switch err := netlink.RdmaLinkAdd(name, "rxe", netdev); {
	case err == nil:
		return name, true, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPROTONOSUPPORT):
		// What the kernel answers to a link type that it does not know (nldev_newlink in drivers/infiniband/core/nldev.c), and
		// where not even ib_core is loaded, so that nobody listens to netlink's RDMA family.
		return "", false, fmt.Errorf("%w: the kernel knows no rxe (modprobe rdma_rxe): %w", ErrNoSoftRoCE, err)
	default:
		return "", false, fmt.Errorf("cannot make %s over %s: %w", name, netdev, err)
	}
}

// refuseVLAN fails with ErrNoSoftRoCE for a VLAN, to which the kernel answers EPERM (rxe_newlink in drivers/infiniband/sw/rxe/rxe.c): that sounds
// as if root could.
func refuseVLAN(link netlink.Link) error {
	if _, vlan := link.(*netlink.Vlan); !vlan {
		return nil
	}
	return fmt.Errorf("%w: %s is a VLAN, and Soft-RoCE lies on a real interface alone: make it over %s, whose device carries the addresses of its VLANs, too",
		ErrNoSoftRoCE, link.Attrs().Name, nameOf(link.Attrs().ParentIndex))
}

// nameOf returns the name of an interface, or how it can be found.
func nameOf(index int) string {
	if l, err := netlink.LinkByIndex(index); err == nil {
		return l.Attrs().Name
	}
	return fmt.Sprintf("interface %d", index)
}

// RemoveSoftRoCE takes the Soft-RoCE device over netdev away, and tells which it was; "" if there is none, which is no error.
// Connections over it break. It takes CAP_NET_ADMIN.
func RemoveSoftRoCE(netdev string) (device string, err error) {
	if device = softRoCEOver(netdev); device == "" {
		return "", nil
	}
	if err := netlink.RdmaLinkDel(device); err != nil {
		return "", fmt.Errorf("cannot remove %s: %w", device, err)
	}
	return device, nil
}

// softRoCEOver is the Soft-RoCE device over netdev; "" if there is none.
func softRoCEOver(netdev string) string {
	all := rdmamap.GetRdmaDeviceList()
	i := slices.IndexFunc(all, func(d string) bool {
		return word(filepath.Join(rdmamap.RdmaClassDir, d, "parent")) == netdev
	})
	if i < 0 {
		return ""
	}
	return all[i]
}
