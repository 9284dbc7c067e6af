package server

import (
	"errors"
	"fmt"

	"corfu/layout"
)

// A head that took in what does not verify (a client published rubbish) is CORRUPT, and the units behind it stay EMPTY: nobody may write there, since
// the entry might be sound further down. Their windows wait for that address for ever (rule R4). A new epoch decides it: sealed, no member
// has an entry there, so that the address becomes CORRUPT everywhere (rule R17).

// errStuck: corrupt at some members of the chain, and the others, who all answered, have nothing.
var errStuck = errors.New("corrupt, and nothing behind it in the chain")

// stuckAfter is how many tries in a row must find so, half a second apart at least: a writer may be on his way down the chain.
const stuckAfter = 2

// stuck is a position that only a new epoch decides.
type stuck struct {
	epoch layout.Epoch // in which it was found
	what  string
}

// noteStuck counts the tries that ended with errStuck.
func (r *repairer) noteStuck(w repairs, m *member, t *retry, a layout.Address, err error) {
	if !errors.Is(err, errStuck) {
		t.stuck = 0
		return
	}
	if t.stuck++; t.stuck < stuckAfter {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stuck = stuck{w.active.Epoch, fmt.Sprintf("%s, address %d: %v", m.name, uint64(a), err)}
}

// stuckIn says why the active epoch has to end; "": it has not.
func (r *repairer) stuckIn(active *layout.Layout) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if active == nil || r.stuck.epoch != active.Epoch {
		return ""
	}
	return r.stuck.what
}
