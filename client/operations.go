package client

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// operation is one kind of call of a Log, as the metrics name it.
type operation int

const (
	opAppend operation = iota
	opRead
	opFill
	opTrim
	opTrimPrefix
	opTail
	opSlowTail
	opFirstPosition
	operationCount
)

var operationNames = [operationCount]string{"append", "read", "fill", "trim", "trim_prefix", "tail", "slow_tail", "first_position"}

// result is what became of a call.
type result int

const (
	resOK      result = iota
	resEmpty          // a read, and the answer is that no value begins there: junk, trimmed, not written, inside a larger entry
	resUnknown        // an append that may have happened
	resError
	resultCount
)

var resultNames = [resultCount]string{"ok", "empty", "unknown", "error"}

// operations are rate, errors and duration of all calls. Every child is made beforehand: counting allocates nothing.
type operations struct {
	total   [operationCount][resultCount]prometheus.Counter
	seconds [operationCount]prometheus.Observer
}

// operationBuckets are the upper bounds of the time of a call, in seconds: 1 µs to 8.4 s.
var operationBuckets = prometheus.ExponentialBuckets(1e-6, 2, 24)

func newOperations(total *prometheus.CounterVec, seconds *prometheus.HistogramVec) (o operations) {
	for i, name := range operationNames {
		o.seconds[i] = seconds.WithLabelValues(name)
		for j, result := range resultNames {
			o.total[i][j] = total.WithLabelValues(name, result)
		}
	}
	return o
}

// ended counts a call that began then and gave err. The time counts unless it failed: how long an error took says nothing of the log.
func (o *operations) ended(op operation, began time.Time, err error) {
	r := resultOf(err)
	o.total[op][r].Inc()
	if r == resOK || r == resEmpty {
		o.seconds[op].Observe(time.Since(began).Seconds())
	}
}

// refused counts a call that was not begun.
func (o *operations) refused(op operation, err error) { o.total[op][resultOf(err)].Inc() }

func resultOf(err error) result {
	switch {
	case err == nil:
		return resOK
	case errors.Is(err, ErrUnknown):
		return resUnknown
	case errors.Is(err, ErrJunk), errors.Is(err, ErrTrimmed), errors.Is(err, ErrUnwritten), errors.Is(err, ErrFragment):
		return resEmpty
	}
	return resError
}
