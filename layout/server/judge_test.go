package server

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"corfu/layout"
)

func TestJudge(t *testing.T) {
	active := &layout.Layout{Log: layout.LogID{1}, Epoch: 5, Geometry: layout.DefaultGeometry(), Sequencer: layout.Sequencer{ID: 1, Control: "s:1"},
		Units:    []layout.Unit{{ID: 1, Control: "u:1"}, {ID: 2, Control: "v:1"}},
		Segments: []layout.Segment{{Chains: []layout.Chain{{Units: []layout.UnitID{1, 2}}}}}}
	open := report{state: stateOpen, promise: 5, intact: 5}
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
			{name: "sequencer 1", control: "s:1", seq: 1, report: c.seq},
		}
		for _, m := range list {
			m.pulse = pulse{heard: true, failed: m.report.state == stateUnreachable}
		}
		shape := active.Next(5, 0)
		s := &scene{cfg: Config{MinReplicas: 2}, active: c.active, shape: shape, replicas: 2, members: &members{list: list}}
		j := s.judge()
		var activate []string
		for _, m := range j.activate {
			activate = append(activate, m.name)
		}
		if !reflect.DeepEqual(activate, c.activate) || (j.wait != "") != (c.wait != "") || !strings.Contains(j.wait, c.wait) ||
			(j.reconfigure != "") != (c.reconfigure != "") || !strings.Contains(j.reconfigure, c.reconfigure) {
			t.Errorf("%s: activate %v, wait %q, reconfigure %q", c.name, activate, j.wait, j.reconfigure)
		}
		shape.Units[1].Control = "w:1"
		if j := s.judge(); c.name == "all is well" && !strings.Contains(j.reconfigure, "other control addresses") {
			t.Errorf("moved: %+v", j)
		}
	}
}

// TestJudgeMends wants the change that each failure calls for, or to be told why there is none. Chains 1, 2 and 3, 4; spares 5 and 6;
// sequencer 1, standby 2.
func TestJudgeMends(t *testing.T) {
	for _, c := range []struct {
		name              string
		down, closed      []layout.UnitID
		silent            []layout.UnitID // for a moment
		stuck             []layout.UnitID // their flash takes nothing
		min               int
		seqDown, noSpares bool
		noStandby         bool
		falls             map[layout.UnitID]int
		want              layout.Change
		wait, reconfigure string
		hindered          string
		unsure            string
	}{
		{name: "all is well", want: layout.Change{Replicas: 2}},
		{name: "a dead unit, a spare", down: []layout.UnitID{2}, reconfigure: "unit 2", want: layout.Change{Lost: []layout.UnitID{2}, Join: []layout.UnitID{5}, Replicas: 2}},
		{name: "two dead units, two spares", down: []layout.UnitID{2, 3}, reconfigure: "unit 2", want: layout.Change{Lost: []layout.UnitID{2, 3}, Join: []layout.UnitID{5, 6}, Replicas: 2}},
		{name: "no spare: shorter", down: []layout.UnitID{2}, noSpares: true, reconfigure: "unit 2", want: layout.Change{Lost: []layout.UnitID{2}, Replicas: 2}},
		{name: "no spare, and no shorter", down: []layout.UnitID{2}, noSpares: true, min: 2, wait: "a chain would have 1 units, min_replicas is 2"},
		{name: "a whole chain", down: []layout.UnitID{1, 2}, wait: "the only unit of a chain"},
		{name: "a moment's silence", silent: []layout.UnitID{2}, unsure: "unit 2"},
		{name: "one dead, another silent for a moment", down: []layout.UnitID{2}, silent: []layout.UnitID{4}, unsure: "unit 4"},
		{name: "the sequencer", seqDown: true, reconfigure: "sequencer 1", want: layout.Change{Sequencer: 2, Replicas: 2}},
		{name: "the sequencer, and nobody stands by", seqDown: true, noStandby: true, wait: "no standby answers"},
		{name: "the head is dead, the tail restarted: the tail is enough (rule R16)", down: []layout.UnitID{1}, closed: []layout.UnitID{2}, reconfigure: "unit 1",
			want: layout.Change{Lost: []layout.UnitID{1}, Join: []layout.UnitID{5}, Replicas: 2}},
		{name: "the tail is dead, the head restarted: rule R16", down: []layout.UnitID{2}, closed: []layout.UnitID{1}, wait: "rule R16"},
		{name: "one whose flash is stuck", stuck: []layout.UnitID{2}, reconfigure: "unit 2", want: layout.Change{Lost: []layout.UnitID{2}, Join: []layout.UnitID{5}, Replicas: 2}},
		{name: "all of a chain, and one of another, which alone is left out", stuck: []layout.UnitID{1, 2, 3}, reconfigure: "unit 3", hindered: "the only unit of a chain",
			want: layout.Change{Lost: []layout.UnitID{3}, Join: []layout.UnitID{5}, Replicas: 2}},
		{name: "all of a chain", stuck: []layout.UnitID{1, 2}, hindered: "the only unit of a chain", want: layout.Change{Replicas: 2}},
		{name: "one restarted", closed: []layout.UnitID{1}, reconfigure: "unit 1 is closed", want: layout.Change{Replicas: 2}},
		{name: "one restarted again and again", closed: []layout.UnitID{1}, falls: map[layout.UnitID]int{1: 3}, reconfigure: "unit 1 is closed",
			want: layout.Change{Lost: []layout.UnitID{1}, Join: []layout.UnitID{5}, Replicas: 2}},
		{name: "and cannot be spared", closed: []layout.UnitID{1}, falls: map[layout.UnitID]int{1: 3}, noSpares: true, min: 2, reconfigure: "unit 1 is closed",
			want: layout.Change{Replicas: 2}},
		{name: "a spare that falls again and again is passed over", down: []layout.UnitID{2}, falls: map[layout.UnitID]int{5: 3}, reconfigure: "unit 2",
			want: layout.Change{Lost: []layout.UnitID{2}, Join: []layout.UnitID{6}, Replicas: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &layout.Layout{Log: layout.LogID{1}, Epoch: 5, Geometry: layout.DefaultGeometry(), Sequencer: layout.Sequencer{ID: 1, Control: "s"},
				Standbys: []layout.Sequencer{{ID: 2, Control: "s"}},
				Segments: []layout.Segment{{Chains: []layout.Chain{{Units: []layout.UnitID{1, 2}}, {Units: []layout.UnitID{3, 4}}}}}}
			ms := &members{}
			for id := layout.UnitID(1); id <= 6; id++ {
				u := layout.Unit{ID: id, Control: "u"}
				m := &member{name: fmt.Sprint("unit ", id), unit: id, standby: id > 4, pulse: pulse{heard: true, falls: c.falls[id]},
					report: report{state: stateOpen, promise: 5, intact: 5}}
				if m.standby {
					l.Spares, m.report = append(l.Spares, u), report{state: stateClosed}
				} else {
					l.Units = append(l.Units, u)
				}
				if contains(c.down, id) || (c.noSpares && m.standby) {
					m.pulse.failed, m.report = true, report{state: stateUnreachable, err: "gone"}
				}
				if contains(c.closed, id) {
					m.report.state, m.report.intact = stateClosed, 0
				}
				if contains(c.silent, id) {
					m.pulse.missed = 1
				}
				if contains(c.stuck, id) {
					m.refusal = refusal{count: 2, task: taskFlush, err: "no answer"}
				}
				ms.list = append(ms.list, m)
			}
			seq := &member{name: "sequencer 1", seq: 1, pulse: pulse{heard: true, failed: c.seqDown}, report: report{state: stateOpen, promise: 5}}
			standby := &member{name: "sequencer 2", seq: 2, standby: true, pulse: pulse{heard: true}, report: report{state: stateClosed}}
			if c.noStandby {
				standby.report.state = stateUnreachable
			}
			ms.list = append(ms.list, seq, standby)
			s := &scene{cfg: Config{MinReplicas: c.min, FailAfter: 500 * time.Millisecond}, active: l, shape: l.Next(5, 0), replicas: 2, members: ms, now: time.Now()}
			j := s.judge()
			if (c.hindered == "") != (j.hindered == "") || !strings.Contains(j.hindered, c.hindered) || (c.wait == "") != (j.wait == "") || !strings.Contains(j.wait, c.wait) || (c.reconfigure == "") != (j.reconfigure == "") ||
				!strings.Contains(j.reconfigure, c.reconfigure) || j.unsure != c.unsure || (j.wait == "" && j.unsure == "" && !reflect.DeepEqual(j.change, c.want)) {
				t.Errorf("%+v", j)
			}
		})
	}
}

// TestR22OldReportIsNotJudged: unit 2 was reconciled for epoch 5 and has missed the heartbeat since: what it said before shows the note before. It is
// not called a stranger. Once it answers, and shows no other note, it is.
func TestR22OldReportIsNotJudged(t *testing.T) {
	store := layout.StoreID{2}
	base := layout.Record{Epoch: 5, ID: 55, Stores: []layout.MemberStore{{Unit: 2, Store: store}}}
	m := &member{name: "unit 2", unit: 2, pulse: pulse{heard: true, missed: 1}, report: report{state: stateSealed, past: layout.StoreState{Store: store,
		Reconciled: layout.RecordRef{Epoch: 4, ID: 44}}}}
	s := &scene{members: &members{list: []*member{m}}, past: past{base: base}}
	if trust, err := s.trust(m); trust != layout.Trusted || err != nil {
		t.Errorf("a report from before a missed heartbeat: %v, %v; want trusted", trust, err)
	}
	m.pulse.missed = 0
	if trust, err := s.trust(m); trust != layout.Stranger || err == nil {
		t.Errorf("a report of now: %v, %v; want a stranger", trust, err)
	}
}
