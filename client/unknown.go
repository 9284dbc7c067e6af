package client

import "corfu/layout"

// unknown makes the error of an append at p, by the attempt id in epoch e, of which cause kept the outcome from being found out.
func (l *Log) unknown(p Position, id layout.Attempt, e layout.Epoch, cause error) error {
	return &UnknownError{Position: p, ID: EntryID(id), Cause: cause, l: l, epoch: e}
}
