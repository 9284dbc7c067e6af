package server

import (
	"fmt"
	"strings"

	"corfu/layout"
)

// judgement says what the manager has to do, given what the members report. At most one field is set; none: all is well.
type judgement struct {
	wait        string    // for a member that does not answer, or must not be used
	activate    []*member // missed the activation of the epoch that is ACTIVE
	reconfigure string    // why a new epoch is needed
}

// judge looks at the members of shape. active is nil before the first epoch.
//
// Activation comes before reconfiguration: a unit that was reconciled for the active epoch and is opened counts as intact (rule R16) when
// the next one is sealed for the sake of another member.
func judge(active, shape *layout.Layout, list []*member) judgement {
	var j judgement
	var silent, broken []string
	for _, m := range list {
		r := m.report
		ready := active != nil && r.promise == active.Epoch
		switch {
		case r.state == stateUnreachable:
			silent = append(silent, fmt.Sprintf("%s (%s): %s", m.name, m.control, r.err))
		case ready && r.state == stateOpen:
		case ready && r.state == stateSealed && (r.reconciled || m.unit == 0):
			j.activate = append(j.activate, m)
		case active != nil:
			broken = append(broken, fmt.Sprintf("%s is %s at epoch %d, not open at %d", m.name, r.state, r.promise, active.Epoch))
		}
	}
	switch {
	case len(j.activate) > 0:
	case len(silent) > 0:
		// To go on without it is the business of a later issue: drop it, replace it.
		j.wait = strings.Join(silent, "; ")
	case active == nil:
		j.reconfigure = "bootstrap: the log has no active epoch"
	case len(broken) > 0:
		j.reconfigure = strings.Join(broken, "; ")
	case moved(active, shape):
		j.reconfigure = "members have other control addresses than the active layout says"
	}
	return j
}

// moved tells whether control addresses differ between two layouts of the same members.
func moved(a, b *layout.Layout) bool {
	if a.Sequencer != b.Sequencer || len(a.Units) != len(b.Units) {
		return true
	}
	for i := range a.Units {
		if a.Units[i] != b.Units[i] {
			return true
		}
	}
	return false
}

// moveTo gives l the control addresses that b names for members with the same ids.
func moveTo(l, b *layout.Layout) {
	if b == nil {
		return
	}
	if b.Sequencer.ID == l.Sequencer.ID && b.Sequencer.Control != "" {
		l.Sequencer.Control = b.Sequencer.Control
	}
	for i, u := range l.Units {
		if v, ok := b.Unit(u.ID); ok && v.Control != "" {
			l.Units[i] = v
		}
	}
}
