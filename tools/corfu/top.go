package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"corfu/internal/clusterstatus"
	"corfu/internal/wire/pb"
)

func (a *app) topCommand() *cobra.Command {
	var every time.Duration
	var times int
	cmd := &cobra.Command{
		Use: "top", Short: "Show which units and clients are busiest", Args: cobra.NoArgs,
		Long: `Show which units and clients are busiest, by operations and bytes a second, again and
again; q ends that. Rates are averages over about 5 seconds.

WRITES/S are pages that units took in. COLD READS/S are pages that units read from flash.
Reads of what is in a unit's memory are not counted: clients do them without the unit.
A page counts at each unit of its chain. With -n the exit status is 1 if no cluster answers.`,
	}
	cmd.Flags().DurationVar(&every, "interval", 2*time.Second, "how often")
	cmd.Flags().IntVarP(&times, "count", "n", 0, "show it so many `times`; 0: until it is ended")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		if every < 100*time.Millisecond || times < 0 {
			return usagef("--interval %v --count %d: must be at least 100ms, and not negative", every, times)
		}
		return a.show(ctx, every, times, topLines)
	})
	return cmd
}

// topLines are units and clients, the busiest first, below the verdict.
func topLines(m *pb.ClusterStatus) []line {
	lines := verdictLines(m)
	if m.Epoch > 0 {
		lines = append(lines, line{}, line{plain, summary(m)})
	}
	chains := map[uint32]string{}
	if n := len(m.Segments); n > 0 {
		for _, c := range m.Segments[n-1].Chains {
			for _, u := range c.Units {
				chains[u] = clusterstatus.ChainName(c)
			}
		}
	}
	units := slices.Clone(m.Units)
	most := 1.0
	for _, u := range units {
		most = max(most, u.BytesPerSecond)
	}
	// By steps: units that do the same shall not change places all the time.
	step := func(u *pb.UnitStatus) int { return int(20 * u.BytesPerSecond / most) }
	slices.SortStableFunc(units, func(a, b *pb.UnitStatus) int { return cmp.Compare(step(b), step(a)) })
	t := newTable("UNIT", "CHAIN", "WRITES/S", "COLD READS/S", "BYTES/S", "NOT ON FLASH YET", "SESSIONS", "STATE")
	for _, u := range units {
		t.add(rowStyle(m, u.Role, u.State, u.Epoch, u.SilentMs), fmt.Sprint(u.Id), cmp.Or(chains[u.Id], u.Role), rate(u.PagesPerSecond), rate(u.ColdReadsPerSecond),
			bytesRate(u.BytesPerSecond), clusterstatus.Grouped(u.WaitingPages), sessionsOf(u), memberState(u.State, u.Error, u.SilentMs))
	}
	if len(units) == 0 {
		return lines // nobody told of any
	}
	lines = append(append(lines, line{}), t.lines()...)
	t = newTable("CLIENT", "UNITS", "WRITES/S", "COLD READS/S", "BYTES/S")
	for _, c := range m.Clients {
		t.add(plain, fmt.Sprint(c.Id), fmt.Sprint(c.Sessions), rate(c.PagesPerSecond), rate(c.ColdReadsPerSecond), bytesRate(c.BytesPerSecond))
	}
	if len(m.Clients) == 0 {
		return append(lines, line{}, line{faint, "no client has a session"})
	}
	return append(append(lines, line{}), t.lines()...)
}
