package tcp

import (
	"sync"
	"time"
)

// inbox holds the messages that arrived and were not yet received, as many as RecvDepth:
// the receive queue. The responder puts, one receiver takes.
type inbox struct {
	mu    sync.Mutex
	slots [][]byte // grown to what arrived, kept for reuse
	head  uint     // next to take
	tail  uint     // next to put
	ended bool     // nothing will be put any more

	arrived chan struct{} // one token after a put or the end
	freed   chan struct{} // one token after a take
}

func (q *inbox) setup(depth int) {
	q.slots = make([][]byte, depth)
	q.arrived = make(chan struct{}, 1)
	q.freed = make(chan struct{}, 1)
}

// slot waits for a free buffer of n bytes, at most for the time given. It is not
// seen by the receiver before put. It gives nil if none came free, or the connection broke.
func (q *inbox) slot(n int, wait time.Duration, broken <-chan struct{}) []byte {
	if b := q.free(n); b != nil {
		return b
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-q.freed:
		case <-timer.C:
			return nil
		case <-broken:
			return nil
		}
		if b := q.free(n); b != nil {
			return b
		}
	}
}

func (q *inbox) free(n int) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.tail-q.head == uint(len(q.slots)) {
		return nil
	}
	s := &q.slots[q.tail%uint(len(q.slots))]
	if cap(*s) < n {
		*s = make([]byte, n)
	}
	*s = (*s)[:n]
	return *s
}

// full tells whether slot would wait.
func (q *inbox) full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.tail-q.head == uint(len(q.slots))
}

// put hands the buffer that slot gave to the receiver.
func (q *inbox) put() {
	q.mu.Lock()
	q.tail++
	q.mu.Unlock()
	signal(q.arrived)
}

// end says that nothing comes after what is there.
func (q *inbox) end() {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	signal(q.arrived)
}

// receive waits for messages and gives each one that is there to fn. It reports
// false once none can come.
func (q *inbox) receive(fn func([]byte)) bool {
	for {
		n, ended := q.waiting()
		if n > 0 {
			for range n {
				fn(q.first())
				q.take()
			}
			return true
		}
		if ended {
			return false
		}
		<-q.arrived
	}
}

func (q *inbox) waiting() (n uint, ended bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		signal(q.arrived) // nobody else will, and there may be a next call
	}
	return q.tail - q.head, q.ended
}

func (q *inbox) first() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.slots[q.head%uint(len(q.slots))]
}

func (q *inbox) take() {
	q.mu.Lock()
	q.head++
	q.mu.Unlock()
	signal(q.freed)
}

// signal leaves a token unless one is there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
