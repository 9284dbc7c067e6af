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
)

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
	vouch     *voucher
	vitals    *vitals
	history   history
	reach     reach
	ownFault  string    // why the leader's own link to the fabric is taken for broken, as was said last
	differ    string    // what was logged of addresses last
	warned    bool      // of a bootstrap layout that does not fit
	noted     time.Time // when what members have was written down last (rule R23)
	others    *others
	stops     stops
	passing   sync.WaitGroup // calls that pass on who stops

	asker      uint64 // tells this layout server from others at the units
	recovering recovering

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
	down    string // why the leader's own link to the fabric is taken for broken
	members []shownMember

	differences []string // between the layout and the layout servers' configurations
}

type shownMember struct {
	name, control string
	role          string
	unit          layout.UnitID // 0: a sequencer
	seq           layout.SequencerID
	report        report
	silent        time.Duration // since its last answer, if the last heartbeat had none
	unreached     string        // why the fabric does not reach it; "": it does, or nobody tried
	stopped       time.Duration // since it announced that it is stopped on purpose; 0: it did not, or is back
	waited        time.Duration // for how long the log waits for it yet; 0: it does not
}

func newManager(cfg Config, st *store, m *metrics) *manager {
	asker := newAsker()
	return &manager{cfg: cfg, log: cfg.Logger, store: st, metrics: m, requests: make(chan *request), rebuilder: &rebuilder{cfg: cfg, log: cfg.Logger, metrics: m},
		asker: asker, members: members{asker: asker, options: cfg.DialOptions, device: cfg.Device, limit: cfg.FailAfter}, reach: reach{log: cfg.Logger, reports: newReports()}, repairer: newRepairer(cfg, m), vouch: newVoucher(cfg, asker), vitals: newVitals()}
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
	m.passing.Wait()
	m.members.close()
	m.vitals.forget()
	m.reach.forget()
	m.recovering = recovering{}
	m.ownFault = ""
	m.store.trouble.Store(nil)
	m.metrics.notLeading()
}

// lead polls, judges and acts until the term is over.
func (m *manager) lead(ctx context.Context, term uint64) {
	owner := layout.Owner(term<<16 | uint64(m.cfg.ID))
	tick := time.NewTicker(m.cfg.Poll)
	defer tick.Stop()
	defer m.repairer.lead(ctx)()
	defer m.rebuilder.end()
	defer m.vouch.forget()
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
	m.noteMembers(active, time.Now())
	sc := m.scene(active, shape, m.asksSessions() && m.resizes())
	if active == nil {
		sc.recovers = m.mayRecover(ctx, time.Now())
		if built, _ := m.store.fsm.active.get(); built != nil {
			return nil // what the members were asked for was another log
		}
	}
	sc.unnamed = m.unnamed()
	m.namePast(sc)
	sc.stuck = m.repairer.stuckIn(active)
	j := sc.judge()
	if len(j.activate) > 0 {
		m.activate(ctx, active, j.activate)
		m.poll(ctx, shape)
		j = sc.judge()
	}
	m.progress(j)
	m.set(func(s *shown) { s.wanted, s.least = sc.replicas, sc.min() })
	m.repairer.offer(active, m.members.list, sc.left)
	m.vouch.follow(ctx, active, sc.left, &m.members, m.store)
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
	case sc.unheard() != "": // asked for an epoch, which nothing else asks for
		m.refuse(fmt.Errorf("%w: %s", errUnreachable, sc.unheard()))
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
	m.compare(founding, active)
	shape := founding.Next(0, 0)
	if active != nil {
		shape = active.Next(active.Epoch, active.Start)
	}
	switch {
	case m.cfg.Bootstrap == nil:
	case m.agrees(founding):
		moveTo(shape, m.agreed())
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
	return b != nil && b.Geometry.Follows(founding.Geometry) && b.Durability == founding.Durability && (b.Log.IsZero() || b.Log == founding.Log)
}

// activate opens the epoch at members that missed it: its verdict is ACTIVE, since active is the store's.
func (m *manager) activate(ctx context.Context, active *layout.Layout, list []*member) {
	openAll(ctx, list, active, m.store.past(nil).base.Ref(), m.cfg.hangTimeout(), func(x *member, began time.Time, err error) {
		if err == nil {
			x.refusal = refusal{}
			return
		}
		m.log.Warn("a member missed the activation and refuses it now", "err", err)
		if ownFault(err) {
			m.note(blame{x, taskActivate, began, err})
		}
	})
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
		text = cmp.Or(j.away, "no answer from "+j.unsure)
	case j.reconfigure != "":
		text = "to do: " + j.reconfigure
	}
	trouble := cmp.Or(wait, j.away)
	m.store.trouble.Store(&trouble)
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
		change: j.change, copied: sc.copied, drained: sc.drained(j.change), givenUp: sc.givenUp, accepted: sc.past.accepted, names: m.names(), vouch: m.vouch,
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
		if !errors.Is(err, errImpossible) {
			m.backoff = min(max(2*m.backoff, backoffMin), backoffMax)
			m.notBefore = time.Now().Add(m.backoff)
			m.answer(outcome{err: err})
		} else {
			m.deny(err) // the next epoch is made without what was asked for
		}
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

// provider is what the sequencer that serves speaks over the fabric; "": it is not known.
func (m *manager) provider() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.show.members {
		if x.unit == 0 && x.role == "" {
			return x.report.provider
		}
	}
	return ""
}
