package client

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"corfu/internal/certs"
	grpcend "corfu/internal/control"
	"corfu/rdma"
)

// Options of a Log. Only LayoutServers must be set.
type Options struct {
	// LayoutServers are the layout service, each "host:port". Name all of them: the client finds the leader among them, and goes
	// on when another one leads.
	LayoutServers []string

	// Device is the fabric device to use; it stays the caller's. Nil: one is opened by Provider and
	// DeviceName, and closed with the Log.
	Device rdma.Device

	// Provider is "verbs", "tcp" or "auto" (default): verbs if a device is found that can do atomics, else tcp.
	Provider string

	// DeviceName is the RDMA device, such as "mlx5_0". Default: the first usable one.
	DeviceName string

	// HoleTimeout is how long a reader waits for a position that was handed out before it fills it with junk. Where it has to fill again
	// and again it waits longer, up to 500 ms, so that writers far away are not starved.
	// Default 20 ms. Longer than the slowest append, or appends lose their positions to readers. Behind a fragment of a larger
	// entry, of which more are to come, it is 10 times as long.
	HoleTimeout time.Duration

	// OpTimeout is how long nothing may move on a connection with operations in flight before it is
	// closed and their outcomes are looked up. Default 2 s, at least 10 ms. It is checked every quarter of it.
	OpTimeout time.Duration

	// Spin is how long an operation polls for its completion before it sleeps. Default: the
	// fabric's, 20 µs; negative: not at all.
	Spin time.Duration

	// MaxOutstanding bounds the appends in flight, AppendAsync and Append together; more of them wait.
	// Default 256, 1 to 65536. Each takes two pages of registered memory. Those of more than a page take none of
	// them: 8 are in flight at once, and their fragments share another 64.
	MaxOutstanding int

	// Registerer takes the metrics (corfu_client_*). Nil: none.
	Registerer prometheus.Registerer

	// Logger takes what an operator should know. Nil: slog.Default.
	Logger *slog.Logger

	// TLS is who this client is, and whom it believes: PEM files, a certificate of role client or admin among them (corfu certs issue). They are read again
	// when they change. None: in clear, which is allowed to loopback addresses only, unless Insecure is set.
	TLS TLS

	// DialOptions are for the control plane, in place of what TLS says.
	DialOptions []grpc.DialOption

	// Insecure allows the control plane, and the fabric of provider tcp, in clear to any address.
	Insecure bool
}

// TLS names the files of a client's identity: the first three, or none.
type TLS struct {
	CA   string // authorities whose certificates the cluster's servers have
	Cert string // this client's certificate
	Key  string // its key, which nobody else may read
	CRL  string // revocation lists of the authorities; none: no server is taken for revoked
}

// withDefaults fills in the zero fields and reports every bad one.
func (o Options) withDefaults() (Options, error) {
	setDefault(&o.Provider, "auto")
	setDefault(&o.HoleTimeout, 20*time.Millisecond)
	setDefault(&o.OpTimeout, 2*time.Second)
	setDefault(&o.MaxOutstanding, 256)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	var errs []error
	if files := certs.Files(o.TLS); !files.IsZero() && len(o.DialOptions) == 0 {
		if source, err := certs.Load(files, o.Logger); err != nil {
			errs = append(errs, fmt.Errorf("TLS: %w", err))
		} else {
			o.DialOptions = grpcend.DialOptions(source)
		}
	}
	if len(o.LayoutServers) == 0 {
		errs = append(errs, errors.New("no layout server given"))
	}
	for _, s := range o.LayoutServers {
		if err := o.mayDial(s); err != nil {
			errs = append(errs, fmt.Errorf("layout server %w", err))
		}
	}
	if o.Provider != "auto" && o.Provider != "verbs" && o.Provider != "tcp" {
		errs = append(errs, fmt.Errorf("provider %q: must be auto, verbs or tcp", o.Provider))
	}
	if o.HoleTimeout < 0 {
		errs = append(errs, fmt.Errorf("hole timeout %v: must not be negative", o.HoleTimeout))
	}
	if o.OpTimeout < 10*time.Millisecond {
		errs = append(errs, fmt.Errorf("operation timeout %v: must be at least 10ms", o.OpTimeout))
	}
	if o.MaxOutstanding < 1 || o.MaxOutstanding > 65536 {
		errs = append(errs, fmt.Errorf("%d outstanding appends: must be 1 to 65536", o.MaxOutstanding))
	}
	return o, errors.Join(errs...)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// mayDial refuses to talk in clear to another machine unless that was asked for.
func (o *Options) mayDial(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not host:port", addr)
	}
	if o.Insecure || len(o.DialOptions) > 0 || grpcend.Loopback(host) {
		return nil
	}
	return fmt.Errorf("%s is not loopback: give certificates (Options.TLS) or set Insecure", addr)
}
