package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"corfu/client"
	"corfu/layout"
)

// benchRecord is what a record of the benchmark carries, in bytes.
const benchRecord = 256

// recordsJSON is how fast small records go through a Producer, and are read one after the other.
type recordsJSON struct {
	Durability  string  `json:"durability"`
	Bytes       int     `json:"record_bytes"`
	Outstanding int     `json:"outstanding"`
	Appended    float64 `json:"records_per_s"`
	PerEntry    float64 `json:"records_per_entry"`
	Read        float64 `json:"read_per_s"`
}

func (a *app) measureRecords(ctx context.Context, r *appendRig, b benchFlags, rep *report) error {
	if b.duration == 0 || b.records == 0 {
		return nil
	}
	bar := a.newBar(2, fmt.Sprintf("records: %v, %d outstanding", r.durability, b.records))
	out := recordsJSON{Durability: r.durability.String(), Bytes: benchRecord, Outstanding: b.records}
	from, n, took, err := r.produce(ctx, b.records, b.duration)
	if err != nil {
		return fmt.Errorf("records, %v: %w", r.durability, err)
	}
	out.Appended = float64(n) / took.Seconds()
	_ = bar.Add(1)
	entries, took, err := r.readRecords(ctx, from, n)
	if err != nil {
		return fmt.Errorf("records, %v: %w", r.durability, err)
	}
	_ = bar.Add(1)
	out.PerEntry, out.Read = float64(n)/float64(entries), float64(n)/took.Seconds()
	rep.Records = append(rep.Records, out)
	return nil
}

// produce appends records for d, with so many outstanding, and returns where they begin and how many they are.
func (r *appendRig) produce(ctx context.Context, outstanding int, d time.Duration) (from layout.Position, n int, took time.Duration, err error) {
	if from, err = r.log.Tail(ctx); err != nil {
		return 0, 0, 0, err
	}
	p, err := client.NewProducer(r.log, client.ProducerOptions{})
	if err != nil {
		return 0, 0, 0, err
	}
	room := make(chan struct{}, outstanding)
	done := func(client.RecordID, error) { <-room }
	start := time.Now()
	for time.Since(start) < d {
		room <- struct{}{}
		if err := p.Produce(ctx, r.payload[:benchRecord], done); err != nil {
			return 0, 0, 0, errors.Join(err, p.Close(ctx))
		}
		n++
	}
	err = p.Close(ctx)
	return from, n, time.Since(start), err
}

// readRecords reads n records from from on, and returns in how many entries they stand.
func (r *appendRig) readRecords(ctx context.Context, from layout.Position, n int) (entries int, took time.Duration, err error) {
	to, err := r.log.Tail(ctx)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	left := n
	for x, err := range client.Records(r.log.ReadRange(ctx, from, to)) {
		if err != nil {
			return 0, 0, err
		}
		if left--; x.Index == 0 {
			entries++
		}
	}
	if left != 0 {
		return 0, 0, fmt.Errorf("%d records were appended, and %d read", n, n-left)
	}
	return entries, time.Since(start), nil
}

func (a *app) printRecords(rows []recordsJSON) error {
	if len(rows) == 0 {
		return nil
	}
	table := [][]string{{fmt.Sprintf("RECORDS OF %d BYTES", benchRecord), "OUTSTANDING", "RECORDS/S", "RECORDS/ENTRY", "READ/S"}}
	for _, x := range rows {
		table = append(table, []string{x.Durability, fmt.Sprint(x.Outstanding), fmt.Sprintf("%.0f", x.Appended), fmt.Sprintf("%.0f", x.PerEntry), fmt.Sprintf("%.0f", x.Read)})
	}
	a.say("\n")
	return a.printTable(table)
}
