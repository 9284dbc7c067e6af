package layout

import (
	"errors"
	"fmt"
)

// problems collects every fault of a value, so that an operator mends them in one go.
type problems []error

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Errorf(format, args...)) }

func (p *problems) within(what string, v, low, high int) {
	if v < low || v > high {
		p.add("%s is %d: must be %d to %d", what, v, low, high)
	}
}

func (p *problems) powerOfTwo(what string, v, low, high int) {
	if v < low || v > high || v&(v-1) != 0 {
		p.add("%s is %d: must be a power of two, %d to %d", what, v, low, high)
	}
}

func (p problems) err() error { return errors.Join(p...) }
