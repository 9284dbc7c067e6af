package client

import (
	"context"
	"fmt"
	"iter"
	"strconv"

	"corfu/internal/wire"
	"corfu/layout"
)

// Position is an index in the log.
type Position = layout.Position

// Entry is a value of the log: a payload, or a batch of records.
type Entry struct {
	Position Position
	ID       EntryID
	Payload  []byte   // nil if the entry is a batch
	Records  [][]byte // nil unless the entry is a batch; one record at least, in the order of the append
}

// EntryID identifies the append that wrote an entry: no two appends of a log have the same. A program
// may keep it beside a position whose outcome is unknown, and compare it with what is read there later.
type EntryID layout.Attempt

// String returns the id in hexadecimal, as corfu dump prints it.
func (id EntryID) String() string { return fmt.Sprintf("%#x", uint64(id)) }

// ParseEntryID reads what String returns.
func ParseEntryID(s string) (EntryID, error) {
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("entry id %q: must be a number, such as 0x1100000002", s)
	}
	return EntryID(n), nil
}

// RecordID names a record: the position of its entry, and its index in the batch, from 0. The payload of
// an entry that is no batch has index 0.
type RecordID struct {
	Position Position
	Index    int
}

// String returns position and index, such as "1042/7".
func (id RecordID) String() string { return fmt.Sprintf("%d/%d", uint64(id.Position), id.Index) }

// Record is a record of a batch, or the payload of an entry that is none.
type Record struct {
	RecordID
	Entry EntryID // of the entry that it stands in
	Data  []byte
}

// MalformedError is ErrMalformed with the entry that is: its pages verify, and what they say together is not
// what a client of the log writes.
type MalformedError struct {
	Position Position // of the entry
	Next     Position // behind it
	Cause    error
}

func (e *MalformedError) Error() string {
	return fmt.Sprintf("position %d: %v: %v", e.Position, ErrMalformed, e.Cause)
}

// Unwrap returns ErrMalformed and the cause.
func (e *MalformedError) Unwrap() []error { return []error{ErrMalformed, e.Cause} }

// makeEntry makes an entry of n pages of what was read.
func makeEntry(p Position, n int, id EntryID, batch bool, payload []byte) (Entry, error) {
	e := Entry{Position: p, ID: id, Payload: payload}
	if !batch {
		return e, nil
	}
	records, err := wire.DecodeBatch(payload)
	if err != nil {
		return Entry{Position: p, ID: id}, &MalformedError{Position: p, Next: p + Position(n), Cause: err}
	}
	e.Payload, e.Records = nil, records
	return e, nil
}

// Records iterates over the records from the entry at position from on, and at the tail waits for more: it is Follow, record by record.
// The payload of an entry that is no batch counts as one record. Records of a batch become visible all at once. A reader that stopped
// behind record (p, i) goes on with Records(ctx, p), and passes over the records of p up to i.
func (l *Log) Records(ctx context.Context, from Position, options ...ReadOption) iter.Seq2[Record, error] {
	return Records(l.Follow(ctx, from, options...))
}

// Records iterates over the records of what ReadRange or Follow yields. An error is the last that it yields; the record's position says where.
func Records(entries iter.Seq2[Entry, error]) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for e, err := range entries {
			if err != nil || e.Records == nil {
				if !yield(Record{RecordID{Position: e.Position}, e.ID, e.Payload}, err) || err != nil {
					return
				}
				continue
			}
			for i, r := range e.Records {
				if !yield(Record{RecordID{e.Position, i}, e.ID, r}, nil) {
					return
				}
			}
		}
	}
}
