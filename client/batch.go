package client

import (
	"context"
	"fmt"

	"corfu/internal/wire"
	"corfu/layout"
)

// MaxRecord is the longest record of a batch, in bytes: what MaxPayload leaves of a batch that has no other record.
func (l *Log) MaxRecord() int { return maxRecord }

// maxRecord leaves room for a count of 1 and the length.
var maxRecord = wire.MaxEntry - wire.SizeOfLength(1) - wire.SizeOfLength(wire.MaxEntry)

// AppendBatch appends records as one entry, and returns its position: all of them are in the log, at (position, 0), (position, 1) and so
// on, or none. It takes up to 65,536 records, empty ones among them. Together with what says how long each is (1 to 3 bytes a record)
// they may take MaxPayload bytes. Its errors are those of Append, ErrEmptyBatch, and ErrNoBatches, where a unit has not been upgraded.
func (l *Log) AppendBatch(ctx context.Context, records [][]byte) (Position, error) {
	payload, err := l.encodeBatch(records)
	if err != nil {
		l.m.calls.refused(opAppend, err)
		return 0, err
	}
	return l.appendAs(ctx, wire.FlagBatch, payload)
}

func (l *Log) encodeBatch(records [][]byte) ([]byte, error) {
	switch {
	case len(records) == 0:
		return nil, fmt.Errorf("client: %w: give one at least", ErrEmptyBatch)
	case len(records) > wire.MaxRecords:
		return nil, fmt.Errorf("client: a batch of %d records: %w: at most %d", len(records), ErrTooLarge, wire.MaxRecords)
	}
	lengths := make([]int, len(records))
	size := wire.SizeOfLength(len(records))
	for i, r := range records {
		if len(r) > maxRecord {
			return nil, tooLong(fmt.Sprintf("record %d", i), len(r))
		}
		lengths[i] = len(r)
		size += wire.SizeOfLength(len(r)) + len(r)
	}
	if size > l.MaxPayload() {
		return nil, fmt.Errorf("client: a batch that takes %d bytes: %w: at most %d", size, ErrTooLarge, l.MaxPayload())
	}
	payload := wire.AppendBatchHead(make([]byte, 0, size), lengths)
	for _, r := range records {
		payload = append(payload, r...)
	}
	return payload, nil
}

// tooLong is the error of a record that no batch takes.
func tooLong(which string, n int) error {
	return fmt.Errorf("client: %s has %d bytes: %w: at most %d", which, n, ErrTooLarge, maxRecord)
}

// takes fails with ErrNoBatches unless every unit that takes new entries takes pages with these flags. The view
// is ready. A unit of an older release would find such a page CORRUPT.
func (v *view) takes(ctx context.Context, flags wire.PageFlags) error {
	if flags&^wire.OldFlags == 0 {
		return nil
	}
	for _, c := range v.layout.Last().Chains {
		for _, id := range c.Units {
			s, err := v.unit(ctx, id)
			if err != nil {
				return waiting(err, "a session with unit %d", id)
			}
			if flags&^s.flags != 0 {
				return v.noBatches(id)
			}
		}
	}
	return nil
}

func (v *view) noBatches(id layout.UnitID) error {
	return fmt.Errorf("client: unit %d is of an older release: %w: upgrade it", id, ErrNoBatches)
}
