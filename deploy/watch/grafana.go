package watch

import "encoding/json"

// Dashboard is a dashboard of Grafana, as far as these use it.
type Dashboard struct {
	UID, Title string
	Help       string // what it is for, in a sentence
	ByUnit     bool   // it has a choice of units
	Rows       []Row
}

// Row is a group of panels under a heading.
type Row struct {
	Title  string
	Panels []Panel
}

// Panel shows the answer to the question that is its title.
type Panel struct {
	Title, Help string
	Kind        Kind
	Unit        string // of Grafana: s, bytes, percentunit, short, ops …
	Width       int    // of 24
	Queries     []Query
	Steps       []Step         // colours from values on; the first is below all
	States      map[int]string // names of values, of Timeline
	Max         float64        // of the axis; 0: what there is
	Verbs       bool           // there is nothing to show without an RDMA device
	NVMe        bool           // nor without an NVMe disk that tells of its health
	Stacked     bool
}

// Kind of a panel.
type Kind string

// What is used of Grafana.
const (
	Lines    Kind = "timeseries"
	Number   Kind = "stat"
	Timeline Kind = "state-timeline"
	Heat     Kind = "heatmap"
)

// Query is one query, and the name of what it gives.
type Query struct{ Expr, Legend string }

// Step is a colour from a value on.
type Step struct {
	From  float64
	Color string
}

// object is JSON.
type object = map[string]any

// heights in Grafana's units.
const (
	rowHeight    = 1
	numberHeight = 4
	panelHeight  = 8
	columns      = 24
)

var datasource = object{"type": "prometheus", "uid": "${datasource}"}

// JSON is the dashboard as Grafana takes it (schema 39, Grafana 10 and later).
func (d Dashboard) JSON() ([]byte, error) {
	var panels []object
	id, y := 0, 0
	for _, r := range d.Rows {
		id++
		panels = append(panels, object{"id": id, "type": "row", "title": r.Title, "collapsed": false, "panels": []any{},
			"gridPos": object{"x": 0, "y": y, "w": columns, "h": rowHeight}})
		y += rowHeight
		x, tall := 0, 0
		for _, p := range r.Panels {
			if x+p.Width > columns {
				x, y, tall = 0, y+tall, 0
			}
			id++
			h := panelHeight
			if p.Kind == Number {
				h = numberHeight
			}
			j := p.json()
			j["id"], j["gridPos"] = id, object{"x": x, "y": y, "w": p.Width, "h": h}
			panels = append(panels, j)
			x, tall = x+p.Width, max(tall, h)
		}
		y += tall
	}
	b, err := json.MarshalIndent(object{
		"uid": d.UID, "title": d.Title, "description": d.Help, "tags": []string{"corfu"}, "schemaVersion": 39, "version": 1, "editable": true,
		"timezone": "browser", "refresh": "10s", "time": object{"from": "now-30m", "to": "now"}, "graphTooltip": 1,
		"templating": object{"list": d.variables()}, "panels": panels,
		"links": []object{{"type": "dashboards", "tags": []string{"corfu"}, "title": "corfu", "asDropdown": false, "includeVars": false, "keepTime": true}},
	}, "", " ")
	return append(b, '\n'), err
}

func (d Dashboard) variables() []object {
	list := []object{{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus", "hide": 0}}
	if d.ByUnit {
		list = append(list, object{"name": "unit", "type": "query", "label": "Unit", "datasource": datasource,
			"query":      object{"query": "label_values(corfu_unit_state, unit)", "refId": "unit"},
			"definition": "label_values(corfu_unit_state, unit)", "refresh": 2, "multi": true, "includeAll": true, "allValue": ".*", "sort": 3,
			"current": object{"text": "All", "value": "$__all"}})
	}
	return list
}

func (p Panel) json() object {
	var targets []object
	for i, q := range p.Queries {
		t := object{"refId": string(rune('A' + i)), "expr": q.Expr, "legendFormat": q.Legend, "datasource": datasource, "range": true}
		if p.Kind == Heat {
			t["format"] = "heatmap"
		}
		targets = append(targets, t)
	}
	defaults := object{"unit": p.Unit, "thresholds": object{"mode": "absolute", "steps": p.steps()}, "color": object{"mode": "palette-classic"}}
	if p.Max > 0 {
		defaults["max"] = p.Max
	}
	j := object{"type": string(p.Kind), "title": p.Title, "description": p.Help, "datasource": datasource, "targets": targets,
		"fieldConfig": object{"defaults": defaults, "overrides": []any{}}}
	switch p.Kind {
	case Number:
		defaults["color"] = object{"mode": "thresholds"}
		j["options"] = object{"reduceOptions": object{"calcs": []string{"lastNotNull"}}, "colorMode": "background", "graphMode": "area", "textMode": "auto"}
	case Lines:
		defaults["min"] = 0
		custom := object{"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": false}
		if p.Stacked {
			custom["stacking"], custom["fillOpacity"] = object{"mode": "normal"}, 30
		}
		if len(p.Steps) > 0 {
			custom["thresholdsStyle"] = object{"mode": "dashed"}
		}
		defaults["custom"] = custom
		j["options"] = object{"legend": object{"displayMode": "list", "placement": "bottom"}, "tooltip": object{"mode": "multi", "sort": "desc"}}
	case Timeline:
		defaults["color"] = object{"mode": "thresholds"}
		names := object{}
		for v, name := range p.States {
			names[number(float64(v))] = object{"text": name}
		}
		defaults["mappings"] = []object{{"type": "value", "options": names}}
		j["options"] = object{"mergeValues": true, "showValue": "auto", "rowHeight": 0.8}
	case Heat:
		j["options"] = object{"calculate": false, "yAxis": object{"unit": p.Unit}, "color": object{"scheme": "Spectral", "mode": "scheme"}, "cellGap": 0}
	}
	return j
}

func (p Panel) steps() []object {
	if len(p.Steps) == 0 {
		return []object{{"color": "blue", "value": nil}}
	}
	list := []object{{"color": p.Steps[0].Color, "value": nil}}
	for _, s := range p.Steps[1:] {
		list = append(list, object{"color": s.Color, "value": s.From})
	}
	return list
}

func number(v float64) string {
	b, _ := json.Marshal(v) // a finite number never fails
	return string(b)
}
