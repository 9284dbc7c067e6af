package sim

import (
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// Fabric is the network of a run: hosts, what stands between them, and one lock for all of it. Everything that travels is an event
// at a time of the bubble's clock, drawn from the seed.
type Fabric struct {
	seed  uint64
	weird Weird

	mu       sync.Mutex
	names    map[string]int // how often a source of chance was asked for by a name
	blocked  map[[2]string]bool
	muted    map[[2]string]time.Time // until when no host hears of the other\'s ends of connections
	services map[string]*endpoint    // control services by address
	listens  map[string]*listener    // fabric listeners by address
	hosts    map[string]*Host        // living ones by name
	conns    map[*conn]struct{}      // ends that stand
	lastConn int
	traps    []func(*conn)            // each is called, and gone, with a CAS that is posted
	paused   map[string]chan struct{} // closed when the process goes on
	holds    map[[2]string]*hold      // by host and method
}

// Weird is how unkind the network is.
type Weird struct {
	Slow      float64       // share of packets that are late, as after a loss
	Late      time.Duration // up to how much
	Lost      float64       // share of control calls of which the answer, or the call, is lost
	Duplicate float64       // share of control calls that arrive twice
	Disk      time.Duration // up to how long the disk takes for a write

	Scribble bool // clients write to a staging slot again after they published it
	Rivals   bool // commands of leaders of older terms are taken until these are deposed: what is left is rule R13
	Whole    bool // no CPU gets in between the two halves of an atomic, as on no NIC (rule R1)

	// Rules broken on purpose, below the programs: see Mutants.
	Broken Mutant
}

// NewFabric makes a network without hosts.
func NewFabric(seed uint64, w Weird) *Fabric {
	return &Fabric{seed: seed, weird: w, names: map[string]int{}, blocked: map[[2]string]bool{}, muted: map[[2]string]time.Time{}, services: map[string]*endpoint{},
		listens: map[string]*listener{}, hosts: map[string]*Host{}, conns: map[*conn]struct{}{}, paused: map[string]chan struct{}{}, holds: map[[2]string]*hold{}}
}

// chance makes a source of chance for one purpose. Each has its own, so that what one draws does not depend on the order in which
// others draw.
func (f *Fabric) chance(name string) *rand.Rand {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.chanceLocked(name)
}

func (f *Fabric) chanceLocked(name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	f.names[name]++
	return rand.New(rand.NewPCG(f.seed, h.Sum64()+uint64(f.names[name])<<48))
}

// Latency of one packet, in one direction.
const (
	latencyMin = 2 * time.Microsecond
	latencyMax = 20 * time.Microsecond
)

// latency draws the time of one packet. Whoever owns r holds the lock that r is under.
func (f *Fabric) latency(r *rand.Rand) time.Duration {
	d := latencyMin + time.Duration(r.Int64N(int64(latencyMax-latencyMin)))
	if r.Float64() < f.weird.Slow {
		d += time.Duration(r.Int64N(int64(f.weird.Late)))
	}
	return d
}

// Block cuts the way from one host to another, or opens it. What is on its way waits, as with packets that are sent again.
func (f *Fabric) Block(from, to string, cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blocked[[2]string{from, to}] = cut
}

// Pause stops the process of a host: it neither posts nor takes anything, while its NIC serves its memory. Resume lets it go on.
func (f *Fabric) Pause(host string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.paused[host] == nil {
		f.paused[host] = make(chan struct{})
	}
}

// Resume ends a Pause.
func (f *Fabric) Resume(host string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.paused[host]; c != nil {
		close(c)
		delete(f.paused, host)
	}
}

// runs returns once the process of a host is not paused.
func (f *Fabric) runs(host string) {
	for {
		f.mu.Lock()
		c := f.paused[host]
		f.mu.Unlock()
		if c == nil {
			return
		}
		<-c
	}
}

// setLoss makes control calls get lost, or arrive twice.
func (f *Fabric) setLoss(lost, double float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.weird.Lost, f.weird.Duplicate = lost, double
}

// loss is the share of what gets lost.
func (f *Fabric) loss() float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.weird.Lost
}

// Heal opens all ways, ends all pauses and loses nothing more.
func (f *Fabric) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.weird.Lost = 0
	f.traps = nil
	clear(f.blocked)
	for h, c := range f.paused {
		close(c)
		delete(f.paused, h)
	}
}
