package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"corfu/internal/wire"
	"corfu/layout"
	"corfu/unit/flash"
)

// problemJSON is a problem as scripts read it.
type problemJSON struct {
	Address  layout.Address   `json:"address"`
	Count    uint64           `json:"count"` // of addresses; 0: it is of a file
	Position *layout.Position `json:"position,omitempty"`
	Problem  string           `json:"problem"`
}

// summaryJSON is flash.Summary as scripts read it: the last line of fsck.
type summaryJSON struct {
	Entries      uint64         `json:"entries"`
	Junk         uint64         `json:"junk"`
	Trimmed      uint64         `json:"trimmed"`
	Corrupt      uint64         `json:"corrupt"`
	Batches      uint64         `json:"batches,omitempty"`
	Records      uint64         `json:"records,omitempty"`
	Torn         uint64         `json:"torn"`
	Problems     uint64         `json:"problems"`
	TrimmedBelow layout.Address `json:"trimmed_below"`
	Settled      layout.Address `json:"settled_below"`
	Watermark    layout.Address `json:"watermark"`
	End          layout.Address `json:"end"`
}

func (a *app) fsckCommand() *cobra.Command {
	var repair bool
	var rate string
	cmd := &cobra.Command{
		Use: "fsck STORE | fsck --cluster [SERVERS]", Short: "Check the store of a unit that is not running, or compare all replicas of a cluster that is",
		Args: cobra.MaximumNArgs(1),
		Long: `Read the whole store, directory or device, of a storage unit that is not running, and print every problem
with its address and position: pages that do not verify, pages that are missing below
what the unit had noted as durable, files that do not belong there. It changes nothing.
Exit status 1 if there is a problem. What is damaged here another replica of the chain may have.

With --cluster, compare instead what the replicas of every chain hold, position by position,
while the cluster runs: all must hold the same entry (attempt and checksum), or all junk, or
all that it was trimmed. What is not settled yet (above the lowest watermark of its chain) is
left out. SERVERS are the layout servers, if another cluster than that of the other
commands is meant. Exit status 1 if replicas differ, or cannot be asked.`,
		Example: "  corfu fsck /var/lib/corfu/unit-1\n  corfu fsck --cluster\n  corfu fsck --cluster 10.0.0.1:7770,10.0.0.2:7770 --rate 200MiB",
	}
	// Here the flag of all commands needs no value: it says what to check, too.
	f := cmd.Flags()
	f.StringVar(&a.cluster, "cluster", "", "compare the replicas of the running cluster; its layout `servers`, if they are not found by themselves")
	f.Lookup("cluster").NoOptDefVal = foundCluster
	f.StringVar(&rate, "rate", "64MiB", "with --cluster: how much of each unit's flash is read per second at most, a `size`")
	cmd.Flags().BoolVar(&repair, "repair", false, "note in the meta how far everything verifies, if that is further than it says, and write a device's superblock again of which one copy is left; nothing else")
	cmd.RunE = a.body(func(ctx context.Context, args []string) (err error) {
		switch {
		case cmd.Flags().Changed("cluster") && repair:
			return usagef("--repair is for the store of one unit; corfu scrub repairs what is damaged in a cluster")
		case cmd.Flags().Changed("cluster"):
			return a.fsckCluster(ctx, cmd.Root().PersistentFlags(), args, rate)
		case len(args) == 0:
			return usagef("fsck needs the STORE of a unit, or --cluster")
		}
		if repair {
			done, err := flash.RestoreSuperblock(args[0])
			if err != nil {
				return err
			}
			if done {
				a.say("a superblock was damaged, and is written again\n")
			}
		}
		in, err := flash.OpenInspector(args[0])
		if err != nil {
			return err
		}
		sum, err := in.Check(func(p flash.Problem) {
			if err := a.printProblem(p); err != nil {
				a.say("%v\n", err)
			}
		})
		if err := errors.Join(err, in.Close()); err != nil {
			return err
		}
		if repair {
			if err := flash.Repair(args[0], sum); err != nil {
				return err
			}
			sum.Settled = max(sum.Settled, sum.Watermark)
		}
		if a.json() {
			err = a.printJSON(summaryJSON(sum))
		} else {
			batches := ""
			if sum.Batches > 0 {
				batches = fmt.Sprintf(" (%d batches of %d records)", sum.Batches, sum.Records)
			}
			a.say("%d entries%s, %d junk, %d trimmed, %d corrupt, %d torn; trimmed below %d, noted as durable below %d, nothing missing below %d, end %d\n",
				sum.Entries, batches, sum.Junk, sum.Trimmed, sum.Corrupt, sum.Torn, sum.TrimmedBelow, sum.Settled, sum.Watermark, sum.End)
		}
		if err == nil && sum.Problems > 0 {
			err = fmt.Errorf("%s: problems found: %d", args[0], sum.Problems)
		}
		return err
	})
	return cmd
}

func (a *app) printProblem(p flash.Problem) error {
	if a.json() {
		j := problemJSON{Address: p.Address, Count: p.Count, Problem: p.What}
		if p.Mapped {
			j.Position = &p.Position
		}
		return a.printJSON(j)
	}
	where := ""
	if p.Count > 0 {
		where = fmt.Sprintf("address %d: ", p.Address)
		if p.Count > 1 {
			where = fmt.Sprintf("addresses %d to %d: ", p.Address, uint64(p.Address)+p.Count-1)
		}
		if p.Mapped {
			where += fmt.Sprintf("position %d: ", p.Position)
		}
	}
	_, err := fmt.Fprintln(a.stdout, where+p.What)
	return err
}

// pageJSON is a page of a store as scripts read it.
type pageJSON struct {
	Address  layout.Address   `json:"address"`
	Position *layout.Position `json:"position,omitempty"`
	State    string           `json:"state"`
	Epoch    layout.Epoch     `json:"epoch,omitempty"`
	Attempt  string           `json:"attempt,omitempty"`
	Flags    uint8            `json:"flags,omitempty"`
	Length   int              `json:"length"`
	Batch    bool             `json:"batch,omitempty"`
	Records  [][]byte         `json:"records_base64,omitempty"`
	Payload  []byte           `json:"payload_base64,omitempty"`
	Problem  string           `json:"problem,omitempty"`
}

func (a *app) dumpCommand() *cobra.Command {
	var from, to uint64
	var head int
	cmd := &cobra.Command{
		Use: "dump STORE", Short: "Print the pages of a unit that is not running", Args: cobra.ExactArgs(1),
		Long: `Print the pages in the store, directory or device, of a storage unit that is not running: address,
position, state, epoch and attempt, length, and how the payload begins; of a batch that
fits in a page, how its records begin. Addresses that were never written are left out. It
changes nothing.`,
	}
	f := cmd.Flags()
	f.Uint64Var(&from, "from", 0, "first `address`")
	f.Uint64Var(&to, "to", 1<<62, "first `address` not to print")
	f.Lookup("to").DefValue = "the end"
	f.IntVar(&head, "payload", 48, "how many `bytes` of each payload to print, or of all records of a batch; -1: all")
	cmd.RunE = a.body(func(_ context.Context, args []string) (err error) {
		if to < from {
			return usagef("the range ends at %d, before it begins at %d", to, from)
		}
		if head < -1 {
			return usagef("--payload %d: must be a number of bytes, or -1 for all", head)
		}
		in, err := flash.OpenInspector(args[0])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, in.Close()) }()
		return in.Scan(layout.Address(from), layout.Address(to), func(x flash.Found) error {
			if x.Blank {
				return nil
			}
			return a.printPage(x, head)
		})
	})
	return cmd
}

func (a *app) printPage(x flash.Found, head int) error {
	p := payloadOf(x, head)
	state := x.State.String()
	if x.State == wire.Empty {
		state = "NOT WHOLE"
	}
	if a.json() {
		j := pageJSON{Address: x.Address, State: state, Epoch: x.Header.Epoch, Flags: uint8(x.Header.Flags), Length: p.length,
			Batch: p.batch, Records: p.records, Payload: p.bytes, Problem: x.Problem}
		if x.Mapped {
			j.Position = &x.Position
		}
		if x.State == wire.Durable {
			j.Attempt = fmt.Sprintf("%#x", uint64(x.Header.Attempt))
		}
		return a.printJSON(j)
	}
	line := fmt.Sprintf("address %d ", x.Address)
	if x.Mapped {
		line += fmt.Sprintf("position %d ", x.Position)
	}
	line += state
	if x.State != wire.Empty {
		line += fmt.Sprintf(" epoch %d", x.Header.Epoch)
	}
	if x.State == wire.Durable {
		line += fmt.Sprintf(" attempt %#x length %d %s", uint64(x.Header.Attempt), p.length, p)
	}
	if x.Problem != "" {
		line += " (" + x.Problem + ")"
	}
	_, err := fmt.Fprintln(a.stdout, line)
	return err
}

// payload is how the payload of a page begins.
type payload struct {
	length  int // of all of it, in bytes
	bytes   []byte
	batch   bool     // it is a batch of records, or a part of one
	count   int      // of the records, if the page says so; else 0
	records [][]byte // in place of bytes
	cut     bool     // there is more
}

// payloadOf returns head bytes of the payload of a page, or of its records; −1: all.
func payloadOf(x flash.Found, head int) (p payload) {
	if x.State != wire.Durable {
		return p
	}
	all := x.Header.Payload(x.Page)
	p.length, p.batch = len(all), x.Header.Flags&wire.FlagBatch != 0
	if head < 0 {
		head = len(all)
	}
	f := x.Header.Fragment(x.Page)
	if p.batch && f.Number == 0 {
		p.count, _ = wire.BatchCount(all)
	}
	if p.batch && f.Count == 0 {
		if records, err := wire.DecodeBatch(all); err == nil {
			for i, r := range records {
				n := min(head, len(r))
				p.records = append(p.records, r[:n])
				head -= n
				if p.cut = n < len(r) || head == 0 && i+1 < len(records); p.cut {
					break
				}
			}
			return p
		}
	}
	p.bytes, p.cut = all[:min(head, len(all))], head < len(all)
	return p
}

func (p payload) String() string {
	var b strings.Builder
	switch {
	case p.count > 0:
		fmt.Fprintf(&b, "batch of %d records ", p.count)
	case p.batch:
		b.WriteString("part of a batch ")
	}
	if p.records == nil {
		b.WriteString(strconv.QuoteToASCII(string(p.bytes)))
	}
	for i, r := range p.records {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strconv.QuoteToASCII(string(r)))
	}
	if p.cut {
		b.WriteString("…")
	}
	return b.String()
}
