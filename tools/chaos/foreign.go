package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
)

// foreignEntries are in each foreign log.
const foreignEntries = 50

// foreign returns a cluster of another log that has ended, with one unit, of this number, and as
// many layout servers as this one. It is founded when it is first asked for, and has some entries.
func (x *run) foreign(ctx context.Context, unit int) (_ *cluster, err error) {
	if c := x.others[unit]; c != nil {
		return c, nil
	}
	name := fmt.Sprintf("foreign-%d", unit)
	c := &cluster{o: x.c.o, s: shape{layouts: x.c.s.layouts, seqs: 1, chains: 1, replicas: 1}, net: x.c.net, self: x.c.self, conns: newConns(),
		data: filepath.Join(x.c.data, name), logs: filepath.Join(x.c.logs, name), lastID: unit - 1, hosts: x.c.hosts}
	if err := errors.Join(os.MkdirAll(c.data, 0o755), os.MkdirAll(c.logs, 0o755)); err != nil {
		return nil, err
	}
	if err := c.build(); err != nil {
		return nil, err
	}
	defer func() {
		c.close()
		for _, m := range c.servers() { // its machines may be others' from now on
			c.net.release(m.host)
		}
	}()
	for _, m := range c.servers() {
		if err := m.start(); err != nil {
			return nil, err
		}
	}
	if err := c.awaitWhole(ctx, x.o.patience); err != nil {
		return nil, fmt.Errorf("a foreign cluster: %w", err)
	}
	log, err := openLog(ctx, c.layoutAddrs(), c.o.provider, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	for i := range foreignEntries {
		if _, err := log.Append(ctx, fmt.Appendf(nil, "foreign %d", i)); err != nil {
			return nil, fmt.Errorf("a foreign cluster: %w", err)
		}
	}
	if x.others == nil {
		x.others = map[int]*cluster{}
	}
	x.others[unit] = c
	return c, nil
}
