package client

import "corfu/rdma"

// Break cuts off all of l's connections to units, in mid-flight.
func Break(l *Log) {
	for _, k := range l.current().units {
		if s := k.cur.Load(); s != nil {
			s.fail(rdma.ErrBroken)
		}
	}
}
