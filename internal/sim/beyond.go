package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"corfu/client"
	"corfu/internal/wire/pb"
	"corfu/layout"
)

// What exceeds the promise of docs/protocol.md, once the workers have ended and everything is up:
// the log must stop, name the stores, and acknowledge nothing meanwhile. With the true stores
// everything must be there. The last of them is rule R27.

// late is the number of the client of this part in the history.
const late = 2000

// notedWithin is more than the layout store takes to note what the members have (rule R23).
const notedWithin = 2500 * time.Millisecond

// endgame is this part of a run.
type endgame struct {
	*run
	l *client.Log
	n int
}

func (x *run) beyond(ctx context.Context) error {
	do := map[Past]func(*endgame, context.Context) error{
		PastChain: (*endgame).chainGoesBack, PastLayouts: (*endgame).layoutsGoBack, PastLoss: (*endgame).acceptLoss,
	}[x.Past]
	if do == nil {
		return nil
	}
	l, err := x.c.open(ctx, "late", client.Options{HoleTimeout: 5 * time.Millisecond, OpTimeout: 500 * time.Millisecond})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	e := &endgame{run: x, l: l}
	if err := e.goesOn(ctx); err != nil {
		return err
	}
	if err := do(e, ctx); err != nil {
		return fmt.Errorf("%s: %w", x.Past, err)
	}
	return e.goesOn(ctx)
}

// append makes an append, and reports whether it was acknowledged.
func (e *endgame) append(ctx context.Context, patience time.Duration) bool {
	e.n++
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return e.h.append(ctx, e.l, late, fmt.Sprintf("late.%d", e.n))
}

// await polls until ok.
func await(ctx context.Context, ok func() bool) bool {
	for range 1200 {
		if ok() {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		time.Sleep(50 * time.Millisecond)
	}
	return false
}

// goesOn waits until every member serves the latest epoch, and entries are acknowledged at every
// chain.
func (e *endgame) goesOn(ctx context.Context) error {
	said := ""
	whole := await(ctx, func() bool {
		s, err := e.c.status(ctx)
		if err != nil {
			said = err.Error()
			return false
		}
		said = s.GetPhase()
		for _, m := range s.GetMembers() {
			if m.GetRole() == "" && (m.GetState() != "open" || m.GetEpoch() != s.GetLayout().GetEpoch()) {
				said += fmt.Sprintf("; %s is %s at epoch %d", m.GetName(), m.GetState(), m.GetEpoch())
				return false
			}
		}
		return said == "" && s.GetEpochInProgress() == 0 && s.GetLayout().GetEpoch() > 0
	})
	if !whole {
		return fmt.Errorf("the cluster does not come back: %q", said)
	}
	for acked := 0; acked < 2*e.Shape.Chains+1; {
		if e.append(ctx, patience) {
			acked++
		} else if ctx.Err() != nil {
			return errors.New("no append is acknowledged")
		}
	}
	return nil
}

// appends goes on to append until stop is called. What is acknowledged meanwhile, by chains that
// still serve, is checked with the history.
func (e *endgame) appends(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			e.append(ctx, time.Second)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// latest is the latest ACTIVE epoch.
func (x *run) latest() (e layout.Epoch) {
	x.c.raft.look(func(s *layout.State) { e = s.Latest() })
	return e
}

// aChain draws a chain that takes new entries.
func (e *endgame) aChain() (chain []layout.UnitID) {
	e.c.raft.look(func(s *layout.State) {
		segs := s.Active().Segments
		chains := segs[len(segs)-1].Chains
		chain = slices.Clone(chains[e.past.rand.IntN(len(chains))].Units)
	})
	return chain
}

// end ends a unit: in peace where memory is what lasts, since all members of a chain end, and each
// would take what the promise needs with it.
func (e *endgame) end(u layout.UnitID) {
	if e.Shape.Durability == layout.Memory {
		e.c.stop(int(u))
		return
	}
	if bury, ok := e.c.kill(e.c.units, int(u), e.past.rand.IntN(2) == 0); ok {
		bury()
	}
}

// stop ends a unit in peace.
func (c *cluster) stop(id int) {
	c.mu.Lock()
	u := c.units[id-1]
	c.units[id-1] = nil
	c.mu.Unlock()
	if u != nil {
		c.bury(u)
	}
}

var lostPast = regexp.MustCompile(`lost (its|their) past|it is empty, and units hold a log|holds a log already`)

// chainGoesBack starts all units of a chain on older copies of their stores, or on empty ones.
func (e *endgame) chainGoesBack(ctx context.Context) error {
	copies := map[layout.UnitID]string{}
	if e.past.rand.IntN(3) > 0 {
		for i := range e.c.units {
			if dir, err := e.c.copyStore(i + 1); err == nil {
				copies[layout.UnitID(i+1)] = dir
			}
		}
	}
	if err := e.goesOn(ctx); err != nil {
		return err
	}
	time.Sleep(notedWithin)
	if err := e.goesOn(ctx); err != nil {
		return err
	}
	truth, err := e.chainStops(ctx, e.aChain(), copies)
	if err != nil {
		return err
	}
	for u, dir := range truth {
		if _, err := e.c.backTo(int(u), dir); err != nil {
			return err
		}
	}
	return nil
}

// chainStops starts the units of a chain on other stores, "": an empty one, and waits until the log
// has stopped and has named all of them. It returns where their true stores are.
func (e *endgame) chainStops(ctx context.Context, chain []layout.UnitID, copies map[layout.UnitID]string) (map[layout.UnitID]string, error) {
	bury, ok := e.c.killLayouts(true)
	bury()
	if !ok {
		return nil, errors.New("a layout server is down")
	}
	e.h.note("beyond: units %v come back on other stores: %v", chain, len(copies) > 0)
	truth, latest := map[layout.UnitID]string{}, e.latest()
	for _, u := range chain {
		e.end(u)
	}
	stop := e.appends(ctx)
	defer stop()
	for _, u := range chain {
		var err error
		if truth[u], err = e.c.replaceStore(int(u), copies[u]); err != nil {
			return nil, err
		}
		e.past.went[u] = layout.MaxEpoch
		if err := e.c.startUnit(int(u)); err != nil {
			return nil, err
		}
	}
	if err := e.c.startLayouts(); err != nil {
		return nil, err
	}
	said := ""
	stopped := await(ctx, func() bool {
		said = e.c.waitsFor(ctx)
		return lostPast.MatchString(said) && !slices.ContainsFunc(chain, func(u layout.UnitID) bool { return !e.c.accusedOf(u) })
	})
	if now := e.latest(); now != latest {
		return nil, fmt.Errorf("the log went on from epoch %d to %d, although all stores of a chain went back", latest, now)
	}
	if !stopped {
		return nil, fmt.Errorf("the log does not say that the stores of units %v lost their past, but %q", chain, said)
	}
	e.h.note("the log has stopped: %s", said)
	return truth, nil
}

// accusedOf reports whether it was said that the store of a unit lost its past.
func (c *cluster) accusedOf(u layout.UnitID) bool {
	c.raised.mu.Lock()
	defer c.raised.mu.Unlock()
	return slices.ContainsFunc(*c.raised.lost, func(s string) bool { return strings.Contains(s, fmt.Sprintf("member=unit %d ", u)) })
}

// reconfigured asks for an epoch until there is one.
func (e *endgame) reconfigured(ctx context.Context, q *pb.ReconfigureRequest) error {
	var err error
	if !await(ctx, func() bool {
		for _, addr := range e.c.names {
			cc, e := e.c.dial(addr)
			if e != nil {
				return false
			}
			try, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err = pb.NewLayoutServiceClient(cc).Reconfigure(try, q)
			cancel()
			_ = cc.Close()
			if err == nil {
				return true
			}
		}
		return false
	}) {
		return fmt.Errorf("no epoch: %w", err)
	}
	return nil
}

// layoutsGoBack starts all layout servers on copies from before an epoch that was opened, or on
// empty directories.
func (e *endgame) layoutsGoBack(ctx context.Context) error {
	had := e.c.raft.committed()
	if e.past.rand.IntN(2) == 0 {
		had = nil
	}
	if err := e.reconfigured(ctx, &pb.ReconfigureRequest{Reason: "sim"}); err != nil {
		return err
	}
	if err := e.goesOn(ctx); err != nil {
		return err
	}
	bury, ok := e.c.killLayouts(true)
	bury()
	if !ok {
		return errors.New("a layout server is down")
	}
	latest := e.latest()
	truth := e.c.raft.goBack(had)
	e.past.store = &storeBack{truth, latest}
	e.h.note("beyond: the layout servers come back with %d of %d commands, epoch %d was active", len(had), len(truth), latest)
	stop := e.appends(ctx)
	defer stop()
	if err := e.c.startLayouts(); err != nil {
		return err
	}
	if e.Shape.Durability == layout.Flash { // so that an epoch is needed
		u := 1 + e.past.rand.IntN(len(e.c.units))
		if bury, ok := e.c.kill(e.c.units, u, true); ok {
			bury()
			if err := e.c.startUnit(u); err != nil {
				return err
			}
		}
	}
	said := ""
	if !await(ctx, func() bool {
		said = e.c.waitsFor(ctx)
		return lostPast.MatchString(said) || !e.storeForgot()
	}) {
		return fmt.Errorf("the log does not say that the layout store lost its past, but %q", said)
	}
	if len(had) == 0 && await(ctx, func() bool { return !e.storeForgot() }) {
		e.h.note("the layout store was built from what the units hold")
		e.past.store = nil
		return nil
	}
	e.h.note("the log has stopped: %s", said)
	stop()
	return e.restoreLayout()
}

// acceptLoss has an operator accept a loss with --accept-loss. The store that may hold what was
// given up comes back, and must not be wiped without a further word (rule R27).
func (e *endgame) acceptLoss(ctx context.Context) error {
	chain := e.aChain()
	u := chain[e.past.rand.IntN(len(chain))]
	whole, last := e.Shape.Durability == layout.Flash, false
	e.c.raft.look(func(s *layout.State) {
		whole = whole && len(s.Active().Units) == len(chain)
		for _, seg := range s.Active().Segments {
			for _, c := range seg.Chains {
				last = last || (len(c.Units) == 1 && c.Units[0] == u)
			}
		}
	})
	if last {
		return nil // the last unit of a chain does not leave
	}
	var had *store
	var err error
	if whole && e.past.rand.IntN(3) > 0 {
		had, err = e.loseAll(ctx, chain, u)
	} else {
		had, err = e.loseUnit(ctx, chain, u)
	}
	if err != nil {
		return err
	}
	return e.keeps(ctx, u, had)
}

func addOf(u layout.UnitID) *pb.Unit {
	return &pb.Unit{Id: uint32(u), Control: unitName(int(u)) + ":control"}
}

// loseUnit gives up one unit of a chain with what it may hold, and adds it again as it comes back.
func (e *endgame) loseUnit(ctx context.Context, chain []layout.UnitID, u layout.UnitID) (had *store, err error) {
	bury, ok := e.c.kill(e.c.units, int(u), true)
	if !ok {
		return nil, fmt.Errorf("unit %d is down", u)
	}
	bury()
	if had, err = readFlash(e.c.unitDir(int(u))); err != nil {
		return nil, err
	}
	e.h.note("beyond: unit %d of %v is given up", u, chain)
	e.past.went[u] = layout.MaxEpoch // that it is not wiped is said of it
	if err := e.reconfigured(ctx, &pb.ReconfigureRequest{Reason: "sim", Remove: []uint32{uint32(u)}, AcceptLoss: true}); err != nil {
		return nil, err
	}
	if err := e.goesOn(ctx); err != nil {
		return nil, err
	}
	if err := e.c.startUnit(int(u)); err != nil {
		return nil, err
	}
	return had, e.reconfigured(ctx, &pb.ReconfigureRequest{Reason: "sim", Add: []*pb.Unit{addOf(u)}})
}

// loseAll empties all stores of a log of one chain. It stops, and goes on with what it has, which is
// nothing, by an operator's word. Then the true store of one unit is found again.
func (e *endgame) loseAll(ctx context.Context, chain []layout.UnitID, u layout.UnitID) (had *store, err error) {
	truth, err := e.chainStops(ctx, chain, nil)
	if err != nil {
		return nil, err
	}
	accept := &pb.ReconfigureRequest{Reason: "sim", AcceptLoss: true}
	for _, v := range chain {
		accept.Add = append(accept.Add, addOf(v))
	}
	if err := e.h.restart(); err != nil {
		return nil, err
	}
	if err := e.reconfigured(ctx, accept); err != nil {
		return nil, err
	}
	if err := e.goesOn(ctx); err != nil {
		return nil, err
	}
	if had, err = readFlash(truth[u]); err != nil {
		return nil, err
	}
	e.h.note("beyond: the true store of unit %d is found again", u)
	_, err = e.c.backTo(int(u), truth[u])
	return had, err
}

// keeps checks that a unit keeps what it had, that it is named, and that it serves again by an
// operator's word.
func (e *endgame) keeps(ctx context.Context, u layout.UnitID, had *store) error {
	time.Sleep(time.Second)
	if err := e.goesOn(ctx); err != nil {
		return err
	}
	time.Sleep(time.Second)
	if bury, ok := e.c.kill(e.c.units, int(u), true); ok {
		bury()
	}
	has, err := readFlash(e.c.unitDir(int(u)))
	if err != nil {
		return err
	}
	for a := range had.all {
		if h, now := had.at(a), has.at(a); now.state != h.state || !bytes.Equal(now.page, h.page) {
			return fmt.Errorf("unit %d may have what was given up, %v at address %d, and has %v there now: it was wiped without a word (rule R27)", u, h.state, a, now.state)
		}
	}
	if err := e.c.startUnit(int(u)); err != nil {
		return err
	}
	if len(had.all) > 0 && !await(ctx, func() bool { return e.c.accusedOf(u) }) {
		return fmt.Errorf("nothing is said of unit %d, which may hold what was given up", u)
	}
	return e.reconfigured(ctx, &pb.ReconfigureRequest{Reason: "sim", Add: []*pb.Unit{addOf(u)}, AcceptLoss: true})
}
