package unit

import "corfu/layout"

// maxNotes bounds the trims that a unit remembers. Behind more of them whoever copied a range compares all of it.
const maxNotes = 1 << 16

// notes are the addresses trimmed one by one since the unit was opened last: whoever copied a range meanwhile must hear of them
// (rule R17: trimmed anywhere is trimmed everywhere). In volatile memory: a unit that restarted does not know.
type notes struct {
	since     layout.Epoch // opened in it; 0: not since the start
	addresses map[layout.Address]bool
	lost      bool // there were too many
}

func (n *notes) reset(e layout.Epoch) { *n = notes{since: e, addresses: map[layout.Address]bool{}} }

func (n *notes) add(a layout.Address) {
	switch {
	case n.lost || n.since == 0:
	case len(n.addresses) == maxNotes:
		n.lost, n.addresses = true, nil
	default:
		n.addresses[a] = true
	}
}

// Trims gives the addresses from … to−1 that were trimmed one by one since the unit was opened in epoch e, in no order. known is
// false if it was not opened in e since it started, or there were too many to remember.
func (u *Unit) Trims(e layout.Epoch, from, to layout.Address) (list []layout.Address, known bool) {
	if u.noted.since != e || e == 0 || u.noted.lost {
		return nil, false
	}
	for a := range u.noted.addresses {
		if a >= from && a < to {
			list = append(list, a)
		}
	}
	return list, true
}
