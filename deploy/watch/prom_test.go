package watch

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scrapeEvery is the scrape interval here. In the lab nine processes answer on two emulated processors: half a second is too short for it.
func scrapeEvery() time.Duration {
	if *provider == "verbs" {
		return 5 * time.Second
	}
	return 500 * time.Millisecond
}

// rateOver is what rates look over, as Grafana's $__rate_interval: four scrapes at least.
func rateOver() time.Duration { return 6 * scrapeEvery() }

// prom is a Prometheus.
type prom struct {
	t    *testing.T
	base string
}

// series is one line of a panel.
type series struct {
	labels map[string]string
	points []point
}

type point struct {
	at time.Time
	v  float64
}

// get asks the HTTP API and decodes what it says under "data".
func (p *prom) get(path string, q url.Values, into any) error {
	r, err := http.Get(p.base + path + "?" + q.Encode())
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, r.Status, b)
	}
	return json.Unmarshal(b, &struct{ Data any }{into})
}

// clusterName is the label of the live cluster's targets.
const clusterName = "live"

// substituted is a query with Grafana's variables filled in.
func substituted(expr string) string {
	return strings.NewReplacer("$__rate_interval", rateOver().String(), "$unit", ".*", "$cluster", clusterName).Replace(expr)
}

// over asks for the values of a query in a span, without what is no number.
func (p *prom) over(expr string, from, to time.Time) (list []series) {
	p.t.Helper()
	stamp := func(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1e3, 'f', 3, 64) }
	var data struct {
		Result []struct {
			Metric map[string]string
			Values [][2]any
		}
	}
	err := p.get("/api/v1/query_range", url.Values{"query": {substituted(expr)}, "start": {stamp(from)}, "end": {stamp(to)}, "step": {scrapeEvery().String()}}, &data)
	if err != nil {
		p.t.Errorf("%s: %v", expr, err)
		return nil
	}
	for _, r := range data.Result {
		s := series{labels: r.Metric}
		for _, v := range r.Values {
			at, _ := v[0].(float64)
			text, _ := v[1].(string)
			if x, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(x) && !math.IsInf(x, 0) {
				s.points = append(s.points, point{time.UnixMilli(int64(at * 1e3)), x})
			}
		}
		if len(s.points) > 0 {
			list = append(list, s)
		}
	}
	return list
}

// now gives the value of a query that has one; ok is false if there is none.
func (p *prom) now(expr string) (v float64, ok bool) {
	list := p.over(expr, time.Now(), time.Now())
	if len(list) == 0 {
		return 0, false
	}
	return list[0].points[len(list[0].points)-1].v, true
}

// until waits until a query's value is as wanted.
func (p *prom) until(what, expr string, ok func(float64) bool) {
	p.t.Helper()
	last, there := 0.0, false
	begin, said := time.Now(), time.Now()
	for end := begin.Add(patience()); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			p.t.Logf("%s: for %.0f s, %v now", what, time.Since(begin).Seconds(), last)
		}
		if last, there = p.now(expr); there && ok(last) {
			return
		}
	}
	p.t.Fatalf("%s: %s is %v (there: %v) after all the time there is", what, expr, last, there)
}

// ready waits until Prometheus answers, and has scraped all targets.
func (p *prom) ready(targets int) {
	p.t.Helper()
	for end := time.Now().Add(patience()); ; time.Sleep(100 * time.Millisecond) {
		r, err := http.Get(p.base + "/-/ready")
		if err == nil {
			_ = r.Body.Close()
			if r.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(end) {
			p.t.Fatalf("prometheus is not ready after all the time there is: %v", err)
		}
	}
	p.until("targets", `sum(up)`, func(v float64) bool { return int(v) == targets })
}

// rulesAreSound fails if a rule could not be evaluated.
func (p *prom) rulesAreSound() {
	p.t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError, State string }
		}
	}
	if err := p.get("/api/v1/rules", nil, &data); err != nil {
		p.t.Fatal(err)
	}
	n := 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			if n++; r.Health != "ok" {
				p.t.Errorf("rule %s: %s %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if n < 30 {
		p.t.Errorf("%d rules", n)
	}
}
