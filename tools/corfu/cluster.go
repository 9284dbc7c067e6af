package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"corfu/client"
	"corfu/internal/control"
	"corfu/tools/corfu/internal/strictyaml"
)

// defaultLayout is where a layout server is looked for if nothing names one.
const defaultLayout = "127.0.0.1:7770"

// clusterFile tells other commands of this user how to reach the cluster that
// corfu dev keeps up. It goes away with it.
type clusterFile struct {
	LayoutServers []string `yaml:"layout_servers"`
	Provider      string   `yaml:"provider"`
	Device        string   `yaml:"device"`
	PID           int      `yaml:"pid"`

	TLS tlsConfig `yaml:"-"` // what the machine's file names for its users; nothing for the cluster of corfu dev
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

// writeClusterFile announces a cluster, and returns what takes it back. It leaves the file of another cluster that is up alone. The file is
// locked for as long as the process lives: a process number alone may be another process's after a while.
func writeClusterFile(c clusterFile) (path string, remove func(), err error) {
	path, err = clusterFilePath()
	if err != nil {
		return "", nil, err
	}
	if other, up, err := readClusterFile(path); err == nil && up {
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
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", nil, err
	}
	if _, err = f.Write(b); err == nil {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			err = os.Rename(tmp, path)
		}
	}
	if err != nil {
		return "", nil, errors.Join(err, f.Close(), os.Remove(tmp))
	}
	return path, func() {
		if now, _, err := readClusterFile(path); err == nil && now.PID == c.PID {
			_ = os.Remove(path)
		}
		_ = f.Close()
	}, nil
}

// readClusterFile reports also whether the process that wrote the file is up.
func readClusterFile(path string) (c clusterFile, up bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return c, false, err
	}
	defer f.Close()
	up = errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	b, err := io.ReadAll(f)
	if err == nil {
		err = strictyaml.Decode(b, &c)
	}
	return c, up, err
}

// clientConfig is the configuration file of the commands that use a log.
type clientConfig struct {
	Role          string        `yaml:"role" env:"-" doc:"client, if it is there: no daemon takes the file"`
	LayoutServers []string      `yaml:"layout_servers" flag:"cluster" env:"CORFU_LAYOUT" doc:"the layout servers, host:port each; before the file comes a running corfu dev of the same user"`
	Fabric        clientFabric  `yaml:"fabric"`
	Timeout       time.Duration `yaml:"timeout" flag:"timeout"`
	Insecure      bool          `yaml:"insecure" flag:"insecure"`
	TLS           tlsConfig     `yaml:"tls"`
}

type clientFabric struct {
	Provider string `yaml:"provider" flag:"provider" doc:"what carries the data: auto (verbs if an RDMA device is usable, else tcp), verbs or tcp"`
	Device   string `yaml:"device" flag:"device"`
}

func (c *clientConfig) role() string  { return c.Role }
func (c *clientConfig) settle() error { return nil }

func (c *clientConfig) check() error {
	errs := []error{checkProvider(c.Fabric.Provider)}
	for _, s := range c.LayoutServers {
		if _, _, err := net.SplitHostPort(s); err != nil {
			errs = append(errs, usagef("layout server %q: must be host:port", s))
		}
	}
	if c.Timeout <= 0 {
		errs = append(errs, usagef("timeout %v: must be above zero", c.Timeout))
	}
	return errors.Join(errs...)
}

// findCluster says where the layout servers are: the flag, the environment, the file that the user named, the file of a
// running corfu dev, this machine's client file, the default.
func (a *app) findCluster() (clusterFile, error) {
	c, own, err := a.loadClient()
	if err != nil {
		return clusterFile{}, err
	}
	found := clusterFile{LayoutServers: slices.Clone(c.LayoutServers), Provider: c.Fabric.Provider, Device: c.Fabric.Device, TLS: c.TLS}
	if own {
		return found, nil
	}
	path, err := clusterFilePath()
	if err != nil {
		return found, nil
	}
	if f, up, err := readClusterFile(path); err == nil && up && len(f.LayoutServers) > 0 {
		found = f
		if a.provider != "" {
			found.Provider = a.provider
		}
		if a.device != "" {
			found.Device = a.device
		}
	}
	return found, nil
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
	if o.TLS, err = a.userIdentity(c); err != nil {
		return nil, err
	}
	for _, f := range adjust {
		f(&o)
	}
	for _, addr := range c.LayoutServers {
		if err := a.checkClear(addr, o.TLS != (client.TLS{})); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	l, err := client.Open(ctx, o)
	if err == nil {
		return l, nil
	}
	where := strings.Join(c.LayoutServers, ", ")
	if grpcstatus.Code(err) == codes.FailedPrecondition { // a layout server answers
		return nil, fmt.Errorf("the cluster at %s does not serve: %w", where, err)
	}
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

// checkClear refuses to talk in clear to another machine unless --insecure allows it. secured says that there are certificates.
func (a *app) checkClear(addr string, secured bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return usagef("layout server %q: must be host:port", addr)
	}
	if secured || a.insecure || control.Loopback(host) {
		return nil
	}
	return usagef("%s is not loopback: control connections take --tls-ca, --tls-cert and --tls-key there; in clear they need --insecure", addr)
}
