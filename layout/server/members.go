package server

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"corfu/internal/clusterstatus"
	"corfu/internal/control"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
	"corfu/layout"
	"corfu/rdma"
)

// What a member says of itself, and what the manager says of one that is silent.
const (
	stateOpen        = "open"
	stateSealed      = "sealed"
	stateClosed      = "closed"
	stateUnreachable = "unreachable"
)

// report is a member's last answer.
type report struct {
	state      string
	promise    layout.Epoch
	reconciled bool // units
	err        string
	foreign    bool   // units: it holds another log
	absence    string // of one that is unreachable: see clusterstatus.Absence
	store      string
	end        layout.Address
	intact     layout.Epoch     // units: rule R16
	corrupt    int              // copies there that are known to be CORRUPT,
	bad        []layout.Address // and which; ascending
	watermark  layout.Address
	past       layout.StoreState // units: what the store is (rules R21 to R25)
	copied     []*pb.CopiedRange // units: what was copied to it, and is not served yet
	trims      layout.Epoch      // units: all single trims since it was opened in this epoch are known there; 0: none is
	stuck      time.Duration     // for how long its flash has not taken a page that waits,
	stuckWhy   string            // and what it answers; "": nothing
	fabric     string            // address that clients are told to dial
	provider   string            // that it speaks; "": it did not say
	refused    string            // why it has to turn fabric connections away; "": it need not
	refusedFor time.Duration
	carried    []uint32 // clients from which something came over the fabric a moment ago
	stopping   bool     // it is being stopped on purpose

	// For those who look on.
	sessions, sessionsMax int

	resizes bool // units: an epoch may bring another max_sessions
	scrub   *pb.ScrubStatus
	next    layout.Position // sequencers, while they are open
	vitals  *pb.UnitVitals  // nil: not asked for
}

// member is a unit or a sequencer. Its report belongs to the manager.
type member struct {
	name    string // "unit 3", "sequencer 1"
	control string
	conn    *grpc.ClientConn
	asker   uint64        // by which units tell this layout server from others
	unit    layout.UnitID // 0: it is a sequencer
	seq     layout.SequencerID
	standby bool // a spare or a standby: it serves nothing
	report  report
	pulse   pulse
	asked   time.Time // when the last heartbeat was answered, or given up
	fabric  *fabricLink
	refusal refusal

	stopped   time.Time      // when it announced that it is stopped on purpose; zero: it did not, or is back
	back      time.Time      // when it was back after that; zero: never
	unreached string         // why the fabric does not reach it; "": it does, or nobody tried
	past      string         // why its store does not count, or is not wiped; "": nothing is held against it
	start     layout.StartID // of the unit, as it was sealed last (rule R24); 0: not known
}

// role is what Status calls it.
func (m *member) role() string {
	switch {
	case !m.standby:
		return ""
	case m.unit != 0:
		return roleSpare
	}
	return roleStandby
}

// silence is for how long the member has not answered; 0 if it did the last time.
func (m *member) silence() time.Duration {
	if m.pulse.missed == 0 {
		return 0
	}
	return max(m.pulse.silent, time.Millisecond)
}

// fit tells whether a spare or standby may take a place now.
func (m *member) fit(failAfter time.Duration) bool {
	return m.report.state != stateUnreachable && !m.stops() && m.pulse.missed == 0 && !m.pulse.proving(failAfter) && !m.refusal.rests(time.Now()) && !m.fabric.proving(failAfter)
}

func (m *member) units() pb.UnitServiceClient          { return pb.NewUnitServiceClient(m.conn) }
func (m *member) sequencer() pb.SequencerServiceClient { return pb.NewSequencerServiceClient(m.conn) }

// members are the connections to all units and the sequencer of a layout.
type members struct {
	options []grpc.DialOption
	asker   uint64
	device  rdma.Device   // nil: none
	limit   time.Duration // for a member to answer over the fabric
	list    []*member     // units in the layout's order, then the sequencer, then spares and standbys
	runs    time.Time     // when this leader first heard a unit of the active layout that does not start; zero: none yet
}

// follow dials what the layout names and is not known yet, and leaves what it does not name.
func (ms *members) follow(l *layout.Layout) error {
	old := map[string]*member{}
	for _, m := range ms.list {
		old[m.name+"@"+m.control] = m
	}
	var list []*member
	take := func(addr string, u layout.UnitID, s layout.SequencerID, standby bool) error {
		name := unitName(u)
		if u == 0 {
			name = sequencerName(s)
		}
		m := old[name+"@"+addr]
		delete(old, name+"@"+addr)
		if m == nil {
			conn, err := control.Dial(addr, ms.options...)
			if err != nil {
				return fmt.Errorf("%s at %s: %w", name, addr, err)
			}
			m = &member{name: name, control: addr, conn: conn, asker: ms.asker, unit: u, seq: s, report: report{state: stateUnreachable, err: "not asked yet"},
				fabric: newFabricLink(ms.device, conn, ms.limit)}
		}
		m.standby = standby
		list = append(list, m)
		return nil
	}
	var err error
	for _, u := range l.Units {
		if err == nil {
			err = take(u.Control, u.ID, 0, false)
		}
	}
	if err == nil {
		err = take(l.Sequencer.Control, 0, l.Sequencer.ID, false)
	}
	for _, u := range l.Spares {
		if err == nil {
			err = take(u.Control, u.ID, 0, true)
		}
	}
	for _, s := range l.Standbys {
		if err == nil {
			err = take(s.Control, 0, s.ID, true)
		}
	}
	ms.list = list
	for _, m := range old {
		m.close()
	}
	return err
}

func (ms *members) close() {
	for _, m := range ms.list {
		m.close()
	}
	ms.list, ms.runs = nil, time.Time{}
}

// hear notes that m answered. Whoever starts is closed (rule R19): one that is not has run since before this server led.
func (ms *members) hear(m *member, r report, active bool, now time.Time) {
	if ms.runs.IsZero() && active && m.unit != 0 && !m.standby && (r.state == stateOpen || r.state == stateSealed) {
		ms.runs = now
	}
}

func (m *member) close() {
	m.fabric.close()
	_ = m.conn.Close()
}

// each calls fn for all of the list at once and waits.
func each(list []*member, fn func(m *member)) {
	var wg sync.WaitGroup
	for _, m := range list {
		wg.Go(func() { fn(m) })
	}
	wg.Wait()
}

// poll asks the member for its state. What answers as somebody else, or for another log, counts as unreachable: nothing may be
// asked of it. clients above 0: the counters come along, of so many clients at most.
func (m *member) poll(ctx context.Context, shape *layout.Layout, clients int) report {
	var r report
	var err error
	if m.unit != 0 {
		r, err = m.pollUnit(ctx, shape.Log, clients)
	} else {
		r, err = m.pollSequencer(ctx, m.seq)
	}
	if err != nil {
		return report{state: stateUnreachable, err: status.Convert(err).Message(), foreign: r.foreign, absence: clusterstatus.Absence(err)}
	}
	return r
}

func (m *member) pollUnit(ctx context.Context, log layout.LogID, clients int) (report, error) {
	a, err := m.units().State(ctx, &pb.UnitStateRequest{Vitals: uint32(clients), Asker: m.asker})
	if err != nil {
		return report{}, err
	}
	if a.Id != uint32(m.unit) {
		return report{}, fmt.Errorf("it answers as unit %d", a.Id)
	}
	if held := layout.LogID(pad(a.Log)); !held.IsZero() && held != log {
		return report{foreign: true}, fmt.Errorf("it holds another log, %v, and this layout store is of log %v. If that is the log that you want, the directory of the layout "+
			"servers was lost or is not mounted: restore it, or build it from what the units hold (corfu layout recover)", held, log)
	}
	var bad []layout.Address
	if a.Corrupt > 0 {
		// What nobody else has decides who can be spared (rule R16).
		list, err := m.units().Corrupt(ctx, &pb.CorruptRequest{Max: math.MaxUint32})
		if err != nil {
			return report{}, err
		}
		bad = addresses(list.Addresses)
	}
	return report{past: pbconv.ToStoreState(a.StoreState), trims: layout.Epoch(a.TrimsSince), copied: a.Copied, bad: bad, watermark: layout.Address(a.Watermark), state: a.State, promise: layout.Epoch(a.Promise), reconciled: a.Reconciled, store: a.Store,
		end: layout.Address(a.End), corrupt: int(a.Corrupt), intact: layout.Epoch(a.IntactEpoch),
		stuck: time.Duration(a.StuckMs) * time.Millisecond, stuckWhy: a.Stuck, fabric: a.Fabric, provider: a.Provider, carried: a.FabricClients, refused: a.FabricRefused, refusedFor: time.Duration(a.FabricRefusedMs) * time.Millisecond,
		sessions: int(a.Sessions), sessionsMax: int(a.SessionsMax), resizes: a.Resizes, scrub: a.Scrub, vitals: a.Vitals, stopping: a.Stopping}, nil
}

func addresses(in []uint64) []layout.Address {
	out := make([]layout.Address, len(in))
	for i, a := range in {
		out[i] = layout.Address(a)
	}
	return out
}

func (m *member) pollSequencer(ctx context.Context, id layout.SequencerID) (report, error) {
	a, err := m.sequencer().State(ctx, &pb.SequencerStateRequest{})
	if err != nil {
		return report{}, err
	}
	if a.Id != uint32(id) {
		return report{}, fmt.Errorf("it answers as sequencer %d", a.Id)
	}
	return report{state: a.State, promise: layout.Epoch(a.Promise), next: layout.Position(a.Next), sessions: int(a.GetVitals().GetSessions()), fabric: a.Fabric, provider: a.Provider,
		refused: a.FabricRefused, refusedFor: time.Duration(a.FabricRefusedMs) * time.Millisecond, stopping: a.Stopping}, nil
}

// unit gives the member that is unit u, or nil.
func (ms *members) unit(u layout.UnitID) *member {
	for _, m := range ms.list {
		if m.unit == u && u != 0 {
			return m
		}
	}
	return nil
}

// pad takes no log id for a zero one.
func pad(b []byte) (id [16]byte) {
	copy(id[:], b)
	return id
}

// activate opens the member's epoch, of the record (rule R18). The caller has seen the ACTIVE verdict of l committed. Where this leader sealed
// the unit it names the start that it sealed (rule R24).
func (m *member) activate(ctx context.Context, l *layout.Layout, record layout.RecordRef) error {
	var err error
	if m.unit != 0 {
		_, err = m.units().Activate(ctx, &pb.ActivateRequest{Epoch: uint64(l.Epoch), Record: uint64(record.ID), Start: uint64(m.start)})
	} else {
		_, err = m.sequencer().Activate(ctx, &pb.SequencerActivateRequest{Log: l.Log[:], Epoch: uint64(l.Epoch), Start: uint64(l.Start)})
	}
	if err != nil {
		return fmt.Errorf("activate %s: %w", m.name, err)
	}
	return nil
}

// openAll opens l's epoch, whose verdict is ACTIVE (rule R18), at all of the list: units before the sequencer, so that the first token finds
// units that serve it. Each has all of patience: one that hangs must not be the end of those behind it, nor their fault. done is told what
// became of each, of one at a time.
func openAll(ctx context.Context, list []*member, l *layout.Layout, record layout.RecordRef, patience time.Duration, done func(m *member, began time.Time, err error)) {
	var mu sync.Mutex
	for _, sequencer := range []bool{false, true} {
		bounded, cancel := context.WithTimeout(ctx, patience)
		each(list, func(m *member) {
			if (m.unit == 0) != sequencer {
				return
			}
			began := time.Now()
			err := m.activate(bounded, l, record)
			mu.Lock()
			defer mu.Unlock()
			done(m, began, err)
		})
		cancel()
	}
}
