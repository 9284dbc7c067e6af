package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"corfu/layout"
)

// fact is one line of a client's history: what it is about to do, or what it was told. It is in the file before the client goes on,
// so that it outlives a kill -9 of the client.
type fact struct {
	Kind  factKind `json:"k"`
	N     int      `json:"n"`           // of an append or a trim: its number at this client
	At    int64    `json:"t"`           // when, by the monotonic clock of the machine, in nanoseconds
	Since int64    `json:"s,omitempty"` // of reads and tails: when they were called
	// Payload of an append that begins; what a read gave.
	Payload  string          `json:"p,omitempty"`
	Pages    int             `json:"g,omitempty"` // positions that the append takes
	Position layout.Position `json:"a"`
	Known    bool            `json:"y,omitempty"` // the position of an append of unknown outcome is known
	Error    string          `json:"e,omitempty"`
}

type factKind string

const (
	factInvoke  factKind = "invoke"  // an append begins
	factAck     factKind = "ack"     // it is acknowledged
	factUnknown factKind = "unknown" // its outcome is unknown
	factFailed  factKind = "failed"  // it failed for certain
	factRead    factKind = "read"
	factTail    factKind = "tail"
	factTrim    factKind = "trim"    // a trim of all below the position begins
	factTrimmed factKind = "trimmed" // it is acknowledged
	factHalf    factKind = "half"    // it failed: it may have reached some of them
)

// now is the moment by a clock that all processes of the machine share.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // a kernel without a clock
	}
	return t.Nano()
}

// recorder writes facts to a file, each with one write.
type recorder struct {
	mu sync.Mutex
	f  *os.File
}

func newRecorder(path string) (*recorder, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &recorder{f: f}, nil
}

// tell returns once the line is the kernel's. It gives the fact's moment, which is before that.
func (r *recorder) tell(x fact) error {
	b, err := json.Marshal(x)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err = r.f.Write(append(b, '\n'))
	return err
}

func (r *recorder) close() error { return r.f.Close() }

// readFacts gives the lines of a client's history. A last line that is torn was never told.
func readFacts(path string) (all []fact, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		var x fact
		if err := json.Unmarshal(line, &x); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", path, len(all)+1, err)
		}
		all = append(all, x)
	}
}
