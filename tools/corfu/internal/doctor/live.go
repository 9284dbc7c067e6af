package doctor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"corfu/internal/sleep"
	"corfu/rdma"
	"corfu/rdma/selftest"
)

// Trials say how much a self-test does. Zero fields take the default.
type Trials struct {
	Order  int           // lists of WRITE and CAS; default 10,000
	Ops    int           // operations of each latency; default 1000
	Rate   time.Duration // how long FETCH_ADDs are counted; default 500 ms
	Rounds int           // revocations under load; default 3
	Grace  time.Duration // how long a refused connection may take to break, where Soft-RoCE may stand still for half a minute; default 1 min
}

func (t Trials) withDefaults() Trials {
	d := Trials{Order: 10_000, Ops: 1000, Rate: 500 * time.Millisecond, Rounds: 3, Grace: patience}
	if t.Order > 0 {
		d.Order = t.Order
	}
	if t.Ops > 0 {
		d.Ops = t.Ops
	}
	if t.Rate > 0 {
		d.Rate = t.Rate
	}
	if t.Rounds > 0 {
		d.Rounds = t.Rounds
	}
	if t.Grace > 0 {
		d.Grace = t.Grace
	}
	return d
}

// Measured is what a self-test measured. That of a device with itself is what a peer is held against.
type Measured struct {
	Rate     float64          `json:"fetch_add_per_second"`
	FetchAdd selftest.Latency `json:"fetch_add"` // durations in nanoseconds
	Publish  selftest.Latency `json:"write_4k_cas"`
	Read     selftest.Latency `json:"read_4k"`
}

// Peer is the other end of a self-test.
type Peer struct {
	Name  string // before the names of results: "loopback", "peer"
	Addr  string // of its Server
	Token string
}

// spin of the connections that are measured: as long as an operation takes on a slow device.
const spin = time.Millisecond

// tester is a self-test under way.
type tester struct {
	dev    rdma.Device
	peer   Peer
	trials Trials
	talk   *talk
	local  *rdma.Memory // see localOff
	region rdma.Remote  // the peer's memory since the last begin
	conns  []rdma.Conn
}

// What lies where in the tester's own memory: what Order writes from, what it reads to, a page for RevokeWriter, bulk.
const (
	sourceSize = selftest.OrderSource
	localSize  = bulkSize
)

// Live tries a peer, which runs a Server, from dev. own are the facts of this end; base is what the device measured with
// itself, or nil. What does not work is a Result; the error is nil unless ctx ended.
func Live(ctx context.Context, dev rdma.Device, p Peer, own Facts, base *Measured, trials Trials) (all []Result, got Measured, err error) {
	t := &tester{dev: dev, peer: p, trials: trials.withDefaults()}
	defer func() {
		if e := t.close(); e != nil {
			all = append(all, warn(p.Name+": end", "", "closing: %s", oneLine(e.Error())))
		}
	}()
	facts, err := t.meet(ctx)
	if err != nil {
		do := "corfu doctor serve must run there; a firewall lets UDP 4791 (RoCE v2) through; the device of this machine must route to it (ip route get); corfu doctor there tells more"
		if errors.Is(err, rdma.ErrRejected) {
			do = "take address and token as the other side printed them; it serves one doctor at a time"
		}
		return []Result{fail(p.Name, do, "%s does not answer: %s", p.Addr, oneLine(err.Error()))}, got, ctx.Err()
	}
	all = append(all, good(p.Name, "%s answers: %s, corfu %s", p.Addr, facts.Device, facts.Version))
	all = append(all, t.compareMTU(own, *facts)...)
	for _, step := range []func(context.Context, *Measured, *Measured) Result{
		t.bulk, t.rate, t.latency, t.order, t.revoke, t.revokeUnderLoad,
	} {
		all = append(all, step(ctx, &got, base))
		if err := ctx.Err(); err != nil {
			return all, got, err
		}
	}
	return all, got, nil
}

func (t *tester) name(s string) string { return t.peer.Name + ": " + s }

func (t *tester) meet(ctx context.Context) (*Facts, error) {
	dial, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := t.dev.Dial(dial, t.peer.Addr, private(forTalk, t.peer.Token), talkOptions())
	for ; isBusy(err); c, err = t.dev.Dial(dial, t.peer.Addr, private(forTalk, t.peer.Token), talkOptions()) {
		if sleep.For(dial, 100*time.Millisecond) != nil { // the one before may be about to finish
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	if t.talk, err = newTalk(t.dev, c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if t.local, err = t.dev.Alloc(localSize); err != nil {
		return nil, err
	}
	a, err := t.ask(ctx, doFacts)
	if err != nil {
		return nil, err
	}
	if a.Facts == nil {
		return nil, errors.New("it answers nonsense")
	}
	return a.Facts, nil
}

func isBusy(err error) bool {
	var r *rdma.RejectError
	return errors.As(err, &r) && r.Reason == busyReason
}

// patience is how long an answer may take: the peer may be a slow machine that revokes a key.
const patience = time.Minute

func (t *tester) ask(ctx context.Context, do string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return t.talk.ask(ctx, do)
}

// begin has the peer's memory zeroed and registered anew, and connects.
func (t *tester) begin(ctx context.Context, n int) ([]rdma.Conn, error) {
	a, err := t.ask(ctx, doBegin)
	if err != nil {
		return nil, err
	}
	t.region = rdma.Remote{Addr: a.Addr, Key: rdma.RKey(a.Key)}
	var conns []rdma.Conn
	for range n {
		c, err := t.connect(ctx)
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func (t *tester) connect(ctx context.Context) (rdma.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := t.dev.Dial(ctx, t.peer.Addr, private(forTrial, t.peer.Token), rdma.ConnOptions{Spin: spin})
	if err == nil {
		t.conns = append(t.conns, c)
	}
	return c, err
}

func (t *tester) close() error {
	var errs []error
	for _, c := range t.conns {
		errs = append(errs, c.Close())
	}
	if t.talk != nil {
		errs = append(errs, t.talk.close())
	}
	if t.local != nil {
		errs = append(errs, t.local.Close())
	}
	return errors.Join(errs...)
}

// compareMTU: rdma_cm gives a connection the smaller path MTU of both ends; that both are the same says nothing of the switch between, see bulk.
func (t *tester) compareMTU(own, other Facts) []Result {
	name := t.name("path mtu")
	switch {
	case own.MTU == 0 || other.MTU == 0: // tcp
		return nil
	case own.MTU != other.MTU:
		return []Result{warn(name, "give both ends and the switch the same MTU", "%d bytes here, %d there (%s): connections take the smaller", own.MTU, other.MTU, other.Device)}
	}
	return []Result{good(name, "%d bytes at both ends", own.MTU)}
}

// bulk moves 64 KiB in one WRITE: packets of full size. Where small ones pass and these do not, the network between takes smaller ones than both ends do.
func (t *tester) bulk(ctx context.Context, _, _ *Measured) Result {
	name := t.name("large packets")
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conns, err := t.begin(ctx, 1)
	if err != nil {
		return t.broke(name, err)
	}
	small := rdma.NewBatch(1)
	small.Write(t.local.Slice(0, 8), t.region.Add(bulkOff))
	if err := conns[0].Do(ctx, small); err != nil {
		return t.broke(name, err)
	}
	large := rdma.NewBatch(1)
	large.Write(t.local.Slice(0, bulkSize), t.region.Add(bulkOff))
	if err := conns[0].Do(ctx, large); err != nil {
		return fail(name, "the network between takes smaller packets than both ends do: raise the MTU of the switch, or lower that of both ends",
			"a WRITE of 8 bytes passes and one of %d does not: %s", bulkSize, oneLine(err.Error()))
	}
	return good(name, "a WRITE of %d KiB passes", bulkSize>>10)
}

// broke is the result of a step that could not do its work.
func (t *tester) broke(name string, err error) Result {
	return fail(name, "look at dmesg of both machines and at what doctor serve says", "%s", oneLine(err.Error()))
}

// held is how much slower than the device with itself a peer may be: cable and switch add a microsecond or two to a round trip,
// and a loopback shares one card for both ends.
const (
	heldFactor = 3
	heldExtra  = 5 * time.Microsecond
)

func (t *tester) rate(ctx context.Context, got, base *Measured) Result {
	name := t.name("fetch_add rate")
	conns, err := t.begin(ctx, 1)
	if err == nil {
		got.Rate, err = selftest.FetchAddRate(ctx, conns[0], t.region.Add(countOff), t.trials.Rate)
	}
	if err != nil {
		return t.broke(name, err)
	}
	says := fmt.Sprintf("%.0f a second on one word, from one connection, none lost", got.Rate)
	if base == nil || base.Rate == 0 {
		return good(name, "%s", says)
	}
	says += fmt.Sprintf("; %.0f with itself", base.Rate)
	if got.Rate*heldFactor < base.Rate {
		return warn(name, "look for packet loss (retransmissions: corfu devices, ethtool -S), and at PCIe and NUMA above", "%s", says)
	}
	return good(name, "%s", says)
}

// latency: what the device should do is measured, not looked up: the same operations over a connection of the device with itself, which
// has everything but cable and switch.
func (t *tester) latency(ctx context.Context, got, base *Measured) Result {
	name := t.name("latency")
	conns, err := t.begin(ctx, 1)
	if err != nil {
		return t.broke(name, err)
	}
	c, n := conns[0], uint64(0)
	for _, m := range []struct {
		to   *selftest.Latency
		fill func(b *rdma.Batch)
	}{
		{&got.FetchAdd, func(b *rdma.Batch) { b.FetchAdd(t.region.Add(countOff), 1) }},
		{&got.Publish, func(b *rdma.Batch) {
			b.Write(t.local.Slice(0, 4096), t.region.Add(bulkOff))
			b.CompareSwap(t.region.Add(countOff+rdma.WordSize), n, n+1)
			n++
		}},
		{&got.Read, func(b *rdma.Batch) { b.Read(t.local.Slice(0, 4096), t.region.Add(bulkOff)) }},
	} {
		if *m.to, err = selftest.Measure(ctx, c, t.trials.Ops, m.fill); err != nil {
			return t.broke(name, err)
		}
	}
	return t.judgeLatency(name, *got, base)
}

func (t *tester) judgeLatency(name string, got Measured, base *Measured) Result {
	var detail []string
	slow := ""
	for _, m := range []struct {
		what      string
		is, floor selftest.Latency
	}{
		{"FETCH_ADD", got.FetchAdd, floorOf(base).FetchAdd},
		{"WRITE 4 KiB + CAS", got.Publish, floorOf(base).Publish},
		{"READ 4 KiB", got.Read, floorOf(base).Read},
	} {
		line := fmt.Sprintf("%s: p50 %s, p99 %s", m.what, round(m.is.P50), round(m.is.P99))
		if base != nil {
			limit := heldFactor*m.floor.P50 + heldExtra
			line += fmt.Sprintf("; with itself %s, expected at most %s", round(m.floor.P50), round(limit))
			if m.is.P50 > limit && slow == "" {
				slow = m.what
			}
		}
		detail = append(detail, line)
	}
	says := fmt.Sprintf("FETCH_ADD takes %s (p50)", round(got.FetchAdd.P50))
	if slow != "" {
		return warn(name, "another device or path than the one meant? (ip route get) Loss, pauses, a busy or sleeping processor (cpupower)?",
			"%s; %s is slower than this device's own round trip lets expect", says, slow).with(detail...)
	}
	if base != nil {
		detail = append(detail, fmt.Sprintf("expected: %d times what the device takes over a connection with itself, and %s for cable and switch", heldFactor, heldExtra))
	}
	return good(name, "%s", says).with(detail...)
}

func floorOf(base *Measured) Measured {
	if base == nil {
		return Measured{}
	}
	return *base
}

func round(d time.Duration) time.Duration {
	if d >= 100*time.Microsecond {
		return d.Round(time.Microsecond)
	}
	return d.Round(10 * time.Nanosecond)
}

// order is rule R6 on the wire: the peer's CPU and a READ from here look for a CAS that is ahead of its WRITE.
func (t *tester) order(ctx context.Context, _, _ *Measured) Result {
	name := t.name("order")
	conns, err := t.begin(ctx, 2)
	if err != nil {
		return t.broke(name, err)
	}
	if _, err := t.ask(ctx, doWatch); err != nil {
		return t.broke(name, err)
	}
	source, err := t.dev.Alloc(sourceSize + selftest.OrderSink)
	if err != nil {
		return t.broke(name, err)
	}
	sink, err := t.dev.Alloc(selftest.OrderSink)
	if err != nil {
		return t.broke(name, errors.Join(err, source.Close()))
	}
	o := &selftest.Order{Target: t.region}
	var wg sync.WaitGroup
	var byRead watched
	wg.Go(func() { byRead.fresh, byRead.err = o.WatchByRead(ctx, conns[1], sink) })
	err = o.Write(ctx, conns[0], source, t.trials.Order)
	o.Stop()
	wg.Wait()
	a, asked := t.ask(ctx, doUnwatch)
	err = errors.Join(err, byRead.err, asked)
	// The connections before what they read from and write to.
	err = errors.Join(err, conns[0].Close(), conns[1].Close(), source.Close(), sink.Close())
	switch {
	case err != nil:
		return fail(name, "do not use this device: look for firmware that relaxes ordering (mlxconfig PCI_WR_ORDERING) and for a newer one", "%s", oneLine(err.Error()))
	case a.Fresh == 0 && byRead.fresh == 0:
		return warn(name, "try again on a quieter machine", "%d trials, and neither CPU nor READ saw one while it was fresh", t.trials.Order)
	}
	return good(name, "WRITE before CAS in %d trials (rule R6), seen fresh %d times by the CPU there and %d times by READ", t.trials.Order, a.Fresh, byRead.fresh)
}
