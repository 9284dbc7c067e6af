package server

import (
	"reflect"
	"strings"
	"testing"

	"corfu/layout"
)

func TestJudge(t *testing.T) {
	active := &layout.Layout{Epoch: 5, Sequencer: layout.Sequencer{ID: 1, Control: "s:1"}, Units: []layout.Unit{{ID: 1, Control: "u:1"}, {ID: 2, Control: "v:1"}}}
	open := report{state: stateOpen, promise: 5}
	missed := report{state: stateSealed, promise: 5, reconciled: true}
	silent := report{state: stateUnreachable, err: "gone"}
	closed := report{state: stateClosed, promise: 5}
	for _, c := range []struct {
		name              string
		active            *layout.Layout
		unit1, unit2, seq report
		activate          []string
		wait, reconfigure string // parts of them; "": none
	}{
		{name: "all is well", active: active, unit1: open, unit2: open, seq: open},
		{name: "nothing yet", unit1: report{state: stateClosed}, unit2: report{state: stateClosed}, seq: report{state: stateClosed}, reconfigure: "bootstrap"},
		{name: "nothing yet, one silent", unit1: silent, unit2: report{state: stateClosed}, seq: report{state: stateClosed}, wait: "unit 1 (u:1): gone"},
		{name: "one silent", active: active, unit1: open, unit2: silent, seq: open, wait: "unit 2"},
		{name: "one silent, one closed", active: active, unit1: closed, unit2: silent, seq: open, wait: "unit 2"},
		{name: "one closed", active: active, unit1: closed, unit2: open, seq: open, reconfigure: "unit 1 is closed at epoch 5, not open at 5"},
		{name: "one missed the activation", active: active, unit1: open, unit2: missed, seq: open, activate: []string{"unit 2"}},
		{name: "the sequencer did", active: active, unit1: open, unit2: open, seq: report{state: stateSealed, promise: 5}, activate: []string{"sequencer 1"}},
		{name: "one missed it, another restarted: activation comes first (rule R16)", active: active, unit1: closed, unit2: missed, seq: open, activate: []string{"unit 2"}},
		{name: "one missed it, another is silent", active: active, unit1: silent, unit2: missed, seq: open, activate: []string{"unit 2"}},
		{name: "sealed and not reconciled", active: active, unit1: report{state: stateSealed, promise: 5}, unit2: open, seq: open, reconfigure: "unit 1 is sealed"},
		{name: "sealed for an epoch that came to nothing", active: active, unit1: report{state: stateSealed, promise: 6, reconciled: true}, unit2: open, seq: open, reconfigure: "sealed at epoch 6"},
		{name: "sealed for an older epoch", active: active, unit1: report{state: stateSealed, promise: 4, reconciled: true}, unit2: open, seq: open, reconfigure: "sealed at epoch 4"},
		{name: "the sequencer restarted", active: active, unit1: open, unit2: open, seq: report{state: stateClosed}, reconfigure: "sequencer 1 is closed"},
	} {
		list := []*member{
			{name: "unit 1", control: "u:1", unit: 1, report: c.unit1},
			{name: "unit 2", control: "v:1", unit: 2, report: c.unit2},
			{name: "sequencer 1", control: "s:1", report: c.seq},
		}
		shape := active.Next(5, 0)
		j := judge(c.active, shape, list)
		var activate []string
		for _, m := range j.activate {
			activate = append(activate, m.name)
		}
		if !reflect.DeepEqual(activate, c.activate) || (j.wait != "") != (c.wait != "") || !strings.Contains(j.wait, c.wait) ||
			(j.reconfigure != "") != (c.reconfigure != "") || !strings.Contains(j.reconfigure, c.reconfigure) {
			t.Errorf("%s: activate %v, wait %q, reconfigure %q", c.name, activate, j.wait, j.reconfigure)
		}
		shape.Units[1].Control = "w:1"
		if j := judge(c.active, shape, list); c.name == "all is well" && !strings.Contains(j.reconfigure, "other control addresses") {
			t.Errorf("moved: %+v", j)
		}
	}
}
