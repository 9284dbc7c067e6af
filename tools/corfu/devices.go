package main

import (
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/spf13/cobra"

	"corfu/rdma/fabric"
)

func (a *app) devicesCommand() *cobra.Command {
	var usable bool
	cmd := &cobra.Command{
		Use: "devices", Short: "Print the RDMA devices of this machine", Args: cobra.NoArgs,
		RunE: a.body(func(context.Context, []string) error {
			ds, err := fabric.Devices()
			if err != nil {
				return fmt.Errorf("cannot look for RDMA devices: %w", err)
			}
			if usable {
				ds = slices.DeleteFunc(ds, func(d fabric.DeviceInfo) bool { return !d.Usable })
			}
			switch {
			case a.json():
				return a.printJSON(ds)
			case usable:
				return a.printUsable(ds)
			}
			return a.printDevices(ds)
		}),
	}
	cmd.Flags().BoolVar(&usable, "usable", false, "only those that corfu can use, a line each: name, address, network interface")
	cmd.AddCommand(a.addRxeCommand(), a.removeRxeCommand(), a.diskHealthCommand())
	return cmd
}

// freeOr is addr if nobody listens there, else a free port of the same host.
func freeOr(addr string) string {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		_ = l.Close()
		return addr
	}
	host, _, _ := net.SplitHostPort(addr)
	return net.JoinHostPort(host, "0")
}
