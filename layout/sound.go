package layout

import (
	"fmt"
	"slices"
)

// CorruptError: of entries of a chain all sealed members that should have them have CORRUPT copies, and members that were not sealed may have
// sound ones. They must come back, or what they hold is given up.
type CorruptError struct {
	Segment, Stripe int
	Sealed, Missing []UnitID // of the chain
	First           Address  // of those entries
	Count           int      // how many are known; 0: nobody knows, there are too many
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("chain %d of segment %d: %d entries, the first at address %d, are corrupt at units %v, which are there; units %v may have the only sound copies "+
		"and must come back (rule R16), or corfu unit remove --accept-loss gives them up, with all others that are given up named at once", e.Stripe, e.Segment, e.Count, e.First, e.Sealed, e.Missing)
}

// SoundEnough checks rule R16 for the entries that sealed members know to be CORRUPT: a member does not count for an entry that it cannot
// supply (docs/model, repair-corrupt-seals). For each such entry one of the members that R16 asks for must be sealed and sound, or one that
// has the entry for certain, being below its watermark; or all members are sealed, but for those that an operator gave up with what they may
// hold. SealedEnough is asked beside it. It fails with a *CorruptError.
func SoundEnough(base *Layout, seals Seals, givenUp []UnitID) error {
	if base == nil {
		return nil
	}
	for i, s := range base.Segments {
		for j, c := range s.Chains {
			if err := soundChain(base, i, j, c, seals, givenUp); err != nil {
				return err
			}
		}
	}
	return nil
}

func soundChain(base *Layout, segment, stripe int, c Chain, seals Seals, givenUp []UnitID) error {
	e := &CorruptError{Segment: segment, Stripe: stripe}
	var trimmed Address
	more := true // all that are there may have more CORRUPT copies than they know
	var suspects []Address
	for _, u := range c.Units {
		s, sealed := seals[u]
		if !sealed {
			if !contains(givenUp, u) {
				e.Missing = append(e.Missing, u)
			}
			continue
		}
		e.Sealed = append(e.Sealed, u)
		trimmed, more = max(trimmed, s.TrimmedBelow), more && s.MoreCorrupt
		suspects = append(suspects, s.Corrupt...)
	}
	if len(e.Missing) == 0 || len(e.Sealed) == 0 {
		return nil
	}
	slices.Sort(suspects)
	limit := base.limit(segment, stripe)
	for _, a := range slices.Compact(suspects) {
		if a < c.Base || a >= limit || a < trimmed || supplied(base, c, seals, a) {
			continue
		}
		if e.Count == 0 {
			e.First = a
		}
		e.Count++
	}
	if e.Count == 0 && !more {
		return nil
	}
	return e
}

// supplied tells whether the sealed members that are not CORRUPT at a are enough for what stands there.
func supplied(base *Layout, c Chain, seals Seals, a Address) bool {
	for _, u := range c.Units {
		s, sealed := seals[u]
		if _, corrupt := slices.BinarySearch(s.Corrupt, a); !sealed || corrupt || s.MoreCorrupt {
			continue
		}
		counts := s.Trust == Trusted && (s.Intact == base.Epoch || (base.Durability == Flash && u == c.Tail()))
		if a < s.Watermark || counts {
			return true
		}
	}
	return false
}

// OnlyLeaving are the addresses below to of a chain that are CORRUPT at all sealed members of the base that stay, and may be sound at one that leaves:
// it has to supply them before it goes. all: nobody can name them, since each of those that stay has more CORRUPT copies than it knows of;
// everything below to is to be compared.
func OnlyLeaving(base *Layout, segment, stripe int, seals Seals, stays func(UnitID) bool, to Address) (list []Address, all bool) {
	c := base.Segments[segment].Chains[stripe]
	count := map[Address]int{}
	staying, knowing, leaving := 0, 0, 0
	for _, u := range c.Units {
		s, sealed := seals[u]
		switch {
		case !sealed:
		case !stays(u):
			leaving++
		case s.MoreCorrupt:
			staying++ // whatever address it is, the copy may be one of those that it does not name
		default:
			staying, knowing = staying+1, knowing+1
			for _, a := range s.Corrupt {
				count[a]++
			}
		}
	}
	if leaving == 0 {
		return nil, false
	}
	for a, n := range count {
		if n == knowing && a >= c.Base && a < to {
			list = append(list, a)
		}
	}
	slices.Sort(list)
	return list, staying > 0 && knowing == 0
}
