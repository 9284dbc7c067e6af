package watch

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"go.yaml.in/yaml/v3"
)

var (
	update   = flag.Bool("update", false, "write deploy/grafana/dashboards anew")
	live     = flag.Bool("live", false, "run what needs Debian's prometheus and librsvg2-bin, and a cluster of processes; nothing of it is skipped then")
	provider = flag.String("provider", "tcp", "fabric provider of the cluster: with verbs, the panels of the RDMA device must show something, too")
	program  = flag.String("corfu", "", "the corfu to run; default: it is built")
	pictures = flag.String("pictures", "../../build/watch", "where the pictures go")
)

// patience is how long things may take: the lab is some 30 times slower.
func patience() time.Duration {
	if *provider == "verbs" {
		return 5 * time.Minute
	}
	return time.Minute
}

const (
	grafanaDir      = "../grafana/dashboards"
	provisioningDir = "../grafana/provisioning"
	prometheusDir   = "../prometheus"
)

func TestDashboardFilesAreThoseOfTheCode(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range Dashboards() {
		want, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(grafanaDir, d.UID+".json")
		seen[filepath.Base(file)] = true
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code says (%v): go test ./deploy/watch -run Files -update", file, err)
		}
	}
	files, err := os.ReadDir(grafanaDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !seen[f.Name()] {
			t.Errorf("%s: no dashboard of that name", f.Name())
		}
	}
}

// Grafana takes the files: no field that it does not know or that has another type there, none missing, no value out of its range. Nothing but
// Grafana's own library knows the schema.
func TestDashboardFilesAreOfGrafanasSchema(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	for _, d := range Dashboards() {
		b, err := os.ReadFile(filepath.Join(grafanaDir, d.UID+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := strict(b); len(err) > 0 {
			t.Errorf("%s: %v", d.UID, err)
		}
		for what, spoil := range map[string][2]string{
			"an unknown field":  {`"tags"`, `"togs"`},
			"a wrong type":      {`"editable": true`, `"editable": "yes"`},
			"a missing option":  {`"legend": {`, `"legends": {`},
			"a query that asks": {`"expr"`, `"exp"`},
		} {
			if spoilt := strings.Replace(string(b), spoil[0], spoil[1], 1); spoilt == string(b) || len(strict([]byte(spoilt))) == 0 {
				t.Errorf("%s: %s is not found", d.UID, what)
			}
		}
	}
}

// strict is what Grafana's library has against a dashboard. Its decoder returns its list of errors even where that is empty.
func strict(b []byte) (errs cog.BuildErrors) {
	var x dashboard.Dashboard //lint:ignore SA1019 see Dashboard.JSON
	for _, err := range []error{x.UnmarshalJSONStrict(b), x.Validate()} {
		if err != nil {
			errs = append(errs, cog.MakeBuildErrors("dashboard", err)...)
		}
	}
	return errs
}

// provisioned is what Grafana reads from /etc/grafana/provisioning, all of it that these files use.
type provisioned struct {
	APIVersion int `yaml:"apiVersion"`
	Providers  []struct {
		Name, Folder, Type string
		AllowUIUpdates     bool `yaml:"allowUiUpdates"`
		Options            struct{ Path string }
	}
	Datasources []struct {
		Name, UID, Type, Access, URL string
		IsDefault                    bool `yaml:"isDefault"`
		JSONData                     struct {
			TimeInterval string `yaml:"timeInterval"`
		} `yaml:"jsonData"`
	}
}

// Grafana finds the dashboards where docs/operations.md has them copied to, and asks a Prometheus as often as that looks.
func TestProvisioningFilesFitTheManual(t *testing.T) {
	var p provisioned
	for _, f := range []string{"dashboards", "datasources"} {
		b, err := os.ReadFile(filepath.Join(provisioningDir, f, "corfu.yml"))
		if err != nil {
			t.Fatal(err)
		}
		d := yaml.NewDecoder(bytes.NewReader(b))
		d.KnownFields(true)
		if err := d.Decode(&p); err != nil || p.APIVersion != 1 {
			t.Fatalf("%s: version %d, %v", f, p.APIVersion, err)
		}
	}
	if len(p.Providers) != 1 || len(p.Datasources) != 1 {
		t.Fatalf("%+v", p)
	}
	manual, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/etc/grafana/provisioning", p.Providers[0].Options.Path} {
		if !strings.Contains(string(manual), path) {
			t.Errorf("docs/operations.md does not name %s", path)
		}
	}
	if x := p.Providers[0]; x.Type != "file" || x.Name == "" || x.Folder == "" {
		t.Errorf("%+v", x)
	}
	var scrape struct {
		Global struct {
			Interval string `yaml:"scrape_interval"`
		}
	}
	readYAML(t, filepath.Join(prometheusDir, "prometheus.yml"), &scrape)
	if x := p.Datasources[0]; x.Type != "prometheus" || x.Access != "proxy" || x.UID == "" || x.URL == "" || x.JSONData.TimeInterval != scrape.Global.Interval {
		t.Errorf("%+v, Prometheus looks every %s", x, scrape.Global.Interval)
	}
}

// A panel asks a question, says what the answer means, and has a unit and a place.
func TestPanelsExplainThemselves(t *testing.T) {
	for _, d := range Dashboards() {
		titles := map[string]bool{}
		for _, r := range d.Rows {
			if !strings.HasSuffix(r.Title, "?") {
				t.Errorf("%s: row %q asks nothing", d.UID, r.Title)
			}
			for _, p := range r.Panels {
				if !strings.HasSuffix(p.Title, "?") || p.Help == "" || p.Unit == "" || p.Width < 4 || p.Width > columns || len(p.Queries) == 0 || titles[p.Title] {
					t.Errorf("%s: panel %+v", d.UID, p)
				}
				titles[p.Title] = true
			}
		}
	}
}

type alert struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) (list []alert) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	readYAML(t, filepath.Join(prometheusDir, "rules/alerts.yml"), &file)
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert != "" { // the others record what alerts ask for
				list = append(list, r)
			}
		}
	}
	if len(list) < 20 {
		t.Fatalf("%d alerts", len(list))
	}
	return list
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Every alert has a test in which it fires and one in which it does not, words for whoever is woken, and a paragraph that says what to do.
func TestEveryAlertIsTestedAndExplained(t *testing.T) {
	var tests struct {
		Tests []struct {
			Promql []struct {
				Expr    string
				Samples []struct{ Value float64 } `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		}
	}
	readYAML(t, filepath.Join(prometheusDir, "alerts.test.yml"), &tests)
	asked := map[string][]float64{}
	name := regexp.MustCompile(`^count\(ALERTS\{alertname="(\w+)",alertstate="firing"\}\) or vector\(0\)$`)
	for _, x := range tests.Tests {
		for _, q := range x.Promql {
			f := name.FindStringSubmatch(q.Expr)
			if f == nil || len(q.Samples) != 1 {
				t.Fatalf("cannot read %+v", q)
			}
			asked[f[1]] = append(asked[f[1]], q.Samples[0].Value)
		}
	}
	manual, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts(t) {
		slices.Sort(asked[a.Alert])
		if !slices.Equal(slices.Compact(asked[a.Alert]), []float64{0, 1}) {
			t.Errorf("%s: tests expect %v, want one at least that fires, and one that does not", a.Alert, asked[a.Alert])
		}
		if s := a.Labels["severity"]; s != "page" && s != "ticket" {
			t.Errorf("%s: severity %q", a.Alert, s)
		}
		if a.Annotations["summary"] == "" || a.Annotations["description"] == "" || a.Annotations["runbook_url"] != "docs/operations.md#"+strings.ToLower(a.Alert) {
			t.Errorf("%s: %v", a.Alert, a.Annotations)
		}
		_, body, _ := strings.Cut(string(manual), "\n### "+a.Alert+"\n")
		if body, _, _ = strings.Cut(body, "\n#"); len(strings.TrimSpace(body)) < 100 {
			t.Errorf("docs/operations.md says too little on %s: %q", a.Alert, body)
		}
	}
}

// What dashboards and rules ask for is there: docs/metrics.md, which is compared with the code.
func TestQueriesNameMetricsThatThereAre(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(corfu_\\w+)` \\| (\\w+) ").FindAllStringSubmatch(string(page), -1) {
		known[m[1]] = true
		if m[2] == "histogram" {
			known[m[1]+"_bucket"], known[m[1]+"_sum"], known[m[1]+"_count"] = true, true, true
		}
	}
	var asked []string
	for _, d := range Dashboards() {
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				for _, q := range p.Queries {
					asked = append(asked, q.Expr)
				}
			}
		}
	}
	for _, f := range []string{"alerts.yml", "recording.yml"} {
		b, err := os.ReadFile(filepath.Join(prometheusDir, "rules", f))
		if err != nil {
			t.Fatal(err)
		}
		asked = append(asked, string(b))
	}
	n := 0
	for _, m := range regexp.MustCompile(`\bcorfu_[a-z_0-9]+`).FindAllString(strings.Join(asked, "\n"), -1) {
		if n++; !known[m] && m != "corfu_" {
			t.Errorf("%s is not in docs/metrics.md", m)
		}
	}
	if n < 100 {
		t.Fatalf("%d names", n)
	}
}

// Each alert fires when it should, and not when it should not.
func TestAlertsByPromtool(t *testing.T) {
	if !*live {
		t.Skip("needs -live: make test-watch")
	}
	t.Parallel()
	for _, args := range [][]string{{"check", "config", "prometheus.yml"}, {"test", "rules", "alerts.test.yml", "clusters.test.yml"}} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = prometheusDir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// Rules keep clusters apart: whatever sums series up, or joins them, does so for each cluster, and none depends on what a job is called,
// but for targets that have never answered.
func TestRulesKeepClustersApart(t *testing.T) {
	var file struct {
		Groups []struct {
			Rules []struct{ Record, Alert, Expr string }
		}
	}
	grouped := regexp.MustCompile(`\b(sum|max|min|avg|count|group|topk|bottomk|quantile) ?(by \(([^)]*)\))? ?\(`)
	joined := regexp.MustCompile(`\b(on|ignoring|without) ?\(([^)]*)\)`)
	n := 0
	for _, name := range []string{"alerts.yml", "recording.yml"} {
		readYAML(t, filepath.Join(prometheusDir, "rules", name), &file)
		for _, g := range file.Groups {
			for _, r := range g.Rules {
				for _, m := range grouped.FindAllStringSubmatch(r.Expr, -1) {
					if n++; !slices.Contains(strings.Split(m[3], ", "), "cluster") {
						t.Errorf("%s%s: %q mixes clusters", r.Record, r.Alert, m[0])
					}
				}
				for _, m := range joined.FindAllStringSubmatch(r.Expr, -1) {
					if n++; (m[1] == "on") != slices.Contains(strings.Split(m[2], ", "), "cluster") {
						t.Errorf("%s%s: %q joins series of different clusters", r.Record, r.Alert, m[0])
					}
				}
				if strings.Contains(r.Expr, `job="`) {
					t.Errorf("%s%s depends on the name of a job: %s", r.Record, r.Alert, r.Expr)
				}
			}
		}
	}
	if n < 30 {
		t.Fatalf("only %d groupings were found", n)
	}
}

// Every selector of a panel asks for the chosen cluster alone.
func TestPanelsShowOneCluster(t *testing.T) {
	for _, x := range [][2]string{
		{`sum(corfu_a)`, `sum(corfu_a{cluster="$cluster"})`},
		{`rate(corfu_a{b=~"corfu_b|{"}[5m]) / corfu_c > 0`, `rate(corfu_a{cluster="$cluster",b=~"corfu_b|{"}[5m]) / corfu_c{cluster="$cluster"} > 0`},
		{`sum({__name__=~"corfu_a|corfu_b"})`, `sum({cluster="$cluster",__name__=~"corfu_a|corfu_b"})`},
	} {
		if got := inCluster(x[0]); got != x[1] {
			t.Errorf("inCluster(%s) is %s, want %s", x[0], got, x[1])
		}
	}
	for _, d := range Dashboards() {
		for _, r := range d.Rows {
			for _, p := range r.Panels {
				for _, q := range p.Queries {
					if !strings.Contains(q.Expr, `cluster="$cluster"`) {
						t.Errorf("%s, %q: %s shows all clusters", d.UID, p.Title, q.Expr)
					}
				}
			}
		}
	}
}
