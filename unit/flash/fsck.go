package flash

import (
	"fmt"

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
	Batches, Records                uint64         // entries that are batches, and the records in them
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
	if err := c.volume(); err != nil {
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

// volume looks at what the pages lie on: files, tables, trims.
func (c *check) volume() error {
	in := c.in
	per := layout.Address(in.x.perFile)
	var size, pages int64
	if in.x.pageSize > 0 {
		size, pages = in.x.segmentBytes(), in.x.pageBytes()
	}
	err := in.vol.check(size, pages, func(p volumeProblem) {
		if p.whole {
			c.problem(Problem{What: p.what})
		} else {
			c.ofSegment(p.segment, "%s", p.what)
		}
	})
	if err != nil {
		return err
	}
	ns, err := in.vol.list()
	if err != nil {
		return err
	}
	for _, n := range ns {
		if layout.Address(n+1)*per <= in.meta.TrimmedBelow {
			c.ofSegment(n, "all of it was given up, and its space not given back; the next trim does that")
		}
		if size > 0 {
			if err := c.trims(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// ofSegment reports a problem of a whole segment.
func (c *check) ofSegment(n uint64, format string, a ...any) {
	what := fmt.Sprintf(format, a...)
	c.problem(Problem{Address: layout.Address(n) * layout.Address(c.in.x.perFile), What: fmt.Sprintf("segment %d (seg-%012x): %s", n, n, what)})
}

func (c *check) trims(n uint64) error {
	f, err := c.in.vol.open(n, c.in.x.segmentBytes())
	if err != nil {
		return err
	}
	t := c.in.x.trimTwin(n)
	_, bad, err := t.load(f)
	if err != nil {
		c.ofSegment(n, "its trims are lost: %v", err)
	} else {
		for i, err := range bad {
			if err != nil {
				c.ofSegment(n, "copy %d of its trims: %v; the other one is whole", i, err)
			}
		}
	}
	return f.Close()
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
		c.batch(x)
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
//
// On a device it writes a superblock again of which one copy is left, before anything else.
func Repair(path string, sum Summary) error {
	v, err := openVolume(path, access{})
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
		return fmt.Errorf("flash: %s: %w", path, err)
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

// batch counts the records of a batch by its first page, and reports one that readers cannot take apart. No replica has a better one:
// that is how it was appended.
func (c *check) batch(x Found) {
	if x.Header.Flags&wire.FlagBatch == 0 {
		return
	}
	f, payload := x.Header.Fragment(x.Page), x.Header.Payload(x.Page)
	if f.Number != 0 {
		return
	}
	n, err := wire.BatchCount(payload)
	if err == nil && f.Count == 0 {
		_, err = wire.DecodeBatch(payload)
	}
	if err != nil {
		c.problem(Problem{Address: x.Address, Count: 1, What: fmt.Sprintf("%v: it was appended so, by a faulty client", err)})
		return
	}
	c.sum.Batches++
	c.sum.Records += uint64(n)
}
