package main

import (
	"context"
	"errors"
	"fmt"

	"corfu/layout"
	"corfu/rdma"
	"corfu/tools/corfu/internal/bench"
)

// stage is what is open at the same time because it is compared with each other: rounds of its contestants are interleaved, those
// that a ratio is taken of side by side. A cluster that nobody measures would still take its share of the processors.
type stage struct {
	contestants []bench.Contestant
	appends     *appendRig // whose throughput is measured too; nil: nothing's
	missing     []string   // perftest tools that are not installed
	closers     []func() error
}

func (s *stage) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	return errors.Join(errs...)
}

// opener opens a stage; what it opened before an error is in the stage.
type opener func(ctx context.Context, dev rdma.Device, b benchFlags, a *app) (*stage, error)

// stages are all of them, in order. Those in which no row is asked for are left out.
func stages(b benchFlags) []opener {
	var all []opener
	if !b.alone {
		all = append(all, openFabricStage)
	}
	for _, d := range []layout.Durability{layout.Memory, layout.Flash} {
		if b.match.MatchString(appendName(d)) || (d == layout.Memory && b.match.MatchString(bench.BarePathName)) {
			all = append(all, openAppendStage(d))
		}
	}
	return all
}

// openFabricStage is single operations, ours beside perftest's.
func openFabricStage(ctx context.Context, dev rdma.Device, b benchFlags, _ *app) (*stage, error) {
	s := &stage{}
	v, err := bench.OpenVerbs(ctx, dev, b.spin)
	if err != nil {
		return s, fmt.Errorf("single operations: %w", err)
	}
	s.closers = append(s.closers, v.Close)
	var perftest []bench.Contestant
	if info := dev.Info(); info.Provider == "verbs" {
		perftest, s.missing = bench.PerftestTools(info.Name, info.Addr)
	}
	s.contestants = bench.Beside(v.Contestants(), perftest)
	return s, nil
}

// openAppendStage is Append, under memory durability beside the bare path.
func openAppendStage(d layout.Durability) opener {
	return func(ctx context.Context, dev rdma.Device, b benchFlags, a *app) (*stage, error) {
		s := &stage{}
		if d == layout.Memory {
			bare, err := bench.OpenBarePath(ctx, dev, benchPayload, b.spin)
			if err != nil {
				return s, fmt.Errorf("bare path: %w", err)
			}
			s.closers = append(s.closers, bare.Close)
			s.contestants = append(s.contestants, bare)
		}
		if !b.match.MatchString(appendName(d)) {
			return s, nil
		}
		x := &appendRig{durability: d}
		if err := x.open(ctx, dev, b, a); err != nil {
			return s, fmt.Errorf("%s: %w", x.Name(), err)
		}
		s.closers = append(s.closers, x.close)
		s.appends = x
		s.contestants = append(s.contestants, x)
		return s, nil
	}
}

// runStages measures one stage after the other.
func (a *app) runStages(ctx context.Context, dev rdma.Device, b benchFlags, rep *report) error {
	all := stages(b)
	for i, open := range all {
		if err := a.runStage(ctx, dev, b, rep, open, fmt.Sprintf("part %d of %d", i+1, len(all))); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) runStage(ctx context.Context, dev rdma.Device, b benchFlags, rep *report, open opener, title string) (err error) {
	s, err := open(ctx, dev, b, a)
	defer func() { err = errors.Join(err, s.close()) }()
	if err != nil {
		return err
	}
	var cs []bench.Contestant
	for _, c := range s.contestants {
		if b.match.MatchString(c.Name()) {
			cs = append(cs, c)
		}
	}
	rep.missing = append(rep.missing, s.missing...)
	if b.alone {
		return a.measureRate(ctx, s.appends, b, rep)
	}
	if len(cs) == 0 {
		return nil
	}
	bar := a.newBar(int64(len(cs)*(b.rounds+1)), title)
	rows, err := bench.Interleave(ctx, cs, b.rounds, b.ops, func(name string, round int) {
		what := fmt.Sprintf("%s: round %d of %d: %s", title, round, b.rounds, name)
		if round == 0 {
			what = title + ": warming up: " + name
		}
		bar.Describe(what)
		_ = bar.Add(1)
	})
	if err != nil {
		return err
	}
	rep.rows = append(rep.rows, rows...)
	if s.appends == nil {
		return nil
	}
	if err := a.measureThroughput(ctx, s.appends, b, rep); err != nil {
		return err
	}
	if err := a.measureRecords(ctx, s.appends, b, rep); err != nil {
		return err
	}
	return a.measureRate(ctx, s.appends, b, rep)
}
