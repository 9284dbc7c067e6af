package main

import (
	"context"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"corfu/rdma/fabric"
)

func (a *app) devicesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "devices", Short: "Print the RDMA devices of this machine", Args: cobra.NoArgs,
		RunE: a.body(func(context.Context, []string) error {
			ds, err := fabric.Devices()
			if err != nil {
				return fmt.Errorf("cannot look for RDMA devices: %w", err)
			}
			if a.json() {
				return a.printJSON(ds)
			}
			return a.printDevices(ds)
		}),
	}
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
