package layout

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// sample is a valid layout: two segments; unit 5 and 6 join in the second.
func sample() *Layout {
	l := &Layout{
		Log: LogID{1}, Epoch: 7, Geometry: Geometry{PageSize: 4096, Window: 4096, SessionSlots: 64, MaxSessions: 32}, Durability: Flash, Start: 25,
		Sequencer: Sequencer{ID: 1, Control: "seq:1"},
		Segments: []Segment{
			{Start: 0, Chains: []Chain{{Units: []UnitID{1, 2}}, {Units: []UnitID{3, 4}}}},
			{Start: 21, Chains: []Chain{{Base: 11, Units: []UnitID{1, 2}}, {Base: 10, Units: []UnitID{3, 4}}, {Base: 0, Units: []UnitID{5, 6}}}},
		},
	}
	for id := UnitID(1); id <= 6; id++ {
		l.Units = append(l.Units, Unit{ID: id, Control: "unit:1"})
	}
	l.Spares, l.Standbys = []Unit{{7, "unit:7"}}, []Sequencer{{2, "seq:2"}}
	l.Leaving = []Leaving{{4, 7}}
	return l
}

func TestLocate(t *testing.T) {
	l := sample()
	for _, c := range []struct {
		p       Position
		segment int
		stripe  int
		head    UnitID
		address Address
	}{
		{0, 0, 0, 1, 0}, {1, 0, 1, 3, 0}, {2, 0, 0, 1, 1}, {19, 0, 1, 3, 9}, {20, 0, 0, 1, 10},
		{21, 1, 0, 1, 11}, {22, 1, 1, 3, 10}, {23, 1, 2, 5, 0}, {24, 1, 0, 1, 12},
	} {
		got, err := l.Locate(c.p)
		if err != nil || got.Segment != c.segment || got.Stripe != c.stripe || got.Chain.Head() != c.head || got.Address != c.address {
			t.Errorf("Locate(%d) = %+v, %v; want %+v", c.p, got, err, c)
		}
	}
	for _, p := range []Position{MaxPosition + 1, ^Position(0), MaxPosition} {
		if _, err := l.Locate(p); !errors.Is(err, ErrBeyond) {
			t.Errorf("Locate(%d): %v, want ErrBeyond", p, err)
		}
	}
	if _, err := new(Layout).Locate(0); !errors.Is(err, ErrBeyond) {
		t.Errorf("an empty layout: %v, want ErrBeyond", err)
	}
}

// grow makes a valid layout of random segments, each with its own choice of chains from the same units.
func grow(r *rand.Rand) *Layout {
	l := &Layout{Log: LogID{1}, Epoch: 1, Geometry: DefaultGeometry(), Sequencer: Sequencer{ID: 1, Control: "s:1"}}
	l.Geometry.Window = 64 << r.IntN(4)
	units := 1 + r.IntN(9)
	for id := range units {
		l.Units = append(l.Units, Unit{ID: UnitID(id + 1), Control: "u:1"})
	}
	free := make([]Address, units+1) // of each unit
	start := Position(0)
	for range 1 + r.IntN(4) {
		s := Segment{Start: start}
		order := r.Perm(units)
		for k := 0; k < units; {
			n := min(1+r.IntN(3), units-k)
			c := Chain{}
			for _, u := range order[k : k+n] {
				c.Units = append(c.Units, UnitID(u+1))
				c.Base = max(c.Base, free[u+1])
			}
			c.Base += Address(r.IntN(3))
			s.Chains = append(s.Chains, c)
			k += n
		}
		l.Segments = append(l.Segments, s)
		length := Position(1 + r.IntN(100))
		for _, c := range s.Chains {
			for _, u := range c.Units {
				free[u] = c.Base + Address(length) // more than enough
			}
		}
		start += length
	}
	return l
}

func TestPositionAtIsTheInverseOfLocate(t *testing.T) {
	for seed := range uint64(40) {
		l := grow(rand.New(rand.NewPCG(seed, 0)))
		if err := l.Validate(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		at := map[UnitID]map[Address]Position{}
		for p := range Position(300) {
			place, err := l.Locate(p)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for _, u := range place.Chain.Units {
				if at[u] == nil {
					at[u] = map[Address]Position{}
				}
				if q, ok := at[u][place.Address]; ok {
					t.Fatalf("seed %d: positions %d and %d share address %d of unit %d", seed, q, p, place.Address, u)
				}
				at[u][place.Address] = p
				if q, ok := l.PositionAt(u, place.Address); !ok || q != p {
					t.Fatalf("seed %d: PositionAt(%d, %d) = %d, %v; want %d", seed, u, place.Address, q, ok, p)
				}
			}
		}
		for _, u := range l.Units {
			mapped := uint64(0)
			for a := range Address(300) {
				if n := l.MappedBelow(u.ID, a); n != mapped {
					t.Fatalf("seed %d: MappedBelow(%d, %d) = %d; want %d", seed, u.ID, a, n, mapped)
				}
				p, ok := l.PositionAt(u.ID, a)
				if !ok {
					continue
				}
				mapped++
				place, err := l.Locate(p)
				if err != nil || place.Address != a || !contains(place.Chain.Units, u.ID) {
					t.Fatalf("seed %d: PositionAt(%d, %d) = %d, which is at %+v, %v", seed, u.ID, a, p, place, err)
				}
			}
		}
	}
}

func TestPositionAtOfAddressesThatNobodyHas(t *testing.T) {
	l := sample()
	for _, c := range []struct {
		u UnitID
		a Address
	}{
		{9, 0},                                   // no such unit
		{3, 10<<48 | 5},                          // beyond the unit
		{5, ^Address(0)},                         // would wrap around
		{1, Address(1)<<63 + 1},                  // times two stripes wraps around to 2
		{1, l.Geometry.MaxAddress()},             // its position is beyond
		{1, Address(uint64(MaxPosition)/3) + 12}, // the first whose position is beyond
	} {
		if p, ok := l.PositionAt(c.u, c.a); ok && (p > MaxPosition || c.u == 9) {
			t.Errorf("PositionAt(%d, %d) = %d", c.u, c.a, p)
		} else if ok {
			if place, err := l.Locate(p); err != nil || place.Address != c.a {
				t.Errorf("PositionAt(%d, %d) = %d, which is at %+v, %v", c.u, c.a, p, place, err)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	if err := sample().Validate(); err != nil {
		t.Fatalf("the sample: %v", err)
	}
	for _, c := range []struct {
		name  string
		spoil func(*Layout)
		want  string
	}{
		{"log", func(l *Layout) { l.Log = LogID{} }, "log id is zero"},
		{"epoch 0", func(l *Layout) { l.Epoch = 0 }, "epoch 0"},
		{"epoch beyond", func(l *Layout) { l.Epoch = MaxEpoch + 1 }, "epoch 68719476736"},
		{"page size", func(l *Layout) { l.Geometry.PageSize = 5000 }, "page size is 5000"},
		{"window", func(l *Layout) { l.Geometry.Window = 32 }, "window is 32"},
		{"slots", func(l *Layout) { l.Geometry.SessionSlots = 0 }, "session slots is 0"},
		{"sessions", func(l *Layout) { l.Geometry.MaxSessions = 5000 }, "max sessions is 5000"},
		{"durability", func(l *Layout) { l.Durability = 2 }, "unknown durability 2"},
		{"no sequencer", func(l *Layout) { l.Sequencer = Sequencer{} }, "sequencer 0 has no id"},
		{"a spare that serves", func(l *Layout) { l.Spares[0].ID = 3 }, "unit 3 is listed twice"},
		{"the sequencer stands by", func(l *Layout) { l.Standbys[0].ID = 1 }, "sequencer 1 is listed twice"},
		{"start", func(l *Layout) { l.Start = MaxPosition + 1 }, "sequencer start"},
		{"unit 0", func(l *Layout) { l.Units[0].ID = 0 }, "unit 0 has no id"},
		{"unit without address", func(l *Layout) { l.Units[0].Control = "" }, "unit 1 has no id or no control address"},
		{"unit twice", func(l *Layout) { l.Units[1].ID = 1 }, "unit 1 is listed twice"},
		{"no segments", func(l *Layout) { l.Segments = nil }, "no segments"},
		{"first start", func(l *Layout) { l.Segments[0].Start = 1 }, "first segment starts at 1"},
		{"order", func(l *Layout) { l.Segments[1].Start = 0 }, "segment 1 starts at 0"},
		{"no chains", func(l *Layout) { l.Segments[1].Chains = nil }, "segment 1 has no chains"},
		{"no units", func(l *Layout) { l.Segments[0].Chains[0].Units = nil }, "segment 0 chain 0 has no units"},
		{"stranger", func(l *Layout) { l.Segments[0].Chains[0].Units = []UnitID{9} }, "unit 9, which is not listed"},
		{"in two chains", func(l *Layout) { l.Segments[0].Chains[0].Units = []UnitID{1, 3} }, "names unit 3 twice"},
		{"overlap of stripe 0", func(l *Layout) { l.Segments[1].Chains[0].Base = 10 }, "must be at least 11"},
		{"overlap of stripe 1", func(l *Layout) { l.Segments[1].Chains[1].Base = 9 }, "must be at least 10"},
		{"base beyond", func(l *Layout) { l.Segments[1].Chains[2].Base = 1 << 60 }, "must be at most"},
	} {
		l := sample()
		c.spoil(l)
		if err := l.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
	all := &Layout{Durability: 9}
	err := all.Validate()
	for _, want := range []string{"log id", "epoch", "page size", "window", "durability", "sequencer", "segments"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("everything wrong: %v does not name the %s", err, want)
		}
	}
}

func TestNextLeavesItsOriginAlone(t *testing.T) {
	l, untouched := sample(), sample()
	n := l.Next(9, 99)
	n.Units[0].Control = "elsewhere"
	n.Segments[0].Chains[0].Units[0] = 6
	n.Segments[1].Start = 50
	if string(appendLayout(nil, l)) != string(appendLayout(nil, untouched)) {
		t.Errorf("the origin became %+v", l)
	}
	if n.Epoch != 9 || n.Start != 99 {
		t.Errorf("epoch %d start %d", n.Epoch, n.Start)
	}
}

func TestLogIDAndDurabilityReadWhatTheyWrite(t *testing.T) {
	id := LogID{0: 0xab, 15: 0x01}
	if got, err := ParseLogID(id.String()); err != nil || got != id {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", "00", strings.Repeat("g", 32), strings.Repeat("0", 33), strings.Repeat("0", 34)} {
		if _, err := ParseLogID(s); err == nil {
			t.Errorf("%q passes for a log id", s)
		}
	}
	for _, d := range []Durability{Flash, Memory} {
		if got, err := ParseDurability(d.String()); err != nil || got != d {
			t.Errorf("%v: %v, %v", d, got, err)
		}
	}
	if _, err := ParseDurability("disk"); err == nil {
		t.Error("disk passes for a durability")
	}
}
