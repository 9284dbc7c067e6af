package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"corfu/internal/control"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
)

// surveyed is what one unit answered, or why it did not.
type surveyed struct {
	layout.Unit
	known layout.Known
	other *pb.OtherAsker // another layout server that asked it; nil: none
	err   error
}

// mostSurveyed bounds how many units one survey asks: the addresses come from units that may be
// somebody else's.
const mostSurveyed = 1024

// survey asks units for what a layout store can be built from, and all units that the layouts found
// name. Of a unit with several addresses the first that answers counts. The result has one entry
// for each unit, by ascending ids.
func (m *manager) survey(ctx context.Context, ask []layout.Unit) []surveyed {
	all := map[layout.UnitID]surveyed{}
	tried := map[layout.Unit]bool{}
	for len(ask) > 0 {
		var next []layout.Unit
		for _, u := range ask {
			if x, known := all[u.ID]; tried[u] || (known && x.err == nil) || len(tried) == mostSurveyed {
				continue
			}
			tried[u] = true
			next = append(next, u)
		}
		ask = nil
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, u := range next {
			wg.Go(func() {
				x := m.surveyOne(ctx, u)
				mu.Lock()
				defer mu.Unlock()
				if had, known := all[u.ID]; !known || had.err != nil {
					all[u.ID] = x
				}
				if x.err == nil {
					ask = append(ask, x.known.Names()...)
				}
			})
		}
		wg.Wait()
	}
	list := make([]surveyed, 0, len(all))
	for _, x := range all {
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b surveyed) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

func (m *manager) surveyOne(ctx context.Context, u layout.Unit) surveyed {
	x := surveyed{Unit: u}
	conn, err := control.Dial(u.Control, m.cfg.DialOptions...)
	if err != nil {
		x.err = err
		return x
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, m.cfg.hangTimeout())
	defer cancel()
	a, err := pb.NewUnitServiceClient(conn).Known(ctx, &pb.KnownRequest{Asker: m.asker})
	switch {
	case err != nil:
		x.err = fmt.Errorf("%s", status.Convert(err).Message())
		return x
	case layout.UnitID(a.Id) != u.ID:
		x.err = fmt.Errorf("it answers as unit %d", a.Id)
		return x
	}
	x.other = a.Other
	x.known = layout.Known{Unit: u.ID, Log: pad(a.Log), Promise: layout.Epoch(a.Promise), Store: pbconv.ToStoreState(a.State)}
	for _, l := range []struct {
		from *pb.Layout
		to   **layout.Layout
	}{{a.Layout, &x.known.Layout}, {a.ActiveLayout, &x.known.Active}} {
		if l.from == nil {
			continue
		}
		if *l.to, err = pbconv.ToLayout(l.from); err != nil {
			x.err = fmt.Errorf("it holds a layout that is not valid: %w", err)
		}
	}
	return x
}

// answers are those of the units that answered.
func answers(list []surveyed) (all []layout.Known) {
	for _, x := range list {
		if x.err == nil {
			all = append(all, x.known)
		}
	}
	return all
}

// otherWindow is how long no other layout server may have asked a unit before this one takes the
// log for its own.
func (c Config) otherWindow() time.Duration { return max(3*time.Second, 6*c.FailAfter) }

// otherLeads returns why another layout server may lead this log; "": none has asked any of the
// units within the window.
func (m *manager) otherLeads(list []surveyed) string {
	for _, x := range list {
		ago := time.Duration(x.other.GetAgoMs()) * time.Millisecond
		if x.other != nil && ago < m.cfg.otherWindow() {
			return fmt.Sprintf("another layout server, at %s, asked unit %d for its state %v ago: stop one of the two", x.other.From, x.ID, ago.Round(100*time.Millisecond))
		}
	}
	return ""
}

// newAsker draws what this layout server is told apart by at units.
func newAsker() uint64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // it never fails (crypto/rand)
		if id := binary.LittleEndian.Uint64(b[:]); id != 0 {
			return id
		}
	}
}
