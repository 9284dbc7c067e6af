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

// compare reads the flash of all units, which are stopped: the replicas of a chain hold the same, but for trims that did not come
// through everywhere.
func (c *cluster) compare(halfTrimmed map[layout.Position]bool) error {
	type held struct {
		state wire.State
		page  []byte
		p     layout.Position
	}
	var errs []error
	for _, ch := range c.template().Segments[0].Chains {
		var first map[layout.Address]held
		for _, u := range ch.Units {
			in, err := flash.OpenInspector(c.unitDir(int(u)))
			if err != nil {
				return err
			}
			all := map[layout.Address]held{}
			err = in.Scan(0, math.MaxUint64, func(x flash.Found) error {
				if x.State != wire.Empty {
					page := x.Page
					if x.State != wire.Durable {
						page = nil // marks of junk and trims name an epoch, which may differ
					}
					all[x.Address] = held{x.State, bytes.Clone(page), x.Position}
				}
				return nil
			})
			if err = errors.Join(err, in.Close()); err != nil {
				return err
			}
			if first == nil {
				first = all
				continue
			}
			for a := range max(highest(first), highest(all)) {
				x, y := first[a], all[a]
				if (x.state == wire.Trimmed || y.state == wire.Trimmed) && halfTrimmed[max(x.p, y.p)] {
					continue
				}
				if x.state != y.state || !bytes.Equal(x.page, y.page) {
					errs = append(errs, fmt.Errorf("address %d: %v at unit %d, %v at unit %d, or other bytes", a, x.state, ch.Units[0], y.state, u))
				}
			}
		}
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
}

func newAlarmLog(under slog.Handler) *alarmLog {
	return &alarmLog{Handler: under, mu: &sync.Mutex{}, list: &[]string{}}
}

func (a *alarmLog) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelError || a.Handler.Enabled(context.Background(), l)
}

func (a *alarmLog) WithAttrs(as []slog.Attr) slog.Handler {
	return &alarmLog{a.Handler.WithAttrs(as), a.mu, a.list}
}

func (a *alarmLog) Handle(ctx context.Context, r slog.Record) error {
	m := r.Message
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
