package fabric

import (
	"net/netip"
	"testing"

	ib "corfu/rdma/internal/verbs"
)

// The interface of a device's address is the VLAN that has it, not the port's own.
func TestTheInterfaceOfAnAddressIsItsVLAN(t *testing.T) {
	links := map[int]link{2: {"eth0", 9000}, 7: {"eth0.100", 9000}}
	gid := func(index int, kind ib.GIDType, addr string, netdev int) ib.GID {
		return ib.GID{Index: index, Type: kind, Raw: netip.MustParseAddr(addr).As16(), IfIndex: netdev}
	}
	port := ib.Port{Number: 1, State: ib.PortActive, LinkLayer: ib.LinkLayerEthernet, ActiveMTU: 4096, GIDs: []ib.GID{
		gid(0, ib.GIDRoCEv1, "fe80::1", 2), gid(1, ib.GIDRoCEv2, "fe80::1", 2), gid(2, ib.GIDRoCEv1, "::ffff:10.1.1.5", 7), gid(3, ib.GIDRoCEv2, "::ffff:10.1.1.5", 7),
	}}
	fill := func() DeviceInfo {
		d := DeviceInfo{Name: "mlx5_0"}
		d.fill(ib.DeviceInfo{Name: "mlx5_0", AtomicCap: ib.AtomicHCA, Ports: []ib.Port{port}}, links)
		return d
	}
	if d := fill(); !d.Usable || d.Addr != "10.1.1.5" || d.Netdev != "eth0.100" || d.Ports[0].Netdev != "eth0" {
		t.Errorf("%+v, want 10.1.1.5 of eth0.100", d)
	}
	port.GIDs = append(port.GIDs[:2:2], gid(4, ib.GIDRoCEv2, "::ffff:10.0.0.5", 2))
	if d := fill(); d.Addr != "10.0.0.5" || d.Netdev != "eth0" {
		t.Errorf("%+v, want 10.0.0.5 of eth0", d)
	}
	port.GIDs = port.GIDs[:2]
	if d := fill(); d.Usable || d.Netdev != "" {
		t.Errorf("%+v, want one without a usable address", d)
	}
}
