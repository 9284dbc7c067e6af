package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	grpcstatus "google.golang.org/grpc/status"

	"corfu/internal/sleep"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

const (
	scrubPoll = 200 * time.Millisecond
	// scrubStuck is how long the number of corrupt pages may stay as it is, before nobody waits for repairs any more.
	scrubStuck = time.Minute
)

func (a *app) scrubCommand() *cobra.Command {
	var units []uint
	var rate string
	var wait bool
	cmd := &cobra.Command{
		Use: "scrub", Short: "Verify all pages on the flash of the units, and have damaged ones repaired", Args: cobra.NoArgs,
		Long: `Make the storage units verify every page that they have on flash, from the trimmed prefix
to what is durable, beside their work. A page that does not verify, is gone or cannot be
read is written anew from another replica. Units do that by themselves, too: see
scrub_rate and scrub_every of corfu unit. A pass that is in progress begins anew.
Exit status 1 if a page stays corrupt.`,
		Example: "  corfu scrub\n  corfu scrub --unit 1 --unit 2 --rate 200MiB\n  corfu scrub --wait=false",
	}
	f := cmd.Flags()
	f.UintSliceVar(&units, "unit", nil, "`number` of a unit, once for each (default: all units)")
	f.StringVar(&rate, "rate", "", "how much each unit reads per second at most, a `size` such as 200MiB (default: as the unit is configured)")
	f.BoolVar(&wait, "wait", true, "wait for the end, and for repairs; --wait=false only begins")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		bytes, err := parseSize(rate)
		if err != nil {
			return usagef("rate %q: %w", rate, err)
		}
		s := &scrubbing{a: a, rate: uint64(bytes)}
		defer s.close()
		if err := s.begin(ctx, units); err != nil {
			return err
		}
		if !wait {
			return s.print()
		}
		if err := s.follow(ctx); err != nil {
			return err
		}
		if err := s.settle(ctx); err != nil {
			return err
		}
		return errors.Join(s.print(), s.verdict())
	})
	return cmd
}

// scrubbing is a pass of several units, as one watches it.
type scrubbing struct {
	a     *app
	rate  uint64
	conns *layoutConns
	units []*scrubbed
}

// scrubbed is one of them.
type scrubbed struct {
	unit layout.Unit
	conn grpc.ClientConnInterface
	pass uint64
	last *pb.ScrubStatus
	left uint32 // corrupt pages that it has
	lost uint32 // of them, those that nobody can restore
}

func (s *scrubbing) close() {
	if s.conns != nil {
		s.conns.close()
	}
}

// begin orders the pass at the units with these numbers; none: at all.
func (s *scrubbing) begin(ctx context.Context, ids []uint) error {
	found, err := s.a.findCluster()
	if err != nil {
		return err
	}
	if s.conns, err = s.a.newConns(found); err != nil {
		return err
	}
	l, err := s.a.getLayout(ctx)
	if err != nil {
		return err
	}
	var known []layout.UnitID
	for _, u := range l.Units {
		known = append(known, u.ID)
	}
	for _, id := range ids {
		if !slices.Contains(known, layout.UnitID(id)) || id > 1<<32-1 {
			return usagef("--unit %d: the cluster has units %v", id, known)
		}
	}
	for _, u := range l.Units {
		if len(ids) > 0 && !slices.Contains(ids, uint(u.ID)) {
			continue
		}
		conn, err := s.conns.dial(u.Control)
		if err != nil {
			return fmt.Errorf("unit %d at %s: %w", u.ID, u.Control, err)
		}
		s.units = append(s.units, &scrubbed{unit: u, conn: conn})
	}
	for _, u := range s.units {
		err := u.ask(ctx, s.a.timeout, func(ctx context.Context, c pb.UnitServiceClient) (err error) {
			u.last, err = c.Scrub(ctx, &pb.ScrubRequest{Rate: s.rate})
			return err
		})
		if err != nil {
			return err
		}
		u.pass = u.last.GetPass()
	}
	return nil
}

// ask makes one call to the unit.
func (u *scrubbed) ask(ctx context.Context, timeout time.Duration, call func(context.Context, pb.UnitServiceClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := call(ctx, pb.NewUnitServiceClient(u.conn)); err != nil {
		return fmt.Errorf("unit %d at %s: no answer: %s (corfu layout status tells of all members)", u.unit.ID, u.unit.Control, grpcstatus.Convert(err).Message())
	}
	return nil
}

// look asks all units how they stand. It fails if one has given up the pass for another.
func (s *scrubbing) look(ctx context.Context) error {
	for _, u := range s.units {
		err := u.ask(ctx, s.a.timeout, func(ctx context.Context, c pb.UnitServiceClient) error {
			m, err := c.State(ctx, &pb.UnitStateRequest{})
			if err == nil {
				u.last, u.left = m.GetScrub(), m.GetCorrupt()
			}
			return err
		})
		if err != nil {
			return err
		}
		if u.last.GetPass() != u.pass {
			return fmt.Errorf("unit %d: the scrub did not end: the unit restarted, or another scrub was ordered", u.unit.ID)
		}
	}
	return nil
}

// follow waits until all passes have ended, and shows how far they are.
func (s *scrubbing) follow(ctx context.Context) error {
	show := s.a.progress("scrubbing")
	for {
		if err := s.look(ctx); err != nil {
			return err
		}
		var done, all uint64
		running, waiting := false, ""
		for _, u := range s.units {
			p := u.last
			running = running || p.GetRunning()
			done += p.GetNext() - p.GetFirst()
			all += p.GetEnd() - p.GetFirst()
			if p.GetWaiting() != "" {
				waiting = fmt.Sprintf("; unit %d waits: %s", u.unit.ID, p.GetWaiting())
			}
		}
		show(done, all, waiting, !running)
		if !running {
			return nil
		}
		if err := sleep.For(ctx, scrubPoll); err != nil {
			return err
		}
	}
}

// settle waits until what was found is repaired, or cannot be.
func (s *scrubbing) settle(ctx context.Context) error {
	since, before := time.Now(), uint32(0)
	for {
		if err := s.look(ctx); err != nil {
			return err
		}
		left, open := uint32(0), false
		for _, u := range s.units {
			left += u.left
			open = open || u.left > u.lost
		}
		if left != before {
			since, before = time.Now(), left
		}
		if !open || time.Since(since) > scrubStuck {
			return nil
		}
		if err := s.askLost(ctx); err != nil {
			return err
		}
		if err := sleep.For(ctx, scrubPoll); err != nil {
			return err
		}
	}
}

// askLost asks the layout server for how many pages it found no replica.
func (s *scrubbing) askLost(ctx context.Context) error {
	m, err := askLayout(ctx, s.a, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.StatusReply, error) {
		return c.Status(ctx, &pb.StatusRequest{})
	})
	if err != nil {
		return err
	}
	for _, x := range m.GetMembers() {
		for _, u := range s.units {
			if x.GetName() == fmt.Sprintf("unit %d", u.unit.ID) {
				u.lost = x.GetLost()
			}
		}
	}
	return nil
}

// scrubJSON is one unit's pass as scripts read it.
type scrubJSON struct {
	Unit     layout.UnitID `json:"unit"`
	Running  bool          `json:"running"`
	Pages    uint64        `json:"pages"`
	Bytes    uint64        `json:"bytes"`
	Corrupt  uint64        `json:"corrupt"`
	Repaired uint64        `json:"repaired"`
	Left     uint32        `json:"left"` // corrupt pages that the unit has now
	Seconds  float64       `json:"seconds"`
}

func (s *scrubbing) print() error {
	rows := [][]string{{"UNIT", "PAGES", "BYTES", "CORRUPT", "REPAIRED", "LEFT", "TOOK"}}
	out := []scrubJSON{}
	for _, u := range s.units {
		p := u.last
		took := time.Duration(p.GetMilliseconds()) * time.Millisecond
		out = append(out, scrubJSON{u.unit.ID, p.GetRunning(), p.GetPages(), p.GetBytes(), p.GetCorrupt(), p.GetRepaired(), u.left, took.Seconds()})
		row := []string{fmt.Sprint(u.unit.ID)}
		for _, n := range []uint64{p.GetPages(), p.GetBytes(), p.GetCorrupt(), p.GetRepaired(), uint64(u.left)} {
			row = append(row, fmt.Sprint(n))
		}
		state := took.String()
		if p.GetRunning() {
			state = "in progress"
		}
		rows = append(rows, append(row, state))
	}
	if s.a.json() {
		return s.a.printJSON(out)
	}
	return s.a.printTable(rows)
}

// verdict fails if something stays corrupt.
func (s *scrubbing) verdict() error {
	var errs []error
	for _, u := range s.units {
		if u.left > 0 {
			errs = append(errs, fmt.Errorf("unit %d: corrupt pages left: %d, of which no replica can restore %d (the layout server's log names them; corfu trim gives a position up)",
				u.unit.ID, u.left, min(u.lost, u.left)))
		}
	}
	return errors.Join(errs...)
}
