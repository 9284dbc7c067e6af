package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"corfu/rdma/fabric"
)

// Soft-RoCE devices do not outlive a boot: corfu-soft-roce@.service makes them anew by these commands.

func (a *app) addRxeCommand() *cobra.Command {
	var netdev, name string
	cmd := &cobra.Command{
		Use: "add-rxe", Short: "Make a Soft-RoCE device over a network interface", Args: cobra.NoArgs,
		Long: `Make a Soft-RoCE device over a network interface, as rdma link add does: RDMA in the
kernel's software, for machines without an RDMA card. It is gone with the next boot;
corfu-soft-roce@NETDEV.service makes it at each. Where the interface carries one
already, that is said, and is no error. It needs root (CAP_NET_ADMIN).`,
		Example: "  corfu devices add-rxe --netdev eth0",
	}
	cmd.Flags().StringVar(&netdev, "netdev", "", "network `interface` that carries it")
	cmd.Flags().StringVar(&name, "name", "", "the device's `name` (default: rxe_ and the interface)")
	cmd.RunE = a.body(func(context.Context, []string) error {
		if netdev == "" {
			return usagef("add-rxe needs --netdev, a network interface (ip link lists them)")
		}
		if name == "" {
			name = "rxe_" + netdev
		}
		device, made, err := fabric.AddSoftRoCE(name, netdev)
		if err != nil {
			return needsRoot(err)
		}
		return a.printRxe(device, netdev, made, "is there")
	})
	return cmd
}

func (a *app) removeRxeCommand() *cobra.Command {
	var netdev string
	cmd := &cobra.Command{
		Use: "remove-rxe", Short: "Remove the Soft-RoCE device of a network interface", Args: cobra.NoArgs,
		Long: `Remove the Soft-RoCE device of a network interface. Connections over it break. Where
there is none, that is said, and is no error. It needs root (CAP_NET_ADMIN).`,
	}
	cmd.Flags().StringVar(&netdev, "netdev", "", "network `interface` that carries it")
	cmd.RunE = a.body(func(context.Context, []string) error {
		if netdev == "" {
			return usagef("remove-rxe needs --netdev, a network interface")
		}
		device, err := fabric.RemoveSoftRoCE(netdev)
		if err != nil {
			return needsRoot(err)
		}
		if device == "" {
			device = "none"
		}
		return a.printRxe(device, netdev, device != "none", "removed")
	})
	return cmd
}

// printRxe says what was done; changed is false where nothing was to do.
func (a *app) printRxe(device, netdev string, changed bool, state string) error {
	if a.json() {
		return a.printJSON(map[string]any{"device": device, "netdev": netdev, "changed": changed})
	}
	note := ""
	if !changed {
		note = " (nothing to do)"
	}
	_, err := fmt.Fprintf(a.stdout, "Soft-RoCE over %s: %s %s%s\n", netdev, device, state, note)
	return err
}

func needsRoot(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: run it as root", err)
	}
	return err
}
