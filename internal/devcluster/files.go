package devcluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"corfu/internal/control"
	"corfu/layout"
)

// shape is what a cluster cannot change once it was made.
type shape struct {
	Chains     int               `yaml:"chains"`
	Replicas   int               `yaml:"replicas"`
	Geometry   layout.Geometry   `yaml:"geometry"`
	Durability layout.Durability `yaml:"durability"`

	LayoutServers int `yaml:"layout_servers,omitempty"` // 0 stands for 1 in records of older builds
}

// record is cluster.yaml. The first layout names the control addresses, so they must be the same at every start.
type record struct {
	Shape     shape    `yaml:"shape"`
	Layout    string   `yaml:"layout"`            // control address of the first layout server
	Layouts   []peer   `yaml:"layouts,omitempty"` // of several layout servers; server i+1
	Sequencer string   `yaml:"sequencer"`
	Units     []string `yaml:"units"`              // unit i+1
	Spares    []string `yaml:"spares,omitempty"`   // the units behind
	Standbys  []string `yaml:"standbys,omitempty"` // sequencer i+2
}

type peer struct {
	Control string `yaml:"control"`
	Raft    string `yaml:"raft"`
}

const recordName = "cluster.yaml"

// ErrShape: the directory holds a cluster of another shape. Use its shape, or another directory.
var ErrShape = errors.New("the directory holds a cluster of another shape")

// load gives the record of the directory, or that of a new cluster, with the ports still open.
func load(o Options) (r record, fresh bool, err error) {
	b, err := os.ReadFile(filepath.Join(o.Dir, recordName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r = newRecord(o)
		return r, true, r.Shape.validate()
	case err != nil:
		return r, false, err
	}
	if err := yaml.Unmarshal(b, &r); err != nil {
		return r, false, fmt.Errorf("%s: %w", filepath.Join(o.Dir, recordName), err)
	}
	if len(r.Units) != r.Shape.Chains*r.Shape.Replicas {
		return r, false, fmt.Errorf("%s: %d units for %d chains of %d", filepath.Join(o.Dir, recordName), len(r.Units), r.Shape.Chains, r.Shape.Replicas)
	}
	r.Shape.LayoutServers = max(1, r.Shape.LayoutServers)
	if n := len(r.Layouts); n != 0 && n != r.Shape.LayoutServers {
		return r, false, fmt.Errorf("%s: addresses of %d layout servers, not %d", filepath.Join(o.Dir, recordName), n, r.Shape.LayoutServers)
	}
	if o.Control != "" {
		r.Layout = o.Control // no layout names it: clients are told
		if len(r.Layouts) > 0 {
			r.Layouts[0].Control = o.Control
		}
	}
	return r, false, r.Shape.agrees(o)
}

func newRecord(o Options) record {
	s := shape{o.Chains, o.Replicas, o.Geometry, o.Durability, max(1, o.LayoutServers)}
	if s.Chains == 0 {
		s.Chains = 2
	}
	if s.Replicas == 0 {
		s.Replicas = 2
	}
	if s.Geometry == (layout.Geometry{}) {
		s.Geometry = layout.DefaultGeometry()
	}
	r := record{Shape: s, Layout: o.Control, Sequencer: control.FreePort}
	if r.Layout == "" {
		r.Layout = control.FreePort
	}
	for range max(0, s.Chains*s.Replicas) {
		r.Units = append(r.Units, control.FreePort)
	}
	for range max(0, o.Spares) {
		r.Spares = append(r.Spares, control.FreePort)
	}
	for range max(0, o.Standbys) {
		r.Standbys = append(r.Standbys, control.FreePort)
	}
	return r
}

// unit gives the address of unit i+1, to be changed.
func (r *record) unit(i int) *string {
	if i < len(r.Units) {
		return &r.Units[i]
	}
	return &r.Spares[i-len(r.Units)]
}

// sequencer gives the address of sequencer i+1, to be changed.
func (r *record) sequencer(i int) *string {
	if i == 0 {
		return &r.Sequencer
	}
	return &r.Standbys[i-1]
}

// agrees refuses options that ask for another shape than the directory has.
func (s shape) agrees(o Options) error {
	switch {
	case o.LayoutServers != 0 && o.LayoutServers != s.LayoutServers:
		return fmt.Errorf("%w: %d layout servers, not %d", ErrShape, s.LayoutServers, o.LayoutServers)
	case o.Chains != 0 && o.Chains != s.Chains:
		return fmt.Errorf("%w: %d chains, not %d", ErrShape, s.Chains, o.Chains)
	case o.Replicas != 0 && o.Replicas != s.Replicas:
		return fmt.Errorf("%w: %d replicas, not %d", ErrShape, s.Replicas, o.Replicas)
	case o.Geometry != (layout.Geometry{}) && o.Geometry != s.Geometry:
		return fmt.Errorf("%w: geometry %+v, not %+v", ErrShape, s.Geometry, o.Geometry)
	case o.Durability != layout.Flash && o.Durability != s.Durability:
		return fmt.Errorf("%w: durability %v, not %v", ErrShape, s.Durability, o.Durability)
	}
	return nil
}

// save replaces the record in one step.
func (r record) save(dir string) error {
	b, err := yaml.Marshal(r)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, recordName+".tmp")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, recordName))
}

// template is the first layout, before the layout server gives it an epoch and a log id.
func (r record) template() *layout.Layout {
	l := &layout.Layout{
		Geometry: r.Shape.Geometry, Durability: r.Shape.Durability,
		Sequencer: layout.Sequencer{ID: 1, Control: r.Sequencer},
	}
	for i, control := range r.Units {
		l.Units = append(l.Units, layout.Unit{ID: layout.UnitID(i + 1), Control: control})
	}
	for i, control := range r.Spares {
		l.Spares = append(l.Spares, layout.Unit{ID: layout.UnitID(len(r.Units) + i + 1), Control: control})
	}
	for i, control := range r.Standbys {
		l.Standbys = append(l.Standbys, layout.Sequencer{ID: layout.SequencerID(i + 2), Control: control})
	}
	s := layout.Segment{}
	for c := range r.Shape.Chains {
		var chain layout.Chain
		for k := range r.Shape.Replicas {
			chain.Units = append(chain.Units, layout.UnitID(c*r.Shape.Replicas+k+1))
		}
		s.Chains = append(s.Chains, chain)
	}
	l.Segments = []layout.Segment{s}
	return l
}
