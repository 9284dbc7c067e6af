package flash

import "sync"

// turns bounds how many reads are on the disk at a time. Reads may come in a flood, and nobody
// who appends shall wait behind it: while a Write is under way fewer of them may be there. A few always may, so
// writes without end do not stop them either. Who waits gets its turn in the order of arrival.
type turns struct {
	all    int // reads at a time while nothing is written
	beside int // reads at a time while something is; 1 to all

	mu      sync.Mutex
	reading int // have a turn
	writing int // Writes under way
	waiting []chan struct{}
	idle    []chan struct{} // used before, of those who wait no more
}

// allowed is how many reads may have a turn now. mu is held.
func (t *turns) allowed() int {
	if t.writing > 0 {
		return t.beside
	}
	return t.all
}

// take waits for a turn.
func (t *turns) take() {
	t.mu.Lock()
	if t.reading < t.allowed() { // then nobody waits: admit gives turns as soon as there are any
		t.reading++
		t.mu.Unlock()
		return
	}
	var mine chan struct{}
	if n := len(t.idle); n > 0 {
		mine, t.idle = t.idle[n-1], t.idle[:n-1]
	} else {
		mine = make(chan struct{}, 1)
	}
	t.waiting = append(t.waiting, mine)
	t.mu.Unlock()
	<-mine
	t.mu.Lock()
	t.idle = append(t.idle, mine)
	t.mu.Unlock()
}

// give ends a turn.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reading--
	t.admit()
}

// beginWrite says that a Write is under way. Reads that have their turn keep it.
func (t *turns) beginWrite() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writing++
}

// endWrite says that a Write is over.
func (t *turns) endWrite() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writing--
	t.admit()
}

// admit gives turns to those who wait longest. mu is held.
func (t *turns) admit() {
	n := min(len(t.waiting), max(0, t.allowed()-t.reading))
	for _, c := range t.waiting[:n] {
		c <- struct{}{} // has room for it
	}
	t.reading += n
	t.waiting = t.waiting[:copy(t.waiting, t.waiting[n:])]
}
