package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"corfu/internal/control"
	"corfu/layout"
)

const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 5 * time.Second
	// attempts is how often a reconfiguration that was asked for is tried before its caller gets the error.
	attempts = 3
)

// errUnreachable: a member does not answer, so that no epoch can be made with it. It goes on by itself once it does.
var errUnreachable = errors.New("a member is unreachable")

// request asks for a reconfiguration that begins after the request was made.
type request struct {
	reason string
	op     string // the operation's id, if the caller gave one
	asked  asked
	dry    bool // the layout that would come about is all that is wanted
	tried  int
	done   chan outcome // gets exactly one
}

type outcome struct {
	layout *layout.Layout
	err    error
}

// manager is the failure detector and the reconfigurer. run is its one goroutine; what Status shows is under mu.
type manager struct {
	cfg       Config
	log       *slog.Logger
	store     *store
	metrics   *metrics
	requests  chan *request
	members   members
	repairer  *repairer
	pending   []*request
	waiting   []*request // ask for another change than the one in hand
	rebuilder *rebuilder
	vitals    *vitals
	history   history
	warned    bool // of a bootstrap layout that does not fit

	backoff   time.Duration
	notBefore time.Time

	mu   sync.Mutex
	show shown
}

// shown is what Status answers.
type shown struct {
	leader  bool
	epoch   layout.Epoch // in progress
	phase   string
	wait    string // what cannot be mended
	deficit int    // replicas that chains lack
	wanted  int    // replicas that a chain is to have
	least   int    // with fewer no chain goes on
	members []shownMember
}

type shownMember struct {
	name, control string
	role          string
	unit          layout.UnitID // 0: a sequencer
	seq           layout.SequencerID
	report        report
	silent        time.Duration // since its last answer, if the last heartbeat had none
}

func newManager(cfg Config, st *store, m *metrics) *manager {
	return &manager{cfg: cfg, log: cfg.Logger, store: st, metrics: m, requests: make(chan *request), rebuilder: &rebuilder{cfg: cfg, log: cfg.Logger, metrics: m},
		members: members{options: cfg.DialOptions, device: cfg.Device}, repairer: newRepairer(cfg, m), vitals: newVitals()}
}

// run leads whenever Raft says so, until ctx ends.
func (m *manager) run(ctx context.Context) {
	for {
		term, err := m.store.lead(ctx)
		if err != nil {
			m.refuse(errNotLeader)
			return
		}
		m.log.Info("leads the layout servers", "term", term)
		m.set(func(s *shown) { s.leader = true })
		m.history.begin(time.Now())
		reign, end := m.store.during(ctx, term)
		m.lead(reign, term)
		end()
		m.set(func(s *shown) { *s = shown{} })
		m.forget()
		m.refuse(errNotLeader)
	}
}

// forget ends what was known of the members: it is old when this server leads again. Metrics that are the leader's alone end with it.
func (m *manager) forget() {
	m.members.close()
	m.vitals.forget()
	m.store.trouble.Store(nil)
	m.metrics.notLeading()
}

// refuse answers all who wait with an error.
func (m *manager) refuse(err error) {
	for _, q := range append(m.pending, m.waiting...) {
		q.done <- outcome{err: err}
	}
	m.pending, m.waiting = nil, nil
}

// lead polls, judges and acts until the term is over.
func (m *manager) lead(ctx context.Context, term uint64) {
	owner := layout.Owner(term<<16 | uint64(m.cfg.ID))
	tick := time.NewTicker(m.cfg.Poll)
	defer tick.Stop()
	defer m.repairer.lead(ctx)()
	defer m.rebuilder.end()
	for m.store.leads(term) {
		if err := m.round(ctx, owner); err != nil && ctx.Err() == nil {
			m.log.Warn("layout manager", "err", err)
		}
		due := time.NewTimer(m.untilFailure())
		select {
		case <-ctx.Done():
		case q := <-m.requests:
			m.pending = append(m.pending, q)
		case <-due.C:
		case <-tick.C:
		}
		due.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// untilFailure is how long until the first member that is silent counts as failed, unless it answers: waiting for the heartbeat after
// that would cost the log up to one more.
func (m *manager) untilFailure() time.Duration {
	first := m.cfg.Poll // the next heartbeat is there before
	for _, x := range m.members.list {
		if left, silent := x.pulse.left(m.members.patience(x, m.cfg)); silent && !x.standby {
			first = min(first, max(left-time.Since(x.asked), minPause))
		}
	}
	return first
}

// minPause is the shortest time between two looks at the members.
const minPause = 5 * time.Millisecond

// round is one look at the members, and what follows from it.
func (m *manager) round(ctx context.Context, owner layout.Owner) error {
	shape, err := m.shape()
	if err != nil {
		return err
	}
	if shape == nil {
		m.set(func(s *shown) { s.phase = "no log yet: start the layout server with a bootstrap layout" })
		m.refuse(layout.ErrNotFounded)
		return nil
	}
	m.collect()
	if err := m.members.follow(m.candidates(shape)); err != nil {
		return err
	}
	m.poll(ctx, shape)
	if ctx.Err() != nil {
		return ctx.Err() // what the poll found is its own end
	}
	active, _ := m.store.fsm.active.get()
	m.rebuilder.follow(ctx, active, &m.members)
	sc := m.scene(active, shape)
	sc.stuck = m.repairer.stuckIn(active)
	j := sc.judge()
	if len(j.activate) > 0 {
		m.activate(ctx, active, j.activate)
		m.poll(ctx, shape)
		j = sc.judge()
	}
	m.progress(j)
	m.set(func(s *shown) { s.wanted, s.least = sc.replicas, sc.min() })
	m.repairer.offer(active, m.members.list)
	m.deficit(active, sc.replicas)
	if m.answerDry(shape, j) {
		return nil
	}
	switch {
	case j.wait != "":
		m.refuse(fmt.Errorf("%w: %s", errUnreachable, j.wait))
	case j.unsure != "": // a heartbeat or two more, and it is clear
	case len(j.activate) > 0 && len(m.pending) == 0: // it did not work: again in the next round
	case j.reconfigure == "" && len(m.pending) == 0:
		m.backoff = 0
	case len(m.pending) == 0 && time.Now().Before(m.notBefore):
	default:
		return m.reconfigure(ctx, owner, sc, j)
	}
	return nil
}

// shape is what the next layout looks like, but for its epoch and start; nil if no log was founded.
func (m *manager) shape() (*layout.Layout, error) {
	founding, active := m.layouts()
	if founding == nil {
		if m.cfg.Bootstrap == nil {
			return nil, nil
		}
		first := m.cfg.Bootstrap.Next(0, 0)
		if first.Log.IsZero() {
			_, _ = rand.Read(first.Log[:]) // it never fails (crypto/rand)
		}
		// The identity is written before any unit hears of it: a bootstrap that stops half-way goes on with the same one.
		if _, err := m.store.apply(layout.Found{Layout: first}); err != nil {
			return nil, fmt.Errorf("found the log: %w", err)
		}
		m.log.Info("log founded", "log", first.Log)
		founding, active = m.layouts()
	}
	shape := founding.Next(0, 0)
	if active != nil {
		shape = active.Next(active.Epoch, active.Start)
	}
	switch {
	case m.cfg.Bootstrap == nil:
	case m.agrees(founding):
		moveTo(shape, m.cfg.Bootstrap)
	case !m.warned:
		m.warned = true
		m.log.Warn("the bootstrap layout is ignored: it is not that of the log in the store",
			"log", founding.Log, "geometry", founding.Geometry, "durability", founding.Durability)
	}
	return shape, nil
}

func (m *manager) layouts() (founding, active *layout.Layout) {
	m.store.fsm.view(func(s *layout.State) { founding, active = s.Founding(), s.Active() })
	return founding, active
}

// agrees tells whether Bootstrap speaks of the log that there is.
func (m *manager) agrees(founding *layout.Layout) bool {
	b := m.cfg.Bootstrap
	return b != nil && b.Geometry == founding.Geometry && b.Durability == founding.Durability && (b.Log.IsZero() || b.Log == founding.Log)
}

// poll asks all members, and says what changed.
func (m *manager) poll(ctx context.Context, shape *layout.Layout) {
	var mu sync.Mutex // of what the members are as a whole
	clients := 0
	if m.vitals.due(time.Now()) {
		clients = vitalClients
	}
	each(m.members.list, func(x *member) {
		// Nobody is waited for beyond the moment at which it has failed.
		mu.Lock()
		left, silent := x.pulse.left(m.members.patience(x, m.cfg))
		mu.Unlock()
		patience := m.cfg.stateTimeout()
		if silent {
			patience = min(patience, max(left-time.Since(x.asked), minPause))
		}
		began := time.Now()
		bounded, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		r := x.poll(bounded, shape, clients)
		if r.state == stateUnreachable && context.Cause(ctx) == context.Canceled {
			return // the server stops
		}
		now := time.Now()
		if clients > 0 {
			m.vitals.take(now, x, r)
		}
		mu.Lock()
		defer mu.Unlock()
		m.members.hear(x, r, shape.Epoch > 0, now)
		r = m.heartbeat(x, r, m.took(x, began, now))
		x.asked = now
		if was := x.report; was.state != r.state || was.promise != r.promise {
			m.log.Info("member", "name", x.name, "state", r.state, "epoch", uint64(r.promise), "was", was.state, "err", r.err)
		}
		x.report = r
		if r.state != stateUnreachable {
			x.fabric.keep()
		}
	})
	if clients > 0 {
		m.vitals.copies(time.Now(), m.rebuilder.progress())
	}
	show := make([]shownMember, len(m.members.list))
	m.metrics.up.Reset()
	for i, x := range m.members.list {
		show[i] = shownMember{x.name, x.control, x.role(), x.unit, x.seq, x.shownReport(m.cfg.FailAfter), x.silence()}
		up := 0.0
		if x.report.state != stateUnreachable {
			up = 1
		}
		m.metrics.up.WithLabelValues(x.name).Set(up)
	}
	m.metrics.observeMembers(m.members.list, m.cfg.FailAfter)
	m.set(func(s *shown) { s.members = show })
}

// took is how long x was asked: since the last time, that of the call itself included. Of one that was never heard only the time counts in
// which this leader could hear others.
func (m *manager) took(x *member, began, now time.Time) time.Duration {
	from := x.asked
	if from.IsZero() {
		from = began
	}
	if runs := m.members.runs; !x.pulse.heard && runs.After(from) {
		from = runs
	}
	return now.Sub(from)
}

// heartbeat counts an answer, or that there was none, and gives the report that stands: of a member that has not failed yet it
// is the last one.
func (m *manager) heartbeat(x *member, r report, took time.Duration) report {
	answered := r.state != stateUnreachable
	restarted := answered && r.state == stateClosed && x.report.state == stateOpen
	if answered && (x.pulse.missed > 0 || (r.state == stateClosed && x.report.state != stateClosed)) {
		x.refusal = refusal{} // whoever was started anew may have been mended
	}
	x.pulse.beat(answered, restarted, took, m.cfg.stateTimeout()+m.cfg.Poll, m.members.patience(x, m.cfg))
	if !answered && !x.pulse.failed && x.pulse.heard {
		return x.report
	}
	return r
}

// activate opens the epoch at members that missed it: its verdict is ACTIVE, since active is the store's.
func (m *manager) activate(ctx context.Context, active *layout.Layout, list []*member) {
	ctx, cancel := context.WithTimeout(ctx, min(m.cfg.CallTimeout, hangFactor*m.cfg.FailAfter))
	defer cancel()
	for _, x := range list {
		began := time.Now()
		err := x.activate(ctx, active)
		if err == nil {
			x.refusal = refusal{}
			continue
		}
		m.log.Warn("a member missed the activation and refuses it now", "err", err)
		if ownFault(err) {
			m.note(blame{x, taskActivate, began, err})
		}
	}
}

// progress shows what the manager waits for.
func (m *manager) progress(j judgement) {
	var text string
	wait := cmp.Or(j.wait, j.hindered)
	switch {
	case wait != "":
		text = "waiting for " + wait
	case len(j.activate) > 0:
		text = string(phaseActivate)
	case j.unsure != "":
		text = "no answer from " + j.unsure
	case j.reconfigure != "":
		text = "to do: " + j.reconfigure
	}
	m.store.trouble.Store(&wait)
	m.metrics.waiting.Set(0)
	if wait != "" {
		m.metrics.waiting.Set(1)
	}
	var was string
	m.set(func(s *shown) { was, s.phase, s.wait = s.phase, text, wait })
	if wait != "" && was != text {
		m.log.Error("WAITING: the log takes no new entries until this is mended", "waiting_for", wait)
	}
}

// reconfigure makes one attempt, for the reason given and for everybody who asked before it began.
func (m *manager) reconfigure(ctx context.Context, owner layout.Owner, sc *scene, j judgement) error {
	shape, reason, op := sc.shape, j.reconfigure, ""
	for _, q := range m.pending {
		if reason == "" || reason == reasonAsked {
			reason = q.reason
		}
		op = cmp.Or(op, q.op)
	}
	ctx = control.Resume(ctx, op)
	log := m.log.With(control.LogKey, control.Operation(ctx))
	r := &reconfiguration{cfg: m.cfg, log: log, store: m.store, metrics: m.metrics, members: &m.members, owner: owner, shape: shape,
		change: j.change, copied: sc.copied, drained: sc.drained(j.change), acceptLoss: sc.acceptLoss,
		enter: func(e layout.Epoch, p phase) { m.set(func(s *shown) { s.epoch, s.phase = e, string(p) }) }}
	log.Info("reconfiguring", "reason", reason, "lost", j.change.Lost, "join", j.change.Join, "chain", j.change.Chain, "sequencer", j.change.Sequencer)
	m.metrics.inProgress.Set(1)
	began := time.Now()
	l, err := r.run(ctx)
	m.metrics.inProgress.Set(0)
	m.metrics.result(err)
	m.history.add(r, reason, began, err)
	m.blame(r, err == nil)
	if err != nil {
		if errors.Is(err, layout.ErrConflict) {
			m.metrics.alarms.Inc()
			log.Error("ALARM: a safety rule was broken; the log stays sealed", "err", err)
		}
		m.backoff = min(max(2*m.backoff, backoffMin), backoffMax)
		m.notBefore = time.Now().Add(m.backoff)
		m.answer(outcome{err: err})
		m.set(func(s *shown) {
			if s.epoch = 0; s.wait == "" {
				s.phase = "failed: " + err.Error()
			} else {
				s.phase = "waiting for " + s.wait
			}
		})
		return fmt.Errorf("reconfiguration: %w", err)
	}
	m.backoff = 0
	m.deficit(l, sc.replicas)
	if err = m.members.follow(l); err == nil {
		m.poll(ctx, l)
	}
	m.set(func(s *shown) { s.epoch, s.phase = 0, "" })
	m.answer(outcome{layout: l}) // now that Status shows it, too
	return err
}

// collect takes the requests that came meanwhile.
func (m *manager) collect() {
	if len(m.pending) == 0 {
		m.pending, m.waiting = m.waiting, nil
	}
	for {
		select {
		case q := <-m.requests:
			m.pending = append(m.pending, q)
		default:
			return
		}
	}
}

// answer ends the pending requests, but for those that failed and may be tried again.
func (m *manager) answer(o outcome) {
	var again []*request
	for _, q := range m.pending {
		if q.tried++; o.err != nil && q.tried < attempts {
			again = append(again, q)
			continue
		}
		q.done <- o
	}
	m.pending = again
}

// ask waits for what the request asks for, begun after the call. It fails with errNotLeader where another server leads.
func (m *manager) ask(ctx context.Context, q *request) (*layout.Layout, error) {
	q.done = make(chan outcome, 1)
	if err := m.hand(ctx, q); err != nil {
		return nil, err
	}
	select {
	case o := <-q.done:
		return o.layout, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hand gives a request to the manager's goroutine, which listens only while this server leads.
func (m *manager) hand(ctx context.Context, q *request) error {
	for {
		change := m.store.changes()
		if err := m.takeOver(ctx); err != nil {
			return err
		}
		select {
		case m.requests <- q:
			return nil
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// takeOver waits while Raft has elected this server and the manager has not begun to lead yet.
func (m *manager) takeOver(ctx context.Context) error {
	for m.store.elected() {
		if m.status().leader {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(leadPoll):
		}
	}
	return errNotLeader
}

func (m *manager) set(fn func(*shown)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn(&m.show)
}

func (m *manager) status() shown {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.show
}

// lost is how many of a member's corrupt copies nobody can restore.
func (m *manager) lost(x shownMember) int {
	if x.unit == 0 {
		return 0
	}
	return m.repairer.lost(x.unit)
}
