package server

import (
	"context"
	"errors"
	"slices"

	"corfu/internal/sleep"
	"corfu/layout"
)

// attempts is how often a reconfiguration that was asked for is tried before its caller gets the error.
const attempts = 3

// errUnreachable: a member does not answer, so that no epoch can be made with it. It goes on by itself once it does.
var errUnreachable = errors.New("a member is unreachable")

// request asks for a reconfiguration that begins after the request was made.
type request struct {
	reason string
	op     string // the operation's id, if the caller gave one
	asked  asked
	dry    bool // the layout that would come about is all that is wanted
	tried  int
	done   chan outcome // gets exactly one
}

type outcome struct {
	layout *layout.Layout
	err    error
}

// refuse answers all who wait with an error.
func (m *manager) refuse(err error) {
	for _, q := range append(m.pending, m.waiting...) {
		q.done <- outcome{err: err}
	}
	m.pending, m.waiting = nil, nil
}

// collect takes the requests that came meanwhile.
func (m *manager) collect() {
	if len(m.pending) == 0 {
		m.pending, m.waiting = m.waiting, nil
	}
	for {
		select {
		case q := <-m.requests:
			m.pending = append(m.pending, q)
		default:
			return
		}
	}
}

// answer ends the pending requests, but for those that failed and may be tried again.
func (m *manager) answer(o outcome) {
	var again []*request
	for _, q := range m.pending {
		if q.tried++; o.err != nil && q.tried < attempts {
			again = append(again, q)
			continue
		}
		q.done <- o
	}
	m.pending = again
}

// deny ends the pending requests that are not possible, as it turned out. The others are tried again.
func (m *manager) deny(err error) {
	m.pending = slices.DeleteFunc(m.pending, func(q *request) bool {
		impossible := q.asked.sessions != 0
		if impossible {
			q.done <- outcome{err: err}
		}
		return impossible
	})
}

// ask waits for what the request asks for, begun after the call. It fails with errNotLeader where another server leads.
func (m *manager) ask(ctx context.Context, q *request) (*layout.Layout, error) {
	q.done = make(chan outcome, 1)
	if err := m.hand(ctx, q); err != nil {
		return nil, err
	}
	select {
	case o := <-q.done:
		return o.layout, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hand gives a request to the manager's goroutine, which listens only while this server leads.
func (m *manager) hand(ctx context.Context, q *request) error {
	for {
		change := m.store.changes()
		if err := m.takeOver(ctx); err != nil {
			return err
		}
		select {
		case m.requests <- q:
			return nil
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// takeOver waits while Raft has elected this server and the manager has not begun to lead yet.
func (m *manager) takeOver(ctx context.Context) error {
	for m.store.elected() {
		if m.status().leader {
			return nil
		}
		if err := sleep.For(ctx, leadPoll); err != nil {
			return err
		}
	}
	return errNotLeader
}
