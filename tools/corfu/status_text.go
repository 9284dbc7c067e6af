package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/proto"

	"corfu/internal/clusterstatus"
	"corfu/internal/wire/pb"
)

// style is how a line looks on a terminal.
type style string

const (
	plain style = ""
	good  style = "\x1b[1;32m"
	warn  style = "\x1b[1;33m"
	bad   style = "\x1b[1;31m"
	head  style = "\x1b[1m"
	faint style = "\x1b[2m"
	reset       = "\x1b[0m"
)

// line is one line of a status, without its end.
type line struct {
	style style
	text  string
}

// standsBy is the state of a spare, or of a sequencer, that can take a place.
const standsBy = "stands by"

// historyShown is how many reconfigurations the text shows; -o json has them all.
const historyShown = 5

// statusLines is the status as text: the verdict first, then what there is, the most important first.
func statusLines(m *pb.ClusterStatus) []line {
	lines := append(verdictLines(m), errorLines(m)...)
	if m.Epoch > 0 {
		lines = append(lines, line{}, line{plain, summary(m)})
	}
	for _, block := range [][]line{unitLines(m), copyLines(m), sequencerLines(m), serverLines(m), historyLines(m)} {
		if len(block) > 0 {
			lines = append(append(lines, line{}), block...)
		}
	}
	return lines
}

// verdictLines is one line for each problem, or the good news.
func verdictLines(m *pb.ClusterStatus) (lines []line) {
	if len(m.Problems) == 0 {
		return []line{{good, m.Verdict}}
	}
	for i, p := range m.Problems {
		s, name := warn, p.Severity
		if p.Severity == clusterstatus.Down {
			s = bad
		}
		if name = strings.ToUpper(name); i > 0 {
			name = "and " + p.Severity
		}
		text := fmt.Sprintf("%s: %s.", name, p.What)
		if p.Todo != "" {
			text += " To do: " + p.Todo + "."
		}
		lines = append(lines, line{s, text})
	}
	return lines
}

func summary(m *pb.ClusterStatus) string {
	s := fmt.Sprintf("epoch %d, tail %s, %s appends/s, %s to and from flash, durability %s", m.Epoch, clusterstatus.Grouped(m.Tail), rate(m.AppendsPerSecond),
		bytesRate(m.BytesPerSecond), m.Durability)
	if m.MaxSessions != 0 {
		s += fmt.Sprintf(", max_sessions %d", m.MaxSessions)
	}
	if m.EpochInProgress != 0 {
		s += fmt.Sprintf("; going to epoch %d (%s)", m.EpochInProgress, m.Phase)
	}
	return s
}

// sessionsOf is how many sessions a unit has, of how many.
func sessionsOf(u *pb.UnitStatus) string {
	if u.SessionsMax == 0 {
		return fmt.Sprint(u.Sessions)
	}
	return fmt.Sprintf("%s of %s", clusterstatus.Grouped(uint64(u.Sessions)), clusterstatus.Grouped(uint64(u.SessionsMax)))
}

// unitLines are the chains that take new entries with their units, then units of older chains only, then spares.
func unitLines(m *pb.ClusterStatus) []line {
	if len(m.Units) == 0 {
		return nil
	}
	t := newTable("CHAIN", "UNIT", "STATE", "WRITES/S", "COLD READS/S", "USED", "CORRUPT", "SESSIONS", "CONTROL")
	seen := map[uint32]bool{}
	row := func(chain string, u *pb.UnitStatus) {
		seen[u.Id] = true
		t.add(rowStyle(m, u.Role, u.State, u.Epoch, u.SilentMs), chain, fmt.Sprint(u.Id), memberState(u.State, stateWord(u), u.SilentMs), rate(u.PagesPerSecond), rate(u.ColdReadsPerSecond),
			used(u), corruptCount(u), sessionsOf(u), u.Control)
	}
	if n := len(m.Segments); n > 0 {
		for _, c := range m.Segments[n-1].Chains {
			name := clusterstatus.ChainName(c)
			if c.Lacks > 0 {
				name += fmt.Sprintf(" (%d lacking)", c.Lacks)
			}
			for i, id := range c.Units {
				if u := unitOf(m, id); u != nil {
					if i > 0 {
						name = ""
					}
					row(name, u)
				}
			}
		}
	}
	for _, u := range m.Units {
		if !seen[u.Id] && u.Role == "serves" {
			row("older", u)
		}
	}
	for _, u := range m.Units {
		if !seen[u.Id] {
			if u.State == "closed" {
				u = proto.Clone(u).(*pb.UnitStatus)
				u.State = standsBy
			}
			row("spare", u)
		}
	}
	return t.lines()
}

func unitOf(m *pb.ClusterStatus, id uint32) *pb.UnitStatus {
	for _, u := range m.Units {
		if u.Id == id {
			return u
		}
	}
	return nil
}

// rowStyle marks members that are not as they should be.
func rowStyle(m *pb.ClusterStatus, role, state string, epoch, silent uint64) style {
	switch {
	case state == "unreachable":
		return bad
	case silent > 0, role == "serves" && (state != "open" || epoch != m.Epoch):
		return warn
	case role != "serves":
		return faint
	}
	return plain
}

// longState is beyond how many bytes an error would make the whole table wide.
const longState = 40

// stateWord is a unit's error, as short as a column takes it; errorLines has the sentence.
func stateWord(u *pb.UnitStatus) string {
	switch {
	case u.Past == clusterstatus.PastLost:
		return "went back"
	case u.Past != "":
		return u.Past
	case len(u.Error) > longState:
		return "see above"
	}
	return u.Error
}

// errorLines says behind the verdict what is too long for a column, unless a problem has it.
func errorLines(m *pb.ClusterStatus) (lines []line) {
	for _, u := range m.Units {
		said := slices.ContainsFunc(m.Problems, func(p *pb.Problem) bool { return strings.Contains(p.What, u.Error) })
		if u.Error != "" && u.Error != stateWord(u) && !said {
			lines = append(lines, line{plain, fmt.Sprintf("unit %d is %s: %s.", u.Id, u.State, strings.TrimSuffix(u.Error, "."))})
		}
	}
	return lines
}

func memberState(state, why string, silent uint64) string {
	switch {
	case why != "":
		return state + " (" + why + ")"
	case silent > 0:
		return fmt.Sprintf("%s (silent for %.1f s)", state, float64(silent)/1000)
	}
	return state
}

func used(u *pb.UnitStatus) string {
	if u.UsedBytes == 0 && u.FreeBytes == 0 {
		return "-"
	}
	return fmt.Sprintf("%s of %s", bytesText(float64(u.UsedBytes)), bytesText(float64(u.UsedBytes+u.FreeBytes)))
}

func corruptCount(u *pb.UnitStatus) string {
	if u.Lost == 0 {
		return fmt.Sprint(u.Corrupt)
	}
	return fmt.Sprintf("%d (%d lost)", u.Corrupt, u.Lost)
}

func copyLines(m *pb.ClusterStatus) (lines []line) {
	for _, c := range m.Copies {
		lines = append(lines, line{plain, fmt.Sprintf("copy of older positions to unit %d: %s", c.Unit, clusterstatus.CopyText(c))})
	}
	for _, u := range m.Units {
		if u.Scrubbing {
			text := fmt.Sprintf("scrub of unit %d: %.0f %%", u.Id, 100*u.Scrubbed)
			if u.ScrubWaiting != "" {
				text += ", waits: " + u.ScrubWaiting
			}
			lines = append(lines, line{plain, text})
		}
	}
	return lines
}

func sequencerLines(m *pb.ClusterStatus) []line {
	if len(m.Sequencers) == 0 {
		return nil
	}
	t := newTable("SEQUENCER", "STATE", "NEXT", "SESSIONS", "CONTROL")
	for _, s := range m.Sequencers {
		state := memberState(s.State, s.Error, s.SilentMs)
		if s.Role != "serves" && s.State != "unreachable" {
			state = standsBy
		}
		t.add(rowStyle(m, s.Role, s.State, s.Epoch, s.SilentMs), fmt.Sprint(s.Id), state, clusterstatus.Grouped(s.Next), fmt.Sprint(s.Sessions), s.Control)
	}
	return t.lines()
}

func serverLines(m *pb.ClusterStatus) []line {
	if len(m.LayoutServers) == 0 {
		return nil
	}
	t := newTable("LAYOUT SERVER", "ROLE", "TERM", "EPOCH", "HEARD OF LEADER", "CONTROL")
	for _, s := range m.LayoutServers {
		id := "?"
		if s.Id != 0 {
			id = fmt.Sprint(s.Id)
		}
		if s.Role == "unreachable" {
			t.add(bad, id, memberState(s.Role, s.Error, 0), "", "", "", s.Control)
			continue
		}
		heard := "leads"
		if s.Role != "leader" {
			heard = (time.Duration(s.LastContactMs) * time.Millisecond).String() + " ago"
		}
		t.add(plain, id, s.Role, fmt.Sprint(s.Term), fmt.Sprint(s.Epoch), heard, s.Control)
	}
	return t.lines()
}

func historyLines(m *pb.ClusterStatus) []line {
	if len(m.Reconfigurations) == 0 {
		return nil
	}
	t := newTable("EPOCH", "WHEN", "TOOK", "WHAT", "WHY")
	for i, r := range m.Reconfigurations {
		if i == historyShown {
			break
		}
		s, when, took, what := plain, "under an earlier leader", "", strings.Join(r.Changes, "; ")
		if r.AtMs != 0 {
			when, took = ago(m.AtMs, r.AtMs), tookText(r)
		}
		if r.Result != "active" {
			s, what = warn, r.Result
			if r.Error != "" {
				what += ": " + r.Error
			}
			if r.Attempts > 1 {
				what += fmt.Sprintf(" (%d attempts)", r.Attempts)
			}
		}
		t.add(s, fmt.Sprint(r.Epoch), when, took, what, r.Reason)
	}
	return t.lines()
}

// tookText is how long a reconfiguration took, and which phase the longest.
func tookText(r *pb.ReconfigurationStatus) string {
	var longest *pb.PhaseStatus
	for _, p := range r.Phases {
		if longest == nil || p.TookMs > longest.TookMs {
			longest = p
		}
	}
	s := (time.Duration(r.TookMs) * time.Millisecond).String()
	if longest != nil && longest.TookMs > 0 {
		s += fmt.Sprintf(" (%s %s)", longest.Name, time.Duration(longest.TookMs)*time.Millisecond)
	}
	return s
}

// ago is how long before now it was, in the largest unit that tells something.
func ago(now, then uint64) string {
	d := time.Duration(int64(now-then)) * time.Millisecond
	switch {
	case d < 0:
		return "now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0fs ago", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0fm ago", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0fh ago", d.Hours())
	}
	return fmt.Sprintf("%.0fd ago", d.Hours()/24)
}

func rate(r float64) string {
	if r > 0 && r < 9.95 {
		return fmt.Sprintf("%.1f", r)
	}
	return clusterstatus.Grouped(uint64(r + 0.5))
}

func bytesRate(r float64) string { return bytesText(r) + "/s" }

func bytesText(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB", "TiB"} {
		if n < 999.5 {
			if unit == "B" || n >= 99.95 {
				return fmt.Sprintf("%.0f %s", n, unit)
			}
			return fmt.Sprintf("%.1f %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.0f PiB", n)
}

// table is rows of cells in columns, each row with its style.
type table struct {
	text   strings.Builder
	w      *tabwriter.Writer
	styles []style
}

func newTable(columns ...string) *table {
	t := &table{}
	t.w = tabwriter.NewWriter(&t.text, 0, 0, 2, ' ', 0)
	t.add(head, columns...)
	return t
}

func (t *table) add(s style, cells ...string) {
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
	t.styles = append(t.styles, s)
}

func (t *table) lines() []line {
	_ = t.w.Flush() // to a string
	var lines []line
	for i, text := range strings.Split(strings.TrimSuffix(t.text.String(), "\n"), "\n") {
		lines = append(lines, line{t.styles[i], strings.TrimRight(text, " ")})
	}
	return lines
}
