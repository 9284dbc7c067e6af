package main

import (
	"cmp"
	"fmt"
	"strings"

	"corfu/rdma/fabric"
)

// printUsable prints a line for each device, for scripts that have no JSON: name, address and the address's network interface, "-" where there
// is none.
func (a *app) printUsable(ds []fabric.DeviceInfo) error {
	for _, d := range ds {
		if _, err := fmt.Fprintln(a.stdout, d.Name, d.Addr, cmp.Or(d.Netdev, "-")); err != nil {
			return err
		}
	}
	return nil
}

// printDevices prints a block for each device, one line for each port and for each GID.
func (a *app) printDevices(ds []fabric.DeviceInfo) error {
	if len(ds) == 0 {
		_, err := fmt.Fprintln(a.stdout, "No RDMA devices on this machine: corfu runs over tcp here.")
		return err
	}
	for _, d := range ds {
		use := "usable, at " + d.Addr
		if d.Netdev != "" {
			use += " of " + d.Netdev
		}
		if !d.Usable {
			use = "not usable: " + strings.ReplaceAll(d.Problem, "\n", "; ")
		}
		fmt.Fprintf(a.stdout, "%s: %s\n", d.Name, use)
		rows := [][]string{{"  driver", d.Driver}, {"  firmware", d.Firmware}, {"  atomics", d.Atomics}}
		if d.MaxRDAtomic > 0 {
			rows = append(rows, []string{"  READs and atomics in flight", fmt.Sprint(d.MaxRDAtomic)})
		}
		for _, p := range d.Ports {
			line := fmt.Sprintf("%s, %s, MTU %d", p.State, p.LinkLayer, p.ActiveMTU)
			if p.Netdev != "" {
				line += fmt.Sprintf(", %s (MTU %d)", p.Netdev, p.NetdevMTU)
			}
			rows = append(rows, []string{fmt.Sprintf("  port %d", p.Number), line})
			for _, g := range p.GIDs {
				rows = append(rows, []string{fmt.Sprintf("    gid %d", g.Index), strings.TrimSpace(fmt.Sprintf("%s, %s %s", g.Type, g.Addr, g.Netdev))})
			}
		}
		filled := rows[:0]
		for _, r := range rows {
			if r[1] != "" {
				filled = append(filled, r)
			}
		}
		if err := a.printTable(filled); err != nil {
			return err
		}
	}
	return nil
}
