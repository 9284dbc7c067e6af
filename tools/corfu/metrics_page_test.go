package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"corfu/client"
	"corfu/internal/certs"
	"corfu/internal/certs/certstest"
	"corfu/internal/devcluster"
	"corfu/rdma"
)

// collected is a registerer that keeps what it gets, to be asked for everything that it could ever show.
type collected struct {
	mu  sync.Mutex
	all []prometheus.Collector
}

func (c *collected) Register(x prometheus.Collector) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, x)
	return nil
}

func (c *collected) MustRegister(list ...prometheus.Collector) {
	for _, x := range list {
		_ = c.Register(x)
	}
}

func (c *collected) Unregister(prometheus.Collector) bool { return true }

// documented is a metric as the page shows it.
type documented struct{ name, kind, labels, help string }

// descText is what prometheus.Desc says of itself: there is no other way to its parts.
var descText = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: ("(?:[^"\\]|\\.)*"), unit: "[^"]*", constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}\}$`)

func (c *collected) documented(t *testing.T) (list []documented) {
	t.Helper()
	kinds := map[string]string{}
	for _, x := range c.all {
		for _, m := range drain(x.Collect) {
			var d dto.Metric
			if err := m.Write(&d); err != nil {
				t.Fatal(err)
			}
			name := descText.FindStringSubmatch(m.Desc().String())[1]
			switch {
			case d.Counter != nil:
				kinds[name] = "counter"
			case d.Gauge != nil:
				kinds[name] = "gauge"
			case d.Histogram != nil:
				kinds[name] = "histogram"
			}
		}
	}
	seen := map[string]bool{}
	for _, x := range c.all {
		for _, d := range drain(x.Describe) {
			f := descText.FindStringSubmatch(d.String())
			if f == nil {
				t.Fatalf("cannot read %s", d)
			}
			name, labels := f[1], strings.FieldsFunc(f[3]+","+f[4], func(r rune) bool { return r == ',' })
			for i, l := range labels {
				labels[i], _, _ = strings.Cut(l, "=")
			}
			slices.Sort(labels)
			if seen[name] {
				continue
			}
			seen[name] = true
			list = append(list, documented{name, cmp.Or(kinds[name], kindByName(name)), strings.Join(slices.Compact(labels), ", "), unquote(t, f[2])})
		}
	}
	slices.SortFunc(list, func(a, b documented) int { return strings.Compare(a.name, b.name) })
	return list
}

// kindByName is for what has nothing to show yet.
func kindByName(name string) string {
	switch {
	case strings.HasSuffix(name, "_total"):
		return "counter"
	case strings.HasSuffix(name, "_seconds"):
		return "histogram"
	}
	return "gauge"
}

func drain[T any](fill func(chan<- T)) (all []T) {
	ch := make(chan T)
	go func() {
		defer close(ch)
		fill(ch)
	}()
	for x := range ch {
		all = append(all, x)
	}
	return all
}

func unquote(t *testing.T, s string) string {
	t.Helper()
	var out string
	if _, err := fmt.Sscanf(s, "%q", &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// metricsPage is the part of docs/metrics.md that is written by hand, and the heads of its tables.
var metricsPage = []struct{ prefix, head string }{
	{"corfu_client_", "## Clients\n\nOf Go programs: `client.Options.Registerer`, or `prometheus.MustRegister(log.Collector())`.\n"},
	{"corfu_unit_", "## Units\n\nAll have the label `unit`, the unit's number.\n"},
	{"corfu_seq_", "## Sequencers\n"},
	{"corfu_layout_", "## Layout servers\n\n`corfu dev` gives them the label `server` where it runs several.\n"},
	{"corfu_fabric_", "## Fabric\n\nOf units and sequencers. `corfu_rdma_*` come from the kernel's counters in sysfs, by rdmamap: which there are, the driver decides.\n"},
	{"corfu_rdma_", ""},
	{"corfu_tls_", "## Certificates\n\nOf daemons that have some; `corfu_tls_crl_*` of those with `tls.crl`. [security.md](security.md) says what they are for.\n"},
}

const metricsIntro = `# Metrics

Each daemon serves ` + "`/metrics`" + ` on its http port, in the format of Prometheus. [operations.md](operations.md) says what to do when one of them raises an alarm;
` + "`deploy/prometheus`" + ` and ` + "`deploy/grafana`" + ` are made of them. The tables are made from the code (` + "`go test ./tools/corfu -run MetricsPage -write-page`" + `), and a test compares them.

Times are in seconds, sizes in bytes, parts of a whole between 0 and 1. A metric that says "at the leader only" is 0, or absent, at the other layout servers.
Beside these there are those of the Go runtime and the process (` + "`go_*`, `process_*`" + `). What a disk or a device does not tell is absent, not 0.
`

var updatePage = flag.Bool("write-page", false, "write docs/metrics.md anew")

// The page of metrics names all that there are, with what they say of themselves.
func TestMetricsPageIsThatOfTheCode(t *testing.T) {
	if os.Getenv("CORFU_LAB") != "" {
		t.Skip("the same everywhere")
	}
	all := &collected{}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := devcluster.Start(ctx, devcluster.Options{Provider: "tcp", Dir: t.TempDir(), Registerer: all})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	log, err := client.Open(ctx, client.Options{LayoutServers: c.LayoutAddrs(), Provider: "tcp", Registerer: all, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	set := certstest.New(t, "corfu")
	files := set.Files(certs.Unit, "unit-1")
	files.CRL = set.Revoke()
	registerTLS(all, set.Load(files))
	all.MustRegister(&deviceCollector{info: rdma.Info{Provider: "tcp", Name: "tcp"}})

	var page strings.Builder
	page.WriteString(metricsIntro)
	list := all.documented(t)
	shown := 0
	for _, part := range metricsPage {
		if part.head != "" {
			fmt.Fprintf(&page, "\n%s\n| metric | type | labels | |\n|---|---|---|---|\n", part.head)
		}
		for _, m := range list {
			if strings.HasPrefix(m.name, part.prefix) {
				shown++
				fmt.Fprintf(&page, "| `%s` | %s | %s | %s |\n", m.name, m.kind, m.labels, strings.ReplaceAll(m.help, "|", "\\|"))
			}
		}
	}
	if shown != len(list) {
		t.Errorf("%d of %d metrics have no place on the page", len(list)-shown, len(list))
	}
	const file = "../../docs/metrics.md"
	if *updatePage {
		if err := os.WriteFile(file, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if was, err := os.ReadFile(file); err != nil || string(was) != page.String() {
		t.Errorf("docs/metrics.md is not what the code says (%v): go test ./tools/corfu -run MetricsPage -write-page", err)
	}
}

// Names follow the conventions of Prometheus (prometheus.io/docs/practices/naming).
func TestMetricsFollowTheConventions(t *testing.T) {
	b, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| `+"`"+`(corfu_\w+)`+"`"+` \| (\w+) \| (.*?) \| (.*) \|$`).FindAllStringSubmatch(string(b), -1)
	if len(rows) < 80 {
		t.Fatalf("%d metrics", len(rows))
	}
	for _, r := range rows {
		name, kind, help := r[1], r[2], r[4]
		switch {
		case (kind == "counter") != strings.HasSuffix(name, "_total"):
			t.Errorf("%s is a %s: only counters end in _total", name, kind)
		case kind == "histogram" && !strings.HasSuffix(name, "_seconds") && !strings.HasSuffix(name, "_pages"):
			t.Errorf("%s: a histogram names its unit", name)
		case !strings.HasSuffix(help, "."):
			t.Errorf("%s: %q is no sentence", name, help)
		}
	}
}
