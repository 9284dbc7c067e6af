package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"

	"corfu/client"
	"corfu/tools/corfu/internal/strictyaml"
)

// defaultLayout is where a layout server is looked for if nothing names one.
const defaultLayout = "127.0.0.1:7770"

// clusterFile tells commands how to reach a cluster: the one that corfu dev of this user keeps up, and goes away with it
// (PID is dev's), or the one that this machine was installed for.
type clusterFile struct {
	LayoutServers []string `yaml:"layout_servers"`
	Provider      string   `yaml:"provider"`
	Device        string   `yaml:"device"`
	Insecure      bool     `yaml:"insecure"`
	PID           int      `yaml:"pid,omitempty"`
}

// systemClusterPath is what deploy/install.sh writes, for all users of the machine.
func systemClusterPath() string {
	return cmp.Or(os.Getenv("CORFU_CLUSTER_FILE"), "/etc/corfu/cluster.yaml")
}

// clusterFilePath is in $XDG_RUNTIME_DIR, else in the user's cache: never in a folder that others can write to.
func clusterFilePath() (string, error) {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "corfu", "cluster.yaml"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "corfu", "cluster.yaml"), nil
}

// writeClusterFile announces a cluster, and returns what takes it back. It leaves the file of another cluster that is up alone.
func writeClusterFile(c clusterFile) (path string, remove func(), err error) {
	path, err = clusterFilePath()
	if err != nil {
		return "", nil, err
	}
	if other, err := readClusterFile(path); err == nil && other.PID != os.Getpid() && alive(other.PID) {
		return "", nil, fmt.Errorf("%s belongs to the cluster of process %d, which is up", path, other.PID)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", nil, err
	}
	b, err := yaml.Marshal(c)
	if err != nil {
		return "", nil, err
	}
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return "", nil, err
	}
	if err := os.Rename(tmp, path); err != nil {
		return "", nil, err
	}
	return path, func() {
		if now, err := readClusterFile(path); err == nil && now.PID == c.PID {
			_ = os.Remove(path)
		}
	}, nil
}

func readClusterFile(path string) (clusterFile, error) {
	var c clusterFile
	err := strictyaml.ReadFile(path, &c)
	return c, err
}

// systemCluster reads the machine's file; none is an empty one. One that cannot be understood is an error: what it means to say is not to be
// guessed.
func systemCluster() (clusterFile, error) {
	c, err := readClusterFile(systemClusterPath())
	switch {
	case errors.Is(err, os.ErrNotExist):
		return clusterFile{}, nil
	case err != nil:
		return clusterFile{}, &usageError{err}
	}
	return c, nil
}

func alive(pid int) bool {
	return pid > 0 && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// findCluster says where the layout servers are: the flag, the environment, the file of a running corfu dev, that of the machine, the
// default. Where the machine's file allows a control plane in clear, that holds for the servers that it names.
func (a *app) findCluster() (clusterFile, error) {
	c := clusterFile{LayoutServers: []string{defaultLayout}}
	ours, err := systemCluster()
	if err != nil {
		return c, err
	}
	// Which device this machine uses does not depend on the cluster.
	c.Provider, c.Device = ours.Provider, ours.Device
	switch env := os.Getenv("CORFU_LAYOUT"); {
	case a.cluster != "":
		c.LayoutServers = strings.Split(a.cluster, ",")
	case env != "":
		c.LayoutServers = strings.Split(env, ",")
	default:
		if len(ours.LayoutServers) > 0 {
			c = ours
		}
		if path, err := clusterFilePath(); err == nil {
			if f, err := readClusterFile(path); err == nil && alive(f.PID) && len(f.LayoutServers) > 0 {
				c = f
			}
		}
		a.insecure = a.insecure || c.Insecure
	}
	for i, s := range c.LayoutServers {
		s = strings.TrimSpace(s)
		if _, _, err := net.SplitHostPort(s); err != nil {
			return c, usagef("layout server %q: must be host:port", s)
		}
		c.LayoutServers[i] = s
	}
	if a.provider != "" {
		c.Provider = a.provider
	}
	if a.device != "" {
		c.Device = a.device
	}
	return c, nil
}

// openLog opens the log within --timeout.
func (a *app) openLog(ctx context.Context, adjust ...func(*client.Options)) (*client.Log, error) {
	c, err := a.findCluster()
	if err != nil {
		return nil, err
	}
	o := client.Options{
		LayoutServers: c.LayoutServers, Provider: c.Provider, DeviceName: c.Device,
		Insecure: a.insecure, Logger: a.logger(true),
	}
	for _, f := range adjust {
		f(&o)
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	l, err := client.Open(ctx, o)
	if err == nil {
		return l, nil
	}
	where := strings.Join(c.LayoutServers, ", ")
	if errors.Is(err, client.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("no cluster answers at %s: is it up? corfu dev starts one, --cluster names another: %w", where, err)
	}
	return nil, fmt.Errorf("cannot open the log at %s: %w", where, err)
}

// withLog runs f with the log open.
func (a *app) withLog(ctx context.Context, f func(*client.Log) error) error {
	l, err := a.openLog(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(l), l.Close())
}

// checkClear refuses to talk in clear to another machine unless --insecure allows it.
func (a *app) checkClear(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return usagef("layout server %q: must be host:port", addr)
	}
	if ip := net.ParseIP(host); a.insecure || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return usagef("%s is not loopback: control connections are in clear and need --insecure", addr)
}
