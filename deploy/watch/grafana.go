package watch

import (
	"encoding/json"
	"regexp"
	"strconv"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/heatmap"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

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
	NIC         bool           // nor with Soft-RoCE
	NVMe        bool           // nor without an NVMe disk that tells of its health
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

// schema is that of Grafana 10. Newer ones bring a dashboard to theirs; none brings one back.
const schema = 39

// heights in Grafana's units.
const (
	numberHeight = 4
	panelHeight  = 8
	columns      = 24
)

// ask is the Prometheus that was chosen at the top of the dashboard.
var ask = common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}

// JSON is the dashboard as Grafana takes it. Its schema is that of Grafana's own library, which fills in what Grafana would.
func (d Dashboard) JSON() ([]byte, error) {
	//lint:ignore SA1019 its successor, schema v2, is for Grafana 12 and later alone
	b := dashboard.NewDashboardBuilder(d.Title).Uid(d.UID).Description(d.Help).Tags([]string{"corfu"}).Version(1).
		Refresh("10s").Time("now-30m", "now").Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Link(dashboard.NewDashboardLinkBuilder("corfu").Type(dashboard.DashboardLinkTypeDashboards).Tags([]string{"corfu"}).KeepTime(true).IncludeVars(true)).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Type("prometheus").Label("Prometheus")).
		WithVariable(choiceOfCluster())
	if d.ByUnit {
		b.WithVariable(choiceOfUnits())
	}
	id := uint32(0)
	for _, r := range d.Rows {
		id++
		b.WithRow(dashboard.NewRowBuilder(r.Title).Id(id))
		for _, p := range r.Panels {
			id++
			b.WithPanel(placed{p, id})
		}
	}
	x, err := b.Build()
	if err != nil {
		return nil, err
	}
	x.SchemaVersion = schema
	text, err := json.MarshalIndent(x, "", " ")
	return append(text, '\n'), err
}

// choiceOfCluster returns the variable that names the cluster whose series all panels show. Where targets have no label of that name,
// Grafana chooses the empty string, which selects the series without the label.
func choiceOfCluster() *dashboard.QueryVariableBuilder {
	const query = `label_values({__name__=~"corfu_layout_epoch|corfu_client_epoch"}, cluster)`
	return dashboard.NewQueryVariableBuilder("cluster").Label("Cluster").Datasource(ask).Definition(query).
		Query(dashboard.StringOrMap{Map: map[string]any{"query": query, "refId": "cluster"}}).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortAlphabeticalAsc)
}

// selectors matches strings, which stay as they are, and what selects series: a metric's name, or a set of names.
var selectors = regexp.MustCompile(`"[^"]*"|\bcorfu_\w+\{?|\{__name__`)

// inCluster returns expr with every selector of a corfu metric confined to the chosen cluster.
func inCluster(expr string) string {
	const label = `cluster="$cluster"`
	return selectors.ReplaceAllStringFunc(expr, func(s string) string {
		switch {
		case s[0] == '"':
			return s
		case s[0] == '{':
			return `{` + label + `,__name__`
		case s[len(s)-1] == '{':
			return s + label + `,`
		}
		return s + `{` + label + `}`
	})
}

func choiceOfUnits() *dashboard.QueryVariableBuilder {
	const query = `label_values(corfu_unit_state{cluster="$cluster"}, unit)`
	all := dashboard.VariableOption{Text: dashboard.StringOrArrayOfString{String: cog.ToPtr("All")}, Value: dashboard.StringOrArrayOfString{String: cog.ToPtr("$__all")}}
	return dashboard.NewQueryVariableBuilder("unit").Label("Unit").Datasource(ask).Definition(query).
		Query(dashboard.StringOrMap{Map: map[string]any{"query": query, "refId": "unit"}}).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortNumericalAsc).
		Multi(true).IncludeAll(true).AllValue(".*").Current(all)
}

// placed is a panel with its number; the dashboard's builder finds its place.
type placed struct {
	Panel
	id uint32
}

// Build implements cog.Builder.
func (p placed) Build() (dashboard.Panel, error) {
	x, err := p.kind().Build()
	if err != nil {
		return x, err
	}
	x.Id, x.Title, x.Description, x.Datasource = &p.id, &p.Title, &p.Help, &ask
	x.GridPos = &dashboard.GridPos{W: uint32(p.Width), H: uint32(p.height())}
	defaults := &x.FieldConfig.Defaults
	defaults.Unit, defaults.Thresholds = &p.Unit, p.thresholds()
	if p.Max > 0 {
		defaults.Max = &p.Max
	}
	for i, q := range p.Queries {
		t := prometheus.NewDataqueryBuilder().RefId(string(rune('A' + i))).Expr(q.Expr).LegendFormat(q.Legend).Datasource(ask).Range()
		if p.Kind == Heat {
			t.Format(prometheus.PromQueryFormatHeatmap)
		}
		query, err := t.Build()
		if err != nil {
			return x, err
		}
		x.Targets = append(x.Targets, query)
	}
	return x, nil
}

func (p Panel) height() int {
	if p.Kind == Number {
		return numberHeight
	}
	return panelHeight
}

// kind is what makes a panel of its kind that one.
func (p Panel) kind() cog.Builder[dashboard.Panel] {
	byThreshold := dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdThresholds)
	tooltip := common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending)
	switch p.Kind {
	case Number:
		return stat.NewPanelBuilder().ColorScheme(byThreshold).ColorMode(common.BigValueColorModeBackground).GraphMode(common.BigValueGraphModeArea).
			ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"}))
	case Timeline:
		legend := common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom)
		return statetimeline.NewPanelBuilder().ColorScheme(byThreshold).Mappings(p.states()).Legend(legend).Tooltip(tooltip).RowHeight(0.8)
	case Heat:
		return heatmap.NewPanelBuilder().YAxis(heatmap.NewYAxisConfigBuilder().Unit(p.Unit)).
			Color(heatmap.NewHeatmapColorOptionsBuilder().Mode(heatmap.HeatmapColorModeScheme).Scheme("Spectral").Steps(64)).CellGap(0)
	}
	b := timeseries.NewPanelBuilder().ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdPaletteClassic)).
		Min(0).LineWidth(1).FillOpacity(8).ShowPoints(common.VisibilityModeNever).SpanNulls(common.BoolOrFloat64{Bool: cog.ToPtr(false)}).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom)).
		Tooltip(tooltip)
	if len(p.Steps) > 0 {
		b.ThresholdsStyle(common.NewGraphThresholdsStyleConfigBuilder().Mode(common.GraphThresholdsStyleModeDashed))
	}
	return b
}

func (p Panel) states() []dashboard.ValueMapping {
	m := dashboard.NewValueMap()
	m.Options = map[string]dashboard.ValueMappingResult{}
	for v, name := range p.States {
		m.Options[strconv.Itoa(v)] = dashboard.ValueMappingResult{Text: &name}
	}
	return []dashboard.ValueMapping{{ValueMap: m}}
}

// thresholds: the first one holds below all values, too.
func (p Panel) thresholds() *dashboard.ThresholdsConfig {
	t := &dashboard.ThresholdsConfig{Mode: dashboard.ThresholdsModeAbsolute, Steps: []dashboard.Threshold{{Color: "blue"}}}
	for i, s := range p.Steps {
		if i == 0 {
			t.Steps[0].Color = s.Color
			continue
		}
		t.Steps = append(t.Steps, dashboard.Threshold{Value: &s.From, Color: s.Color})
	}
	return t
}
