package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/Mellanox/rdmamap"
	"github.com/spf13/cobra"

	"corfu/layout"
)

// completePatience is how long a shell's user may have to wait for what only the cluster knows.
const completePatience = 2 * time.Second

// addCompletions says what flags and arguments may be, where that is known. It comes after all commands.
func (a *app) addCompletions(root *cobra.Command) {
	fixed := func(cmd *cobra.Command, flag string, words ...string) {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
	fixed(root, "provider", "auto", "verbs", "tcp")
	fixed(root, "output", "text", "json")
	_ = root.RegisterFlagCompletionFunc("device", completeDevices)
	for _, name := range []string{"dev", "demo", "layout"} {
		fixed(find(root, name), "durability", layout.Flash.String(), layout.Memory.String())
	}
	_ = find(root, "scrub").RegisterFlagCompletionFunc("unit", a.completeUnits)
	for _, name := range []string{"remove", "drain", "replace"} {
		find(root, "unit", name).ValidArgsFunction = a.completeUnits
	}
	for _, name := range []string{"issue", "check"} {
		fixed(find(root, "certs", name), "role", roleWords()...)
	}
	for _, name := range []string{"layout", "seq", "unit"} {
		fixed(find(root, name), "pprof", profilesLocal, profilesAny, profilesOff)
	}
	stores := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveDefault // files
	}
	for _, name := range []string{"fsck", "dump"} {
		find(root, name).ValidArgsFunction = stores
	}
	yaml := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"yaml"}, cobra.ShellCompDirectiveFilterFileExt
	}
	_ = root.RegisterFlagCompletionFunc("config", yaml)
	for _, name := range []string{"check", "show"} {
		find(root, "config", name).ValidArgsFunction = yaml
	}
}

// find is the command at the path, which must be there.
func find(root *cobra.Command, path ...string) *cobra.Command {
	cmd := root
	for _, name := range path {
		i := slices.IndexFunc(cmd.Commands(), func(c *cobra.Command) bool { return c.Name() == name })
		if i < 0 {
			panic("no command " + strings.Join(path, " "))
		}
		cmd = cmd.Commands()[i]
	}
	return cmd
}

func completeDevices(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return rdmamap.GetRdmaDeviceList(), cobra.ShellCompDirectiveNoFileComp
}

// completeUnits are the numbers of the units of the layout in force, each with its place in it. Without a cluster there are none.
func (a *app) completeUnits(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	if f := cmd.Flag("timeout"); !f.Changed { // as if it were given, since the client's file may say more
		_ = cmd.Flags().Set("timeout", completePatience.String())
	}
	l, err := a.getLayout(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, u := range slices.Concat(l.Units, l.Spares) {
		id := fmt.Sprint(u.ID)
		if !slices.Contains(given, id) {
			out = append(out, id+"\t"+u.Control)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
