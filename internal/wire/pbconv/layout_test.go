package pbconv

import (
	"errors"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"corfu/internal/wire/pb"
	"corfu/layout"
)

func sample() *layout.Layout {
	return &layout.Layout{
		Log: layout.LogID{1, 2, 3}, Epoch: 7, Geometry: layout.DefaultGeometry(), Durability: layout.Memory, Start: 25,
		Sequencer: layout.Sequencer{ID: 4, Control: "seq:1"},
		Units:     []layout.Unit{{ID: 1, Control: "a:1"}, {ID: 2, Control: "b:1"}, {ID: 3, Control: "c:1"}},
		Segments: []layout.Segment{
			{Chains: []layout.Chain{{Units: []layout.UnitID{1, 2}}}},
			{Start: 9, Chains: []layout.Chain{{Base: 9, Units: []layout.UnitID{2, 1}}, {Base: 3, Units: []layout.UnitID{3}}}},
		},
	}
}

func TestLayoutComesBackAsItWent(t *testing.T) {
	b, err := proto.Marshal(Layout(sample()))
	if err != nil {
		t.Fatal(err)
	}
	var m pb.Layout
	if err := proto.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	got, err := ToLayout(&m)
	if err != nil || !reflect.DeepEqual(got, sample()) {
		t.Errorf("%+v, %v; want %+v", got, err, sample())
	}
	m.Log[0] = 99
	if got.Log != sample().Log {
		t.Error("the layout shares memory with the message")
	}
}

func TestLayoutRefusesBadMessages(t *testing.T) {
	for name, spoil := range map[string]func(*pb.Layout){
		"no log":                func(m *pb.Layout) { m.Log = nil },
		"a long log id":         func(m *pb.Layout) { m.Log = make([]byte, 17) },
		"no geometry":           func(m *pb.Layout) { m.Geometry = nil },
		"no sequencer":          func(m *pb.Layout) { m.Sequencer = nil },
		"durability that wraps": func(m *pb.Layout) { m.Durability = 256 },
		"an empty unit":         func(m *pb.Layout) { m.Units[0] = &pb.Unit{} },
		"a nil segment":         func(m *pb.Layout) { m.Segments[0] = nil },
		"a nil chain":           func(m *pb.Layout) { m.Segments[0].Chains[0] = nil },
		"epoch 0":               func(m *pb.Layout) { m.Epoch = 0 },
	} {
		m := Layout(sample())
		spoil(m)
		if _, err := ToLayout(m); !errors.Is(err, ErrBadLayout) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ToLayout(nil); !errors.Is(err, ErrBadLayout) {
		t.Errorf("nil: %v", err)
	}
}

func FuzzToLayout(f *testing.F) {
	b, _ := proto.Marshal(Layout(sample()))
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m pb.Layout
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		l, err := ToLayout(&m)
		if err != nil {
			return
		}
		if again, err := ToLayout(Layout(l)); err != nil || !reflect.DeepEqual(again, l) {
			t.Errorf("%+v came back as %+v, %v", l, again, err)
		}
	})
}
