package clusterstatus

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"corfu/internal/wire/pb"
)

const (
	// nearlyFull is the part of a unit's room beyond which it is time to do something.
	nearlyFull = 0.9

	stateOpen        = "open"
	stateUnreachable = "unreachable"
	roleServes       = "serves"

	addSpare = "add a spare (corfu unit add ID=HOST:PORT)"
	makeRoom = "trim what is not needed any more (corfu trim --prefix), or give the unit more room"
)

// judge gathers the problems of one status.
type judge struct{ m *pb.ClusterStatus }

// Judge fills in the problems of m, the worst first, and its verdict.
func Judge(m *pb.ClusterStatus) {
	m.Problems = nil
	j := judge{m}
	j.progress()
	j.chains()
	j.units()
	j.sequencers()
	j.spares()
	j.layoutServers()
	j.differences()
	j.reach()
	slices.SortStableFunc(m.Problems, func(a, b *pb.Problem) int { return rank(a.Severity) - rank(b.Severity) })
	m.Verdict = Healthy
	if len(m.Problems) > 0 {
		m.Verdict = m.Problems[0].Severity
	}
}

func rank(severity string) int {
	if severity == Down {
		return 0
	}
	return 1
}

func (j judge) say(severity, todo, what string, args ...any) {
	j.m.Problems = append(j.m.Problems, &pb.Problem{Severity: severity, What: fmt.Sprintf(what, args...), Todo: todo})
}

// progress says whether the log has an epoch, and whether the leader can keep it going.
func (j judge) progress() {
	switch m := j.m; {
	case m.Waiting != "":
		j.stuck()
	case m.Epoch == 0:
		j.say(Down, patience("a minute", leaderLog), "the log has no active epoch yet")
	case m.EpochInProgress != 0:
		j.say(Degraded, patience("a minute", leaderLog), "epoch %d is being made (%s): appends pause", m.EpochInProgress, m.Phase)
	}
}

// stuck says for whom the cluster waits.
func (j judge) stuck() {
	var names, start []string
	units := 0
	for _, u := range j.m.Units {
		if u.Role == roleServes && u.State == stateUnreachable {
			units++
			name := fmt.Sprintf("unit %d", u.Id)
			names = append(names, called(name, u.Absence, u.Error))
			if u.Past != PastAnotherLog { // the reason says what to do
				start = append(start, restart(name, u.Control, u.Absence))
			}
		}
	}
	for _, s := range j.m.Sequencers {
		if s.Role == roleServes && s.State == stateUnreachable {
			name := fmt.Sprintf("sequencer %d", s.Id)
			names = append(names, called(name, s.Absence, s.Error))
			start = append(start, restart(name, s.Control, s.Absence))
		}
	}
	switch {
	case len(names) == 0:
		j.say(Down, j.mendRefusing(), "appends wait: %s", j.m.Waiting)
		return
	case slices.ContainsFunc(j.m.Units, func(u *pb.UnitStatus) bool { return u.Role == roleServes && u.Past == PastAnotherLog }):
		j.say(Down, strings.Join(start, ", and "), "appends wait: %s", j.m.Waiting)
		return
	case j.m.Epoch == 0: // there is no layout that a spare could be added to
		j.say(Down, strings.Join(start, ", and "), "the log has no active epoch yet: it waits for %s", strings.Join(names, " and "))
		return
	case units > 0:
		start = append(start, addSpare)
	}
	verb := "does not answer, and nothing can take its place"
	if len(names) > 1 {
		verb = "do not answer, and nothing can take their place"
	}
	why := ""
	if n := j.shortest(); units > 0 && n >= 0 && n < int(j.m.MinReplicas) {
		why = fmt.Sprintf(": a chain would have %d of at least %d units (min_replicas)", n, j.m.MinReplicas)
	}
	j.say(Down, strings.Join(start, ", or "), "appends wait: %s %s%s", strings.Join(names, " and "), verb, why)
	if stores := j.mendStores(); stores != "" { // beside those that do not answer
		j.say(Down, stores, "appends wait: %s", j.m.Waiting)
	}
}

// mendRefusing says what to do about members that answer and serve, and do not do what the leader asks of them; "": there are none.
func (j judge) mendRefusing() string {
	var list []string
	if stores := j.mendStores(); stores != "" {
		list = append(list, stores)
	}
	for _, u := range j.m.Units {
		if u.Role == roleServes && refuses(u.State, u.Error) && u.Past != PastLost {
			list = append(list, mendMember(u))
		}
	}
	for _, s := range j.m.Sequencers {
		if s.Role == roleServes && refuses(s.State, s.Error) && s.FabricError != "" {
			list = append(list, mendFabric(fmt.Sprintf("sequencer %d", s.Id), s.Fabric)+", or add a standby")
		} else if s.Role == roleServes && refuses(s.State, s.Error) {
			list = append(list, fmt.Sprintf("mend sequencer %d at %s and start it again, or add a standby", s.Id, s.Control))
		}
	}
	return strings.Join(list, "; ")
}

func mendUnit(u *pb.UnitStatus) string {
	return fmt.Sprintf("mend unit %d at %s (its disk, mostly) and start it again, or %s", u.Id, u.Control, addSpare)
}

// refuses tells whether a member that answers has an error that the leader says of it.
func refuses(state, err string) bool { return state != stateUnreachable && err != "" }

// shortest is how many units that answer the worst chain has.
func (j judge) shortest() int {
	n := -1
	for _, c := range j.open() {
		up := 0
		for _, id := range c.Units {
			if u := j.unit(id); u != nil && u.State != stateUnreachable {
				up++
			}
		}
		if n < 0 || up < n {
			n = up
		}
	}
	return n
}

// open are the chains that take new entries.
func (j judge) open() []*pb.ChainStatus {
	if len(j.m.Segments) == 0 {
		return nil
	}
	return j.m.Segments[len(j.m.Segments)-1].Chains
}

func (j judge) unit(id uint32) *pb.UnitStatus {
	i := slices.IndexFunc(j.m.Units, func(u *pb.UnitStatus) bool { return u.Id == id })
	if i < 0 {
		return nil
	}
	return j.m.Units[i]
}

// chains says which of them are short, and how the copies go that are to mend older positions.
func (j judge) chains() {
	for _, c := range j.open() {
		if c.Lacks > 0 {
			j.say(Degraded, j.mendChain(), "chain %s has %d of %d units", ChainName(c), len(c.Units), len(c.Units)+int(c.Lacks))
		}
	}
	left := 0
	for _, c := range j.m.Copies {
		if c.Copied < c.Pages {
			left++
			todo := patience("as long as the copy takes", fmt.Sprintf("the number of pages stands still for a minute, look at the logs of the layout leader and of unit %d", c.Unit))
			if c.Error != "" {
				todo = fmt.Sprintf("it is tried again every second: mend that, or give its place to another unit (corfu unit replace %d ID=HOST:PORT)", c.Unit)
			}
			j.say(Degraded, todo, "older positions are being copied to unit %d: %s", c.Unit, CopyText(c))
		}
	}
	if n := j.m.DeficitOlder; n > 0 && left == 0 && j.m.DeficitOpen == 0 {
		j.say(Degraded, patience("a minute, in which a copy begins", leaderLog), "older positions lack %s", count(int(n), "replica"))
	}
}

// mendChain says what to do for a chain that lacks a unit.
func (j judge) mendChain() string {
	var start []string
	for _, u := range j.m.Units {
		switch {
		case u.Role == roleServes:
		case u.State == stateUnreachable:
			start = append(start, restart(fmt.Sprintf("unit %d", u.Id), u.Control, u.Absence))
		case refuses(u.State, u.Error): // said
		default:
			return patience("a minute, in which a spare joins", leaderLog)
		}
	}
	return strings.Join(append(start, addSpare), ", or ")
}

// units says what is wrong with those that serve.
func (j judge) units() {
	for _, u := range j.m.Units {
		if u.Role != roleServes {
			continue
		}
		switch {
		case j.m.Waiting != "" && (u.State == stateUnreachable || u.State != stateOpen && u.SilentMs == 0): // said, or a consequence
		case u.SilentMs > 0:
			j.silent(fmt.Sprintf("unit %d", u.Id), u.Control, u.SilentMs, u.StoppedMs, u.WaitedMs)
		case j.m.Epoch > 0 && j.m.EpochInProgress == 0 && (u.State != stateOpen || u.Epoch != j.m.Epoch):
			why := ""
			if u.Error != "" {
				why = ": " + u.Error
			}
			j.say(Degraded, patience("10 s", fmt.Sprintf("this is still shown then, look at the logs of unit %d and of the layout leader", u.Id)), "unit %d is %s at epoch %d%s", u.Id, u.State, u.Epoch, why)
		}
		j.flash(u)
		if u.Lost > 0 {
			j.say(Degraded, "start each spare that does not answer: one that left the chain may have them. The layout server's log names them; corfu trim gives them up",
				"unit %d has %s that no replica can restore: what stood there cannot be read", u.Id, count(int(u.Lost), "corrupt page"))
		}
		if n := int(u.Corrupt) - int(u.Lost); n > 0 {
			j.say(Degraded, patience("10 minutes", "there are no fewer then, the log of the layout leader says why"), "unit %d has %s, being restored from other replicas", u.Id, count(n, "corrupt page"))
		}
		if u.Tampered > 0 {
			j.say(Degraded, "its log says which; find the client that does that",
				"unit %d found %s changed as no correct client does, since it started", u.Id, count(int(u.Tampered), "word"))
		}
	}
}

func (j judge) flash(u *pb.UnitStatus) {
	if u.Full {
		j.say(Down, makeRoom, "unit %d has no room for more pages: appends to its chain will wait", u.Id)
	} else if used := Used(u); used >= nearlyFull {
		j.say(Degraded, makeRoom, "unit %d is %.0f %% full", u.Id, 100*used)
	}
}

// Used is how much of its room a unit has taken, 0 to 1.
func Used(u *pb.UnitStatus) float64 {
	if u.UsedBytes == 0 {
		return 0
	}
	return float64(u.UsedBytes) / float64(u.UsedBytes+u.FreeBytes)
}

func (j judge) sequencers() {
	for _, s := range j.m.Sequencers {
		switch {
		case s.Role != roleServes && s.State == stateUnreachable:
			j.say(Degraded, restart("it", s.Control, s.Absence), "%s, which stands by, does not answer%s",
				called(fmt.Sprintf("sequencer %d", s.Id), s.Absence, s.Error), stoppedBy(s.StoppedMs))
		case s.Role != roleServes && refuses(s.State, s.Error):
			j.say(Degraded, fmt.Sprintf("mend it at %s and start it again", s.Control), "sequencer %d is left out: %s", s.Id, s.Error)
		case s.Role != roleServes, j.m.Waiting != "" && (s.State == stateUnreachable || s.State != stateOpen && s.SilentMs == 0): // fine, said, or a consequence
		case s.SilentMs > 0:
			j.silent(fmt.Sprintf("sequencer %d", s.Id), s.Control, s.SilentMs, s.StoppedMs, s.WaitedMs)
		case j.m.Epoch > 0 && j.m.EpochInProgress == 0 && (s.State != stateOpen || s.Epoch != j.m.Epoch):
			j.say(Degraded, patience("10 s", fmt.Sprintf("this is still shown then, look at the logs of sequencer %d and of the layout leader", s.Id)), "sequencer %d is %s at epoch %d", s.Id, s.State, s.Epoch)
		}
	}
}

// spares says which of them are gone. Of a chain that waits for one it was said.
func (j judge) spares() {
	for _, u := range j.m.Units {
		if u.Role != roleServes && refuses(u.State, u.Error) {
			j.say(Degraded, mendMember(u), "unit %d is left out: %s", u.Id, u.Error)
		}
		if u.Role != roleServes && u.State == stateUnreachable && j.m.DeficitOpen == 0 {
			j.say(Degraded, fmt.Sprintf("%s, or forget it (corfu unit remove %d)", restart("it", u.Control, u.Absence), u.Id), "%s does not answer%s",
				called(fmt.Sprintf("spare %d", u.Id), u.Absence, u.Error), stoppedBy(u.StoppedMs))
		}
	}
}

func (j judge) layoutServers() {
	var names, start []string
	all, ill := len(j.m.LayoutServers), 0
	for _, s := range j.m.LayoutServers {
		if s.Role == stateUnreachable {
			names = append(names, called(fmt.Sprint(s.Id), s.Absence, s.Error))
			start = append(start, restart(fmt.Sprintf("layout server %d", s.Id), s.Control, s.Absence))
		} else if what, _ := ailing(s); what != "" {
			ill++
		}
	}
	left := all - len(names) - ill - (all/2 + 1)
	more := fmt.Sprintf("%d more may fail", left)
	severity := Degraded
	switch {
	case left < 0:
		more, severity = "no epoch can be made and no client can begin", Down
	case left == 0:
		more = "no other may fail"
	}
	for _, s := range j.m.LayoutServers {
		if what, todo := ailing(s); what != "" && s.Role != stateUnreachable {
			j.say(severity, todo, "%s: %s", what, more)
		}
	}
	if len(names) == 0 {
		return
	}
	verb := "does not answer"
	if len(names) > 1 {
		verb = "do not answer"
	}
	j.say(severity, strings.Join(start, ", "), "layout server %s of %d %s: %s", strings.Join(names, ", "), all, verb, more)
}

// differences says where configurations name other addresses than the layout.
func (j judge) differences() {
	for _, text := range j.m.Differences {
		j.say(Degraded, "name one address in the configurations of all layout servers, and restart those that were changed", "%s: the layout's is used", text)
	}
}

// ChainName names a chain by its units, head first: "1-2".
func ChainName(c *pb.ChainStatus) string {
	var names []string
	for _, u := range c.Units {
		names = append(names, fmt.Sprint(u))
	}
	return strings.Join(names, "-")
}

// CopyText says how far a copy is.
func CopyText(c *pb.CopyStatus) string {
	text := fmt.Sprintf("%s of %s", Grouped(c.Copied), count(int(c.Pages), "page"))
	if c.Pages > 0 {
		text = fmt.Sprintf("%d %%, %s", 100*c.Copied/c.Pages, text)
	}
	switch {
	case c.Copied >= c.Pages:
		return text + ", joins next"
	case c.Error != "":
		return text + ", does not go on: " + c.Error
	case c.SecondsLeft >= 0:
		return text + ", about " + time.Duration(c.SecondsLeft*float64(time.Second)).Round(time.Second).String() + " left"
	}
	return text
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%s %ss", Grouped(uint64(n)), what)
}

func ms(n uint64) string {
	return fmt.Sprintf("%.1f s", float64(n)/1000)
}

// Grouped is n with commas between thousands.
func Grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
