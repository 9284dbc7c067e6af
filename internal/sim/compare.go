package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit/flash"
)

// held is what a unit has on flash at one address.
type held struct {
	state wire.State
	page  []byte
}

// store is what a unit has on flash.
type store struct {
	below layout.Address // all below were given up by trims of a prefix, whatever is still there
	all   map[layout.Address]held
}

func (s *store) at(a layout.Address) held {
	if a < s.below {
		return held{state: wire.Trimmed}
	}
	return s.all[a]
}

// compare reads the flash of all units, which are stopped: the replicas of a chain of the last layout hold the same, but for trims
// that did not come through everywhere.
func (c *cluster) compare(halfTrimmed map[layout.Position]bool) error {
	units := map[layout.UnitID]*store{}
	for i, u := range c.units {
		if u == nil {
			continue // it is lost
		}
		s, err := readFlash(c.unitDir(i + 1))
		if err != nil {
			return err
		}
		units[layout.UnitID(i+1)] = s
	}
	var last *layout.Layout
	c.raft.look(func(s *layout.State) { last = s.Active() })
	var errs []error
	stripes := 0
	for _, seg := range last.Segments {
		stripes = max(stripes, len(seg.Chains))
	}
	var top layout.Address
	for _, s := range units {
		top = max(top, highest(s.all))
	}
	for p := range layout.Position(top) * layout.Position(stripes) {
		place, err := last.Locate(p)
		if err != nil {
			return err
		}
		if err := same(units, p, place, halfTrimmed); err != nil {
			errs = append(errs, fmt.Errorf("position %d: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

func readFlash(dir string) (*store, error) {
	in, err := flash.OpenInspector(dir)
	if err != nil {
		return nil, err
	}
	s := &store{below: in.Meta().TrimmedBelow, all: map[layout.Address]held{}}
	err = in.Scan(0, math.MaxUint64, func(x flash.Found) error {
		if x.State != wire.Empty {
			page := x.Page
			if x.State != wire.Durable {
				page = nil // marks of junk and trims name an epoch, which may differ
			}
			s.all[x.Address] = held{x.State, bytes.Clone(page)}
		}
		return nil
	})
	return s, errors.Join(err, in.Close())
}

// same compares the living units of a chain at one address.
func same(units map[layout.UnitID]*store, p layout.Position, at layout.Place, halfTrimmed map[layout.Position]bool) error {
	var errs []error
	var first layout.UnitID
	for _, u := range at.Chain.Units {
		switch {
		case units[u] == nil:
			continue
		case first == 0:
			first = u
			continue
		}
		x, y := units[first].at(at.Address), units[u].at(at.Address)
		if (x.state == wire.Trimmed || y.state == wire.Trimmed) && halfTrimmed[p] {
			continue
		}
		if x.state != y.state || !bytes.Equal(x.page, y.page) {
			errs = append(errs, fmt.Errorf("address %d: %v at unit %d, %v at unit %d, or other bytes", at.Address, x.state, first, y.state, u))
		}
	}
	if first == 0 {
		errs = append(errs, fmt.Errorf("chain %v has no unit left", at.Chain.Units))
	}
	return errors.Join(errs...)
}

// highest is the first address above all that is held.
func highest[V any](m map[layout.Address]V) (top layout.Address) {
	for a := range m {
		top = max(top, a+1)
	}
	return top
}

// alarms are what the programs themselves call impossible: errors in their logs that name an alarm or an invariant.
type alarmLog struct {
	slog.Handler
	mu   *sync.Mutex
	list *[]string
	lost *[]string // members whose stores are said to have lost their past
}

func newAlarmLog(under slog.Handler) *alarmLog {
	return &alarmLog{Handler: under, mu: &sync.Mutex{}, list: &[]string{}, lost: &[]string{}}
}

func (a *alarmLog) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelError || a.Handler.Enabled(context.Background(), l)
}

func (a *alarmLog) WithAttrs(as []slog.Attr) slog.Handler {
	return &alarmLog{a.Handler.WithAttrs(as), a.mu, a.list, a.lost}
}

func (a *alarmLog) Handle(ctx context.Context, r slog.Record) error {
	m := r.Message
	if strings.HasPrefix(m, "PAST LOST") {
		var b strings.Builder
		r.Attrs(func(at slog.Attr) bool { fmt.Fprintf(&b, " %v", at); return true })
		a.mu.Lock()
		*a.lost = append(*a.lost, b.String())
		a.mu.Unlock()
	}
	if strings.Contains(strings.ToLower(m), "alarm") || strings.Contains(m, "another entry than the head") || strings.Contains(m, "does not verify") {
		var b strings.Builder
		b.WriteString(m)
		r.Attrs(func(at slog.Attr) bool { fmt.Fprintf(&b, " %v", at); return true })
		a.mu.Lock()
		*a.list = append(*a.list, b.String())
		a.mu.Unlock()
	}
	if !a.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return a.Handler.Handle(ctx, r)
}

// alarms gives what was raised.
func (c *cluster) alarms() error {
	c.raised.mu.Lock()
	defer c.raised.mu.Unlock()
	var errs []error
	for _, m := range *c.raised.list {
		errs = append(errs, errors.New("alarm: "+m))
	}
	return errors.Join(errs...)
}

// accused fails if an honest store was said to have lost its past.
func (x *run) accused() error {
	a := x.c.raised
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, m := range *a.lost {
		if lossy := x.Past == PastLoss || x.Past == PastLayout || x.Past == PastLayouts; lossy && strings.Contains(m, "given up with --accept-loss") {
			continue // units that were left out before may hold that, too (rule R27), as far as a store that was built anew knows
		}
		if x.past == nil || !x.past.replaced(m) {
			errs = append(errs, errors.New("an honest store is said to have lost its past:"+m))
		}
	}
	return errors.Join(errs...)
}
