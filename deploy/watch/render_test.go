package watch

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Pictures of the dashboards, drawn from the answers that the test got, about as Grafana does: to be looked at, since a query that
// gives data may still make a bad panel.

const (
	cell     = 58 // a 24th of the width, in pixels
	line     = 36 // one of Grafana's units of height
	gap      = 8
	fontSize = 12
)

var palette = []string{"#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#fade2a", "#96d98d", "#ff7383"}

var colors = map[string]string{"green": "#37872d", "red": "#c4162a", "orange": "#e0752d", "blue": "#1f60c4"}

// canvas is an SVG in the making.
type canvas struct{ strings.Builder }

func (c *canvas) add(format string, args ...any) { fmt.Fprintf(c, format+"\n", args...) }

func (c *canvas) text(x, y float64, size int, color, anchor, s string) {
	c.add(`<text x="%.1f" y="%.1f" font-size="%d" fill="%s" text-anchor="%s">%s</text>`, x, y, size, color, anchor, html.EscapeString(s))
}

func (c *canvas) box(x, y, w, h float64, color string) {
	c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" rx="2"/>`, x, y, w, h, color)
}

// area is where something is drawn, and what time it spans.
type area struct {
	x, y, w, h float64
	from, to   time.Time
}

func (a area) at(t time.Time) float64 {
	return a.x + a.w*float64(t.Sub(a.from))/float64(a.to.Sub(a.from))
}

// draw writes build/watch/UID.svg, and a PNG beside it.
func draw(t *testing.T, d Dashboard, results map[string][][]series, from, to time.Time) {
	t.Helper()
	c := &canvas{}
	y := 46.0
	for _, r := range d.Rows {
		c.text(gap, y+20, 15, "#ccccdc", "start", "▾ "+r.Title)
		y += 30
		x, tall := 0, 0.0
		for _, p := range r.Panels {
			if x+p.Width > columns {
				x, y, tall = 0, y+tall, 0
			}
			h := float64(panelHeight * line)
			if p.Kind == Number {
				h = numberHeight * line
			}
			c.panel(p, results[p.Title], area{float64(x*cell) + gap, y, float64(p.Width*cell) - gap, h - gap, from, to})
			x, tall = x+p.Width, max(tall, h)
		}
		y += tall
	}
	head := &canvas{}
	head.add(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%.0f" font-family="DejaVu Sans, sans-serif">`, columns*cell+gap, y+gap)
	head.add(`<rect width="100%%" height="100%%" fill="#111217"/>`)
	head.text(gap, 28, 18, "#ffffff", "start", d.Title)
	head.text(columns*cell, 28, fontSize, "#8e8e99", "end", d.Help)
	head.WriteString(c.String())
	head.add(`</svg>`)
	if err := os.MkdirAll(*pictures, 0o755); err != nil {
		t.Fatal(err)
	}
	svg := filepath.Join(*pictures, d.UID+".svg")
	if err := os.WriteFile(svg, []byte(head.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("rsvg-convert", "-o", strings.TrimSuffix(svg, ".svg")+".png", svg).CombinedOutput(); err != nil {
		t.Errorf("rsvg-convert: %v\n%s", err, out)
	}
}

// named is a series with its name.
type named struct {
	name string
	series
}

var labelOf = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

func names(p Panel, results [][]series) (list []named) {
	for i, all := range results {
		for _, s := range all {
			name := labelOf.ReplaceAllStringFunc(p.Queries[i].Legend, func(m string) string { return s.labels[labelOf.FindStringSubmatch(m)[1]] })
			list = append(list, named{name, s})
		}
	}
	return list
}

func (c *canvas) panel(p Panel, results [][]series, a area) {
	c.box(a.x, a.y, a.w, a.h, "#181b1f")
	c.text(a.x+10, a.y+20, 13, "#d8d9da", "start", p.Title)
	list := names(p, results)
	if len(list) == 0 {
		why := "no data"
		if p.Verbs || p.NIC || p.NVMe {
			why = "nothing without the hardware"
		}
		c.text(a.x+a.w/2, a.y+a.h/2+8, fontSize, "#8e8e99", "middle", why)
		return
	}
	inner := area{a.x + 10, a.y + 32, a.w - 20, a.h - 42, a.from, a.to}
	switch p.Kind {
	case Number:
		c.number(p, list[0], inner)
	case Timeline:
		c.timeline(p, list, inner)
	case Heat:
		c.heat(p, list, inner)
	default:
		c.lines(p, list, inner)
	}
}

func (c *canvas) number(p Panel, n named, a area) {
	v := n.points[len(n.points)-1].v
	color := "#1f60c4"
	for i, s := range p.Steps {
		if i == 0 || v >= s.From {
			color = colors[s.Color]
		}
	}
	c.box(a.x, a.y, a.w, a.h, color)
	c.text(a.x+a.w/2, a.y+a.h/2+14, 38, "#ffffff", "middle", shown(v, p.Unit))
}

// nice is the distance of about n marks up to top: 1, 2 or 5 times a power of ten.
func nice(top float64, n float64) float64 {
	step := math.Pow(10, math.Floor(math.Log10(top/n)))
	for _, f := range []float64{1, 2, 5, 10} {
		if top/(step*f) <= n {
			return step * f
		}
	}
	return step * 10
}

func (c *canvas) lines(p Panel, list []named, a area) {
	top := p.Max
	for _, n := range list {
		for _, x := range n.points {
			top = max(top, x.v*1.05)
		}
	}
	if top == 0 {
		top = 1
	}
	longest := 0
	for _, n := range list {
		longest = max(longest, len(n.name))
	}
	perRow := max(1, int(a.w)/(longest*7+30))
	rows := (len(list) + perRow - 1) / perRow
	rows = min(rows, 4)
	plot := area{a.x + 62, a.y, a.w - 66, a.h - 20 - float64(rows)*17, a.from, a.to}
	up := func(v float64) float64 { return plot.y + plot.h*(1-v/top) }
	step := nice(top, 5)
	if p.Unit == "bytes" || p.Unit == "Bps" {
		scale := math.Pow(1024, max(0, math.Floor(math.Log(top)/math.Log(1024))))
		step = nice(top/scale, 5) * scale
	}
	for v := 0.0; v <= top*1.0001; v += step {
		c.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#2c3235"/>`, plot.x, up(v), plot.x+plot.w, up(v))
		c.text(plot.x-6, up(v)+4, 11, "#9fa7b3", "end", shown(v, p.Unit))
	}
	c.times(plot)
	for i, s := range p.Steps {
		if i > 0 && s.From <= top {
			c.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-dasharray="6 4"/>`, plot.x, up(s.From), plot.x+plot.w, up(s.From), colors[s.Color])
		}
	}
	for i, n := range list {
		color := palette[i%len(palette)]
		c.curve(plot, n.points, up, color)
		if row := i / perRow; row < rows {
			x, y := a.x+float64(i%perRow)*a.w/float64(perRow), a.y+a.h-float64(rows-1-row)*17
			c.box(x, y-5, 12, 3, color)
			c.text(x+17, y, 11, "#ccccdc", "start", cmp.Or(n.name, "value"))
		}
	}
}

// curve draws points, and leaves a gap where some are missing.
func (c *canvas) curve(plot area, points []point, up func(float64) float64, color string) {
	var path strings.Builder
	for i, x := range points {
		verb := "L"
		if i == 0 || x.at.Sub(points[i-1].at) > 3*scrapeEvery() {
			verb = "M"
		}
		fmt.Fprintf(&path, "%s%.1f %.1f ", verb, plot.at(x.at), up(x.v))
	}
	c.add(`<path d="%s" fill="none" stroke="%s" stroke-width="1.6"/>`, path.String(), color)
	if len(points) == 1 {
		c.add(`<circle cx="%.1f" cy="%.1f" r="2" fill="%s"/>`, plot.at(points[0].at), up(points[0].v), color)
	}
}

func (c *canvas) times(a area) {
	const marks = 4
	for i := range marks + 1 {
		at := a.from.Add(a.to.Sub(a.from) * time.Duration(i) / marks)
		anchor := []string{"start", "middle", "middle", "middle", "end"}[i]
		c.text(a.at(at), a.y+a.h+15, 10, "#9fa7b3", anchor, at.Format("15:04:05"))
	}
}

func (c *canvas) timeline(p Panel, list []named, a area) {
	slices.SortFunc(list, func(x, y named) int { return strings.Compare(x.name, y.name) })
	plot := area{a.x + 110, a.y, a.w - 114, a.h - 20, a.from, a.to}
	h := min(30, plot.h/float64(len(list)))
	for i, n := range list {
		y := plot.y + float64(i)*h
		c.text(plot.x-8, y+h/2+4, 11, "#ccccdc", "end", n.name)
		for j := 0; j < len(n.points); {
			k := j
			for k+1 < len(n.points) && n.points[k+1].v == n.points[j].v && n.points[k+1].at.Sub(n.points[k].at) <= 3*scrapeEvery() {
				k++
			}
			from, to := plot.at(n.points[j].at), plot.at(n.points[k].at.Add(scrapeEvery()))
			color := colors["green"]
			for s, step := range p.Steps {
				if s == 0 || n.points[j].v >= step.From {
					color = colors[step.Color]
				}
			}
			to = min(to, plot.x+plot.w)
			c.box(from, y+2, to-from, h-4, color)
			if name := p.States[int(n.points[j].v)]; to-from > 50 {
				c.text(from+6, y+h/2+4, 11, "#ffffff", "start", name)
			}
			j = k + 1
		}
	}
	c.times(plot)
}

// heat draws a histogram over time: its buckets are cumulative, each holds those below it, too.
func (c *canvas) heat(p Panel, list []named, a area) {
	bound := func(n named) float64 { v, _ := strconv.ParseFloat(n.labels["le"], 64); return v }
	slices.SortFunc(list, func(x, y named) int { return cmp.Compare(bound(x), bound(y)) })
	type spot struct {
		row int
		at  time.Time
	}
	counts, below := map[spot]float64{}, map[time.Time]float64{}
	most, lowest, highest := 0.0, len(list), 0
	for i, n := range list {
		for _, x := range n.points {
			v := x.v - below[x.at]
			below[x.at] = x.v
			if v > 0.01 {
				counts[spot{i, x.at}] = v
				most, lowest, highest = max(most, v), min(lowest, i), max(highest, i)
			}
		}
	}
	plot := area{a.x + 62, a.y, a.w - 66, a.h - 20, a.from, a.to}
	h := plot.h / float64(max(1, highest-lowest+1))
	for s, v := range counts {
		x := plot.at(s.at)
		w := plot.at(s.at.Add(scrapeEvery())) - x
		c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="#5794f2" fill-opacity="%.2f"/>`, x, plot.y+plot.h-float64(s.row-lowest+1)*h, w, h, 0.15+0.85*v/most)
	}
	for i := lowest; i <= highest; i++ {
		if every := (highest-lowest)/8 + 1; (i-lowest)%every == 0 {
			c.text(plot.x-6, plot.y+plot.h-float64(i-lowest+1)*h+8, 10, "#9fa7b3", "end", shown(bound(list[i]), p.Unit))
		}
	}
	c.times(plot)
}

// shown is a value in a unit of Grafana's.
func shown(v float64, unit string) string {
	scaled := func(steps []float64, names []string) string {
		for i, s := range steps {
			if math.Abs(v) >= s || i == len(steps)-1 {
				return strconv.FormatFloat(v/s, 'g', 3, 64) + names[i]
			}
		}
		return ""
	}
	switch {
	case v == 0:
		return "0"
	case unit == "s":
		return scaled([]float64{1, 1e-3, 1e-6}, []string{" s", " ms", " µs"})
	case unit == "percentunit":
		return strconv.FormatFloat(v*100, 'g', 3, 64) + " %"
	case unit == "Bps":
		return shown(v, "bytes") + "/s"
	case unit == "bytes":
		return scaled([]float64{1 << 40, 1 << 30, 1 << 20, 1 << 10, 1}, []string{" TiB", " GiB", " MiB", " KiB", " B"})
	case unit == "ops" || unit == "pps":
		return scaled([]float64{1e6, 1e3, 1}, []string{"M/s", "k/s", "/s"})
	}
	if v == math.Trunc(v) && math.Abs(v) < 1e5 {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return scaled([]float64{1e9, 1e6, 1e3, 1}, []string{"G", "M", "k", ""})
}
