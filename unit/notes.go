package unit

import "corfu/layout"

// maxNotes bounds the trims that a unit remembers. Behind more of them whoever copied a range compares all of it.
const maxNotes = 1 << 16

// notes are the addresses trimmed one by one, and in which epoch: whoever copied a range meanwhile must hear of them
// (rule R17: trimmed anywhere is trimmed everywhere; docs/model, R17-copy). They outlive an epoch, since a copy does. In volatile memory: a
// unit that restarted does not know.
type notes struct {
	since     layout.Epoch // all trims since this epoch was opened are here; 0: not opened since the start
	addresses map[layout.Address]layout.Epoch
	lost      bool // there were too many
}

// open notes that the unit opens epoch e.
func (n *notes) open(e layout.Epoch) {
	if n.since == 0 || n.lost {
		*n = notes{since: e, addresses: map[layout.Address]layout.Epoch{}}
	}
}

func (n *notes) add(a layout.Address, e layout.Epoch) {
	if n.lost || n.since == 0 {
		return
	}
	if len(n.addresses) == maxNotes {
		n.forgetBefore(e)
	}
	if n.lost = len(n.addresses) == maxNotes; n.lost {
		n.addresses = nil
		return
	}
	n.addresses[a] = e
}

// forgetBefore makes room: copies that began before e are compared anew.
func (n *notes) forgetBefore(e layout.Epoch) {
	for a, x := range n.addresses {
		if x < e {
			delete(n.addresses, a)
		}
	}
	n.since = max(n.since, e)
}

// NoteTrim notes a trim that the unit was told of when it was reconciled for epoch e: somebody may have copied the address from it.
func (u *Unit) NoteTrim(a layout.Address, e layout.Epoch) { u.noted.add(a, e) }

// TrimsSince is the epoch since which the unit knows all addresses that were trimmed one by one; 0: it knows nothing.
func (u *Unit) TrimsSince() layout.Epoch {
	if u.noted.lost {
		return 0
	}
	return u.noted.since
}

// Trims gives the addresses from … to−1 that were trimmed one by one since epoch e was opened, in no order. known is
// false if it was not open in e, restarted since, or there were too many to remember.
func (u *Unit) Trims(e layout.Epoch, from, to layout.Address) (list []layout.Address, known bool) {
	if since := u.TrimsSince(); since == 0 || since > e {
		return nil, false
	}
	for a, x := range u.noted.addresses {
		if a >= from && a < to && x >= e {
			list = append(list, a)
		}
	}
	return list, true
}
