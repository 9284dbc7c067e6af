package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"corfu/tools/corfu/internal/config"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Check and show configuration files",
		Long: `Check and show configuration files. One file belongs to one role: layout, seq and unit are
the daemons, client is every command that uses a log. A value given on the command line
beats the environment, that beats the file, and that the default.`,
		Example: `  corfu config check /etc/corfu/unit-1.yaml
  CORFU_FABRIC_DEVICE=mlx5_1 corfu config show /etc/corfu/unit-1.yaml`,
	}
	cmd.AddCommand(a.configCheckCommand(), a.configShowCommand(), a.configReferenceCommand())
	return cmd
}

func (a *app) configCheckCommand() *cobra.Command {
	var role string
	cmd := &cobra.Command{
		Use: "check FILE…", Short: "Find what is wrong with configuration files", Args: cobra.MinimumNArgs(1),
		Long: `Find what is wrong with configuration files: keys that do not exist, values that make no
sense, settings without which the daemon would not start. Variables of the environment are
looked at as the daemon would. Nothing on the machine or the network is touched.

Which role a file is for its key role says, or --role.`,
		Example: `  corfu config check /etc/corfu/*.yaml
  corfu config check --role unit new.yaml`,
	}
	roleFlag(cmd, &role)
	cmd.RunE = a.body(func(_ context.Context, files []string) error {
		var failed []error
		for _, file := range files {
			name, err := a.checkFile(file, role)
			if err != nil {
				failed = append(failed, inFile(file, err))
				continue
			}
			if a.json() {
				err = a.printJSON(map[string]string{"file": file, "role": name})
			} else {
				_, err = fmt.Fprintf(a.stdout, "%s: ok, for %s\n", file, name)
			}
			if err != nil {
				return err
			}
		}
		for _, line := range a.unknownVariables() {
			fmt.Fprintln(a.stderr, "corfu: warning: "+line)
		}
		return errors.Join(failed...)
	})
	return cmd
}

// inFile puts the file's name before an error that does not have it.
func inFile(file string, err error) error {
	if strings.Contains(err.Error(), file) {
		return err
	}
	return &usageError{fmt.Errorf("%s: %w", file, err)}
}

func roleFlag(cmd *cobra.Command, role *string) {
	cmd.Flags().StringVar(role, "role", "", "the `role` that the file is for: "+strings.Join(roleNames, ", ")+" (default: what its key role says)")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(roleNames, cobra.ShellCompDirectiveNoFileComp))
}

// checkFile checks a file as its role would, with settings of its own, so that one file leaves nothing behind for the next.
func (a *app) checkFile(file, role string) (string, error) {
	role, err := roleOf(file, role)
	if err != nil {
		return "", err
	}
	fresh := &app{stdin: a.stdin, stdout: a.stdout, stderr: a.stderr}
	fresh.rootCommand()
	if _, err := fresh.loadRole(role, file); err != nil {
		return "", err
	}
	return role, fresh.roles[role].c.check()
}

// roleOf is the role that a file is for, if nobody said which.
func roleOf(file, role string) (string, error) {
	if role == "" {
		var err error
		if role, err = config.Peek(file, "role"); err != nil {
			return "", &usageError{err}
		}
	}
	if role == "" {
		return "", usagef("%s does not say what it is for: give it a key role, or say --role", file)
	}
	if !slices.Contains(roleNames, role) {
		return "", usagef("role %q: must be one of %s", role, strings.Join(roleNames, ", "))
	}
	return role, nil
}

func (a *app) configShowCommand() *cobra.Command {
	var role string
	cmd := &cobra.Command{
		Use: "show [FILE] [-- FLAG…]", Short: "Print all settings, and where each came from",
		Long: `Print all settings of a role as they are in effect, and where each came from: the file, the
environment, a flag or the default. Behind -- stand flags of the daemon, as it would be given
them. Without a file the defaults and the environment count.`,
		Example: `  corfu config show /etc/corfu/seq.yaml
  corfu config show --role unit -- --id 3 --scrub-rate 0
  corfu config show --role client -o json`,
	}
	roleFlag(cmd, &role)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.started = true
		file := a.configFile()
		rest := args
		if n := cmd.ArgsLenAtDash(); n != 0 && len(args) > 0 {
			file, rest = args[0], args[1:]
			if n < 0 && len(rest) > 0 || n > 1 {
				return usagef("config show takes one file")
			}
		}
		return a.showConfig(file, role, rest)
	}
	return cmd
}

// settingJSON is a setting as scripts read it.
type settingJSON struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
	From  string `json:"from"`
}

func (a *app) showConfig(file, role string, flags []string) (err error) {
	switch {
	case file == "" && role == "":
		return usagef("config show needs a file, or --role")
	case file != "":
		if role, err = roleOf(file, role); err != nil {
			return err
		}
	case !slices.Contains(roleNames, role):
		return usagef("role %q: must be one of %s", role, strings.Join(roleNames, ", "))
	}
	if err := a.roles[role].cmd.ParseFlags(flags); err != nil {
		return &usageError{err}
	}
	all, err := a.loadRole(role, file)
	if err != nil {
		return err
	}
	rows := [][]string{{"KEY", "VALUE", "FROM"}}
	var list []settingJSON
	for _, s := range all {
		list = append(list, settingJSON{s.Path, s.Value(), s.From})
		rows = append(rows, []string{s.Path, orDash(s.Text()), s.From})
	}
	if a.json() {
		return a.printJSON(list)
	}
	return a.printTable(rows)
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

func (a *app) configReferenceCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reference", Short: "Print the reference of all settings, as Markdown", Args: cobra.NoArgs,
		Long:    "Print the reference of all settings of this version, as Markdown: key, type, default, variable, flag and meaning.",
		Example: `  corfu config reference >docs/config.md`,
		RunE: a.body(func(context.Context, []string) error {
			_, err := a.stdout.Write([]byte(a.configReference()))
			return err
		}),
	}
}
