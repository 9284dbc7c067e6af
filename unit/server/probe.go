package server

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"corfu/unit"
)

// probePatience is how long the loop may take to answer a probe. One that takes longer is stuck,
// whatever waits for it.
const probePatience = 10 * time.Second

var errStuck = fmt.Errorf("the unit's loop has not answered for %v", probePatience)

// errFull: the unit takes no more entries, and what it holds can be read.
var errFull = errors.New("flash is full: the unit takes no more entries until positions are trimmed, or it gets more room")

// Live returns nil while the unit can do its work or wait for it; an error means that only a new
// start helps. A unit that waits for the layout service, a spare, and one whose disk refuses pages
// are alive.
func (s *Server) Live() error {
	_, err := s.probe()
	return err
}

// Ready returns nil if the unit is alive and takes the entries that its clients bring, or would if
// it were a member: a spare, and a unit that waits for the layout service, are ready. A unit that
// is full or whose disk refuses pages is not.
func (s *Server) Ready() error {
	v, err := s.probe()
	if err != nil {
		return err
	}
	if err := s.flushError.Load(); err != nil {
		return *err
	}
	if err := s.store.NoRoom(); v.AtLimit && err != nil { // without an error room is being made
		return cmp.Or(s.noRoom(), errFull)
	}
	return nil
}

// probe returns what the core shows of itself.
func (s *Server) probe() (unit.View, error) {
	type answer struct {
		v   unit.View
		err error
	}
	c := make(chan answer, 1)
	go func() {
		var a answer
		a.err = s.do(func(u *unit.Unit) { a.v = u.View() })
		c <- a
	}()
	t := time.NewTimer(probePatience)
	defer t.Stop()
	select {
	case a := <-c:
		return a.v, a.err
	case <-t.C:
		return unit.View{}, errStuck
	}
}
