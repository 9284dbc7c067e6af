package sim

import (
	"errors"
	"fmt"

	"corfu/layout"
)

// records are what the layout store has ever said of each epoch. What it said once it says for ever (rule R13).
type records struct {
	said map[layout.Epoch]layout.Record
	errs []error
}

// watch compares, after a command.
func (r *records) watch(s *layout.State) {
	for e := layout.Epoch(1); e <= s.Highest(); e++ {
		now, known := s.Record(e)
		if !known {
			continue
		}
		was := r.said[e]
		if now.Recovered() { // the store was empty, and was built from what the units hold
			was = layout.Record{}
		}
		if was.Verdict != layout.Undecided && now.Verdict != was.Verdict {
			r.errs = append(r.errs, fmt.Errorf("epoch %d was %v and is %v", e, was.Verdict, now.Verdict))
		}
		if was.Owner != 0 && (now.Owner != was.Owner || now.Base != was.Base || now.Layout != was.Layout) {
			r.errs = append(r.errs, fmt.Errorf("epoch %d has another layout record than it had", e))
		}
		r.said[e] = now
	}
}

// rewritten gives what was written a second time.
func (c *consensus) rewritten() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(c.records.errs...)
}
