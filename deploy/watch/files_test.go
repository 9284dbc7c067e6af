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
	grafanaDir    = "../grafana/dashboards"
	prometheusDir = "../prometheus"
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
		list = append(list, g.Rules...)
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
		if !slices.Equal(asked[a.Alert], []float64{0, 1}) {
			t.Errorf("%s: tests expect %v, want one that fires and one that does not", a.Alert, asked[a.Alert])
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
	for _, args := range [][]string{{"check", "config", "prometheus.yml"}, {"test", "rules", "alerts.test.yml"}} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = prometheusDir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
