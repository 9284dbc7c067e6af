package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"corfu/tools/corfu/internal/config"
)

// roleConfig is the struct that describes the settings of a role. It holds the defaults until it is loaded.
type roleConfig interface {
	// role is what the file says that it is for; "" if it does not say.
	role() string
	// settle takes what flags say that are no plain values, and what follows from one setting for another.
	settle() error
	// check finds everything that is wrong without touching the machine. It comes after settle.
	check() error
}

// The roles, in the order of the reference.
var roleNames = []string{"layout", "seq", "unit", "client"}

// settings are a role's configuration, and the command that takes it: its flags beat the rest.
type settings struct {
	cmd *cobra.Command // the root for clients
	c   roleConfig
}

func (s settings) flags() *pflag.FlagSet {
	if s.cmd.HasParent() {
		return s.cmd.Flags()
	}
	return s.cmd.PersistentFlags()
}

// settingsOf makes cmd and c the settings of a role.
func (a *app) settingsOf(role string, cmd *cobra.Command, c roleConfig) {
	if a.roles == nil {
		a.roles = map[string]settings{}
	}
	a.roles[role] = settings{cmd, c}
}

// otherVariables of the environment are no settings: which file to read, and those of tests and the lab.
var otherVariables = []string{configVariable, "CORFU_LAB", "CORFU_LAB_", "CORFU_TEST_"}

// configVariable names the file, where --config does not.
const configVariable = config.Prefix + "CONFIG"

// configFile is the file that the user named, or "".
func (a *app) configFile() string {
	if a.config != "" {
		return a.config
	}
	return os.Getenv(configVariable)
}

// loadRole reads a role's settings from the file, the environment and the role's flags.
func (a *app) loadRole(role, file string) ([]config.Setting, error) {
	s := a.roles[role]
	all, err := config.Load(config.Sources{File: file, Env: os.Environ(), Flags: s.flags()}, s.c)
	if err != nil {
		return nil, &usageError{err}
	}
	if says := s.c.role(); says != "" && says != role {
		return nil, usagef("%s is for role %s, not for %s", file, says, role)
	}
	return all, s.c.settle()
}

// loadDaemon is loadRole for a daemon that is about to start.
func (a *app) loadDaemon(role string) error {
	outliveReaders()
	if _, err := a.loadRole(role, a.configFile()); err != nil {
		return err
	}
	for _, line := range a.unknownVariables() {
		a.logger(false).Warn(line)
	}
	return a.roles[role].c.check()
}

// unknownVariables gives a line for each variable of the environment that looks like a setting and is that of no role.
func (a *app) unknownVariables() []string {
	var keys []config.Key
	for _, s := range a.roles {
		keys = append(keys, config.Keys(s.c)...)
	}
	return config.Unknown(os.Environ(), keys, otherVariables...)
}

func (c *daemonConfig) role() string { return c.Role }

// needs complains of a setting that has no default and is not there.
func needs(role, flag, more string) error { return usagef("%s needs --%s%s", role, flag, more) }

// Where the settings of this machine's clients are, if any: those of its operator, which root alone can read, and those of its users.
const (
	operatorFile = "/etc/corfu/operator.yaml"
	clientFile   = "/etc/corfu/client.yaml"
)

// machineFile is the first of them that this user may read, or "".
func machineFile() string {
	if f, err := os.Open(operatorFile); err == nil {
		_ = f.Close()
		return operatorFile
	}
	if _, err := os.Stat(clientFile); err == nil {
		return clientFile
	}
	return ""
}

// loadClient reads the clients' settings. own tells that the user named the file, or the layout servers.
func (a *app) loadClient() (c *clientConfig, own bool, err error) {
	file := a.configFile()
	own = file != ""
	if !own {
		file = machineFile()
	}
	all, err := a.loadRole("client", file)
	if err != nil {
		return nil, false, err
	}
	for _, s := range all {
		own = own || s.Path == "layout_servers" && s.Overridden()
	}
	c = a.roles["client"].c.(*clientConfig)
	if err := c.check(); err != nil {
		return nil, false, fmt.Errorf("client settings: %w", err)
	}
	a.timeout, a.insecure = c.Timeout, c.Insecure
	return c, own, nil
}
