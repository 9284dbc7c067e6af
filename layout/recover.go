package layout

import (
	"errors"
	"fmt"
	"slices"
)

// Seal is what a unit that was sealed for a new epoch says of itself.
type Seal struct {
	Unit         UnitID
	Intact       Epoch   // it has served this epoch, or was reconciled for it, without a restart since; 0: not intact (rule R16)
	Watermark    Address // every address below is durable, junk or trimmed here
	End          Address // first address above all entries, trimmed ones included
	TrimmedBelow Address // every address below is trimmed here

	Corrupt     []Address // whose copy here is known to be CORRUPT, ascending (rule R16)
	MoreCorrupt bool      // there are more of them than can be named

	Store StoreState // of rules R21 to R25
	Trust Trust      // what the store counts for, by Record.Judge; the zero value: all
}

// Seals are the answers of the units that were sealed.
type Seals map[UnitID]Seal

// UnsealedError says which chain of the base cannot be recovered from the units that were sealed. More of them must
// come back.
type UnsealedError struct {
	Segment, Stripe int
	Units           []UnitID // of the chain
	Sealed          []UnitID // those of them that were sealed, with a store that counts
	Lost            []UnitID // those of them that were sealed, and whose stores lost their past (rules R22, R23)
	Durability      Durability
}

func (e *UnsealedError) Error() string {
	need := "an intact one, the tail, or all"
	if e.Durability == Memory {
		need = "an intact one"
	}
	text := fmt.Sprintf("chain %d of segment %d, units %v: only %v sealed, without %s of them (rule R16)",
		e.Stripe, e.Segment, e.Units, e.Sealed, need)
	if len(e.Lost) > 0 {
		text += fmt.Sprintf("; the stores of units %v have lost their past and do not count (rules R22, R23)", e.Lost)
	}
	return text
}

// SealedEnough checks rule R16: every chain of base was sealed with an intact member, or its tail, or all its members; under
// Memory with an intact member. A member whose store lost its past counts for nothing (rules R22, R23). Of a chain of which an operator gave
// up members, all others are enough. A nil base (epoch 0) has no chains. It fails with an *UnsealedError.
func SealedEnough(base *Layout, seals Seals, givenUp []UnitID) error {
	if base == nil {
		return nil
	}
	for i, s := range base.Segments {
		for j, c := range s.Chains {
			var sealed, lost []UnitID
			intact, abandoned := false, 0
			for _, u := range c.Units {
				if contains(givenUp, u) {
					abandoned++
				}
				if r, ok := seals[u]; ok && r.Trust != Trusted {
					lost = append(lost, u)
				} else if ok {
					sealed = append(sealed, u)
					intact = intact || r.Intact == base.Epoch
				}
			}
			flash := slices.Contains(sealed, c.Tail()) || len(sealed) == len(c.Units)
			if abandoned > 0 && len(sealed) > 0 && othersSealed(c, sealed, givenUp) {
				continue
			}
			if !intact && (base.Durability == Memory || !flash) {
				return &UnsealedError{Segment: i, Stripe: j, Units: c.Units, Sealed: sealed, Lost: lost, Durability: base.Durability}
			}
		}
	}
	return nil
}

// othersSealed reports whether all members of a chain were sealed but for those that were given up.
func othersSealed(c Chain, sealed, givenUp []UnitID) bool {
	return !slices.ContainsFunc(c.Units, func(u UnitID) bool { return !contains(sealed, u) && !contains(givenUp, u) })
}

// StartAfter is where the sequencer of the next epoch starts (rule R20): behind the last entry of any sealed unit of
// any chain, and never before the base's own start. It fails with ErrBeyond if no position is left.
func StartAfter(base *Layout, seals Seals) (Position, error) {
	if base == nil {
		return 0, nil
	}
	start := base.Start
	for i, s := range base.Segments {
		for j, c := range s.Chains {
			for _, u := range c.Units {
				// Each segment has addresses of its own at a unit, so what the unit holds of this chain ends at
				// the chain's own limit.
				end := min(seals[u].End, base.limit(i, j))
				if end <= c.Base {
					continue
				}
				last, ok := base.PositionAt(u, end-1)
				if !ok || last == MaxPosition {
					return 0, fmt.Errorf("unit %d has an entry at address %d: no position follows: %w", u, end-1, ErrBeyond)
				}
				start = max(start, last+1)
			}
		}
	}
	return start, nil
}

// Doubt gives the addresses [from, to) of a chain of the base at which its sealed members may differ (rule R17): below from
// all of them have what was decided, durable; at to and above none has anything.
func Doubt(base *Layout, segment, stripe int, seals Seals) (from, to Address) {
	c := base.Segments[segment].Chains[stripe]
	limit := base.limit(segment, stripe)
	from, to = limit, c.Base
	for _, u := range c.Units {
		if s, ok := seals[u]; ok {
			from = min(from, s.Watermark)
			to = max(to, min(s.End, limit))
		}
	}
	from = max(from, c.Base)
	return from, max(from, to)
}

// TrimmedBelow is below which address unit u must count everything as trimmed in the next layout, since a member of the base
// does that has positions which are u's in the next one. What u trimmed itself counts if it is a member of the base; else it is wiped.
func TrimmedBelow(base, next *Layout, u UnitID, seals Seals) Address {
	if base == nil {
		return 0
	}
	var t Address
	if base.IsMember(u) {
		t = seals[u].TrimmedBelow
	}
	for i, s := range base.Segments {
		for j, c := range s.Chains {
			// Where the chain's first position is u's, all of this segment is.
			p, err := next.Locate(s.Start + Position(j))
			if err != nil || !contains(p.Chain.Units, u) || base.limit(i, j) == c.Base {
				continue
			}
			for _, v := range c.Units {
				// Only what v says of this chain counts: elsewhere its addresses hold other positions.
				if w := min(seals[v].TrimmedBelow, base.limit(i, j)); w > c.Base {
					t = max(t, w)
				}
			}
		}
	}
	return t
}

// Holding is what a sealed unit has at one address.
type Holding struct {
	Address Address
	Kind    Kind
	Attempt Attempt // of an entry
}

// Kind of a Holding, in ascending order of what wins (rule R17).
type Kind uint8

// The kinds.
const (
	HoldsNothing Kind = iota
	HoldsCorrupt      // something was published, and does not verify here: another member may know what
	HoldsJunk
	HoldsEntry
	HoldsTrimmed
)

func (k Kind) String() string {
	names := [...]string{"nothing", "corrupt", "junk", "entry", "trimmed"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Listing is what one sealed member of the base has, by ascending addresses; one that is not listed holds nothing.
type Listing struct {
	Unit     UnitID
	Holdings []Holding
}

// Copy says what was decided for an address, and which units have not got it yet.
type Copy struct {
	Holding
	Source UnitID   // who has the page; 0 if there is none to copy
	Lacks  []UnitID // in the order of the listings, then the fresh units
}

// ErrConflict: two sealed members of a chain have different entries at one address. No run that keeps the rules ends so: stop, and
// let nobody go on before it is understood.
var ErrConflict = errors.New("invariant broken: a chain holds two different entries at one address")

// ErrOrder: a listing does not ascend. The unit that sent it is broken.
var ErrOrder = errors.New("a unit's entries do not ascend")

// PlanCopies decides, by rule R17, what stands at every address that any of the listings names: any entry found wins, trimmed
// anywhere is trimmed everywhere. fresh are units that have nothing of the chain yet. Addresses that nobody lacks are left
// out. It fails with ErrConflict or ErrOrder.
func PlanCopies(listings []Listing, fresh []UnitID) ([]Copy, error) {
	return plan(listings, fresh, false)
}

// PlanSameEpoch decides what units get while the epoch that the listings are of goes on: a copy of an older range, or of one that is
// CORRUPT. An entry that any member shows wins over a trim that others show: the trim has not come down the chain, and the units that get
// something are behind some of those that have the entry. Were they to show "trimmed", readers would, and after their loss the entry again
// (docs/model, trim-one-sided). Nothing is sent to who has trimmed.
func PlanSameEpoch(listings []Listing, fresh []UnitID) ([]Copy, error) {
	return plan(listings, fresh, true)
}

// rank is what wins over what.
func rank(k Kind, sameEpoch bool) int {
	if sameEpoch && k == HoldsTrimmed {
		return 2*int(HoldsCorrupt) + 1
	}
	return 2 * int(k)
}

func plan(listings []Listing, fresh []UnitID, sameEpoch bool) ([]Copy, error) {
	for _, l := range listings {
		for i := 1; i < len(l.Holdings); i++ {
			if a, b := l.Holdings[i-1].Address, l.Holdings[i].Address; a >= b {
				return nil, fmt.Errorf("unit %d: address %d after %d: %w", l.Unit, b, a, ErrOrder)
			}
		}
	}
	var copies []Copy
	next := make([]int, len(listings))
	for {
		a, ok := lowest(listings, next)
		if !ok {
			return copies, nil
		}
		c, err := decide(a, listings, next, sameEpoch)
		if err != nil {
			return nil, err
		}
		c.Lacks = append(c.Lacks, fresh...)
		if len(c.Lacks) > 0 {
			copies = append(copies, c)
		}
	}
}

// lowest is the lowest address that stands next in a listing.
func lowest(listings []Listing, next []int) (a Address, ok bool) {
	for i, l := range listings {
		if next[i] < len(l.Holdings) && (!ok || l.Holdings[next[i]].Address < a) {
			a, ok = l.Holdings[next[i]].Address, true
		}
	}
	return a, ok
}

// decide takes address a off all listings and decides it.
func decide(a Address, listings []Listing, next []int, sameEpoch bool) (Copy, error) {
	c := Copy{Holding: Holding{Address: a}}
	held := make([]Kind, len(listings))
	var known Holding // the junk or entry that stands here, at whatever unit
	for i, l := range listings {
		if next[i] == len(l.Holdings) || l.Holdings[next[i]].Address != a {
			continue
		}
		h := l.Holdings[next[i]]
		next[i]++
		held[i] = h.Kind
		if h.Kind == HoldsJunk || h.Kind == HoldsEntry {
			if known.Kind != HoldsNothing && known != h {
				return c, fmt.Errorf("address %d: %v of attempt %#x and, at unit %d, %v of attempt %#x: %w",
					a, known.Kind, uint64(known.Attempt), l.Unit, h.Kind, uint64(h.Attempt), ErrConflict)
			}
			known = h
		}
		if rank(h.Kind, sameEpoch) > rank(c.Kind, sameEpoch) {
			c.Holding, c.Source = h, 0
			if h.Kind == HoldsEntry {
				c.Source = l.Unit
			}
		}
	}
	for i, l := range listings {
		if held[i] != c.Kind && (!sameEpoch || held[i] != HoldsTrimmed) {
			c.Lacks = append(c.Lacks, l.Unit)
		}
	}
	return c, nil
}
