package flash

import (
	"fmt"
	"os"
	"path/filepath"

	"corfu/internal/wire"
	"corfu/layout"
)

// Problem is something that a sound store does not have.
type Problem struct {
	Address  layout.Address
	Count    uint64          // of addresses from Address on; 0: it is of a file, not of a page
	Position layout.Position // of Address, if Mapped
	Mapped   bool
	What     string
}

// Summary is what Check found.
type Summary struct {
	Entries, Junk, Trimmed, Corrupt uint64
	Torn                            uint64         // pages above Settled that are no whole pages: cut off by a crash before they were acknowledged
	Problems                        uint64         // that were reported
	TrimmedBelow                    layout.Address // from the meta file
	Settled                         layout.Address // the same: all below must verify
	Watermark                       layout.Address // first address that holds nothing whole
	End                             layout.Address // first above all that is whole
}

// check is one run of Check.
type check struct {
	in     *Inspector
	sum    Summary
	report func(Problem)
	next   layout.Address // looked at below
	hole   bool           // a blank or torn address was passed: the watermark stands
}

// Check reads the whole store and reports every problem, in the order of the addresses. It changes nothing.
func (in *Inspector) Check(report func(Problem)) (Summary, error) {
	c := &check{in: in, report: report, sum: Summary{TrimmedBelow: in.meta.TrimmedBelow, Settled: in.meta.SettledBelow}}
	if err := c.files(); err != nil {
		return c.sum, err
	}
	c.next = in.meta.TrimmedBelow
	c.sum.Watermark, c.sum.End = c.next, c.next
	if in.meta.Layout == nil {
		return c.sum, nil
	}
	err := in.Scan(c.next, layout.Address(1)<<62, func(x Found) error {
		c.missing(x.Address)
		c.page(x)
		c.next = x.Address + 1
		return nil
	})
	if err != nil {
		return c.sum, err
	}
	c.missing(in.meta.SettledBelow)
	if w := layout.Address(in.meta.Layout.Geometry.Window); c.sum.End > c.sum.Watermark+w {
		c.problem(Problem{Address: c.sum.Watermark, Count: 1, What: fmt.Sprintf(
			"nothing whole here, and entries up to %d: further than a window, so the unit will not start", c.sum.End-1)})
	}
	return c.sum, nil
}

func (c *check) problem(p Problem) {
	if p.Count > 0 && c.in.meta.Layout != nil {
		p.Position, p.Mapped = c.in.meta.Layout.PositionAt(c.in.meta.Unit, p.Address)
	}
	c.sum.Problems++
	c.report(p)
}

// files looks at what stands in the directory.
func (c *check) files() error {
	in := c.in
	left, _ := filepath.Glob(filepath.Join(in.dir, "new-*"))
	for _, path := range left {
		c.problem(Problem{What: filepath.Base(path) + ": a segment whose making was cut off; the unit removes it when it starts"})
	}
	ns, err := listSegments(in.dir)
	if err != nil {
		return err
	}
	for _, n := range ns {
		st, err := os.Stat(segmentPath(in.dir, n))
		if err != nil {
			return fmt.Errorf("flash: %w", err)
		}
		first := layout.Address(n) * layout.Address(in.x.perFile)
		name := filepath.Base(segmentPath(in.dir, n))
		if want := in.x.segmentBytes(); in.x.pageSize > 0 && st.Size() != want {
			c.problem(Problem{Address: first, What: fmt.Sprintf("%s: %d bytes, and a segment has %d", name, st.Size(), want)})
		}
		if first+layout.Address(in.x.perFile) <= in.meta.TrimmedBelow {
			c.problem(Problem{Address: first, What: name + ": all of it was given up, and its space not given back; the next trim does that"})
		}
	}
	return nil
}

// missing reports the addresses from next to a−1 that must hold something and have no segment.
func (c *check) missing(a layout.Address) {
	to := min(a, c.in.meta.SettledBelow)
	// Addresses that belong to no position need none.
	for ; c.next < to && !c.mapped(c.next); c.next++ {
	}
	if c.next < to {
		c.hole = true
		c.problem(Problem{Address: c.next, Count: uint64(to - c.next), What: "their segment is not there"})
	}
	if c.next < a {
		for x := c.next; x < a && !c.hole; x++ {
			c.hole = c.mapped(x)
		}
	}
}

func (c *check) mapped(a layout.Address) bool {
	_, ok := c.in.meta.Layout.PositionAt(c.in.meta.Unit, a)
	return ok
}

func (c *check) page(x Found) {
	known := x.Address < c.in.meta.SettledBelow && x.Mapped
	at := Problem{Address: x.Address, Count: 1}
	switch {
	case x.Problem != "" && x.State == wire.Empty && !known:
		c.sum.Torn++
	case x.Problem != "":
		at.What = x.Problem
		c.problem(at)
	case x.Blank && known:
		at.What = "nothing is there, and something was acknowledged"
		c.problem(at)
	}
	switch x.State {
	case wire.Durable:
		c.sum.Entries++
	case wire.DurableJunk:
		c.sum.Junk++
	case wire.Trimmed:
		c.sum.Trimmed++
	case wire.Corrupt:
		c.sum.Corrupt++
		at.What = "marked CORRUPT: what was published here did not verify"
		c.problem(at)
	}
	if x.State != wire.Empty {
		c.sum.End = x.Address + 1
	}
	c.hole = c.hole || (x.State == wire.Empty && x.Mapped)
	if !c.hole {
		c.sum.Watermark = x.Address + 1
	}
	c.sum.Watermark = min(c.sum.Watermark, max(c.sum.End, c.sum.TrimmedBelow))
}

// Repair notes in the meta file how far everything verifies, if that is further than it says: the one thing that can be
// derived. It never goes back, which would hide what is lost. It fails with ErrLocked while the unit runs.
func Repair(dir string, sum Summary) error {
	v, err := openDirectory(dir, false)
	if err != nil {
		return err
	}
	defer v.close()
	b, err := v.loadMeta()
	if err != nil {
		return err
	}
	m, err := decodeMeta(b)
	if err != nil {
		return err
	}
	if sum.Watermark <= m.SettledBelow {
		return nil
	}
	m.SettledBelow = sum.Watermark
	if b, err = encodeMeta(m); err != nil {
		return err
	}
	return v.saveMeta(b)
}
