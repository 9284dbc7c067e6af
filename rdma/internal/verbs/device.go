//go:build cgo

package verbs

/*
#include "cf.h"
*/
import "C"

import (
	"errors"
	"syscall"
	"unsafe"
)

// Devices asks every RDMA device for its attributes, ports and GIDs; one that does not answer has its Err, so that it
// does not stand in the way of the others. A machine without any gives an empty list.
func Devices() ([]DeviceInfo, error) {
	if err := Load(); err != nil {
		return nil, err
	}
	var n C.int
	list, err := C.cf_device_list(&n)
	if list == nil {
		if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.ENOENT) {
			return nil, nil // no uverbs in the kernel
		}
		return nil, verbErr("ibv_get_device_list", err)
	}
	defer C.cf_device_list_free(list)
	var out []DeviceInfo
	for i := range int(n) {
		d, err := queryListed(list, i)
		if err != nil {
			d = DeviceInfo{Name: C.GoString(C.cf_device_name(list, C.int(i))), Err: err}
		}
		out = append(out, d)
	}
	return out, nil
}

func queryListed(list unsafe.Pointer, i int) (DeviceInfo, error) {
	ctx, err := C.cf_device_open(list, C.int(i))
	if ctx == nil {
		return DeviceInfo{}, verbErr("ibv_open_device", err)
	}
	defer C.cf_device_close(ctx)
	return query(ctx, C.GoString(C.cf_device_name(list, C.int(i))))
}

func query(ctx unsafe.Pointer, name string) (DeviceInfo, error) {
	var a C.cf_device_attr
	if rc := C.cf_device_query(ctx, &a); rc != 0 {
		return DeviceInfo{}, verbError("ibv_query_device", int(rc))
	}
	d := DeviceInfo{
		Name: name, NodeGUID: uint64(a.node_guid), Firmware: C.GoString(&a.fw[0]),
		AtomicCap: int(a.atomic_cap), MaxQPWR: int(a.max_qp_wr), MaxCQE: int(a.max_cqe),
		MaxRDAtom: int(a.max_qp_rd_atom), MaxInit: int(a.max_qp_init_rd_atom),
	}
	for p := range int(a.ports) {
		port, err := queryPort(ctx, p+1)
		if err != nil {
			return DeviceInfo{}, err
		}
		d.Ports = append(d.Ports, port)
	}
	return d, addGIDs(ctx, &d)
}

func queryPort(ctx unsafe.Pointer, n int) (Port, error) {
	var a C.cf_port_attr
	if rc := C.cf_port_query(ctx, C.int(n), &a); rc != 0 {
		return Port{}, verbError("ibv_query_port", int(rc))
	}
	return Port{
		Number: n, State: int(a.state), LinkLayer: int(a.link_layer),
		ActiveMTU: int(a.active_mtu), MaxMsg: uint32(a.max_msg_sz),
	}, nil
}

// addGIDs reads the table of all ports: its entries tell their own index and type,
// which differ from machine to machine and from boot to boot.
func addGIDs(ctx unsafe.Pointer, d *DeviceInfo) error {
	var e [maxGIDs]C.cf_gid
	n := int(C.cf_gid_table(ctx, &e[0], maxGIDs))
	if n < 0 {
		return verbError("ibv_query_gid_table", -n)
	}
	for i := range n {
		p := int(e[i].port) - 1
		if p < 0 || p >= len(d.Ports) {
			continue
		}
		g := GID{Index: int(e[i].index), Type: GIDType(e[i]._type), IfIndex: int(e[i].ifindex)}
		for j := range g.Raw {
			g.Raw[j] = byte(e[i].gid[j])
		}
		d.Ports[p].GIDs = append(d.Ports[p].GIDs, g)
	}
	return nil
}
