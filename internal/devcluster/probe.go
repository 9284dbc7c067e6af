package devcluster

import (
	"errors"
	"fmt"
)

// prober is a server that answers probes.
type prober interface {
	Live() error
	Ready() error
}

// Live returns nil while every member that was not killed is alive.
func (c *Cluster) Live() error { return c.probe(prober.Live) }

// Ready returns nil while every member that was not killed is ready.
func (c *Cluster) Ready() error { return c.probe(prober.Ready) }

func (c *Cluster) probe(ask func(prober) error) error {
	var errs []error
	note := func(err error, who string, id int) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %d: %w", who, id, err))
		}
	}
	for i, u := range c.Units {
		if u != nil {
			note(ask(u), "unit", i+1)
		}
	}
	for i, s := range c.Seqs {
		if s != nil {
			note(ask(s), "sequencer", i+1)
		}
	}
	for i, s := range c.Layouts {
		if s != nil {
			note(ask(s), "layout server", i+1)
		}
	}
	return errors.Join(errs...)
}
