package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
	"corfu/unit/flash"
)

// A full unit refuses appends with ErrFull, keeps serving reads and trims, and takes appends again after a trim.
func TestFullUnitRefusesAndGoesOnAfterATrim(t *testing.T) {
	client.NotInLab(t, "room on flash")
	const segment = 64 * 4096
	c := start(t, devcluster.Options{Chains: 1, Replicas: 2, Flash: flash.Options{SegmentPages: 64, Capacity: 8 * segment}})
	l := c.open(client.Options{})
	ctx := within(t)
	var last layout.Position
	n := 0
	for ; ; n++ {
		p, err := l.Append(ctx, fmt.Appendf(nil, "entry %d", n))
		if errors.Is(err, client.ErrFull) {
			if errors.Is(err, client.ErrUnknown) {
				n++ // the tail alone was full: it may be in the log
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = p
	}
	if last < 8*64-80 || last >= 8*64 {
		t.Fatalf("full after %d appends, at position %d", n, last)
	}
	full := 0
	for _, u := range c.Units {
		if err := u.Live(); err != nil {
			t.Errorf("a unit of a full log is not alive: %v", err)
		}
		if err := u.Ready(); err != nil && strings.Contains(err.Error(), "full") {
			full++
		}
	}
	if full == 0 {
		t.Error("no unit of a full log says that it is not ready")
	}
	for _, p := range []layout.Position{0, 100, last} {
		if _, err := l.Read(ctx, p); err != nil {
			t.Fatalf("read %d of a full log: %v", p, err)
		}
	}
	if err := l.Trim(ctx, 5); err != nil {
		t.Fatal(err)
	}
	if err := l.TrimPrefix(ctx, 200); err != nil {
		t.Fatal(err)
	}
	var p layout.Position
	var err error
	until(t, "room", func() bool { // as the error says: the trim frees it in the background
		p, err = l.Append(ctx, []byte("after the trim"))
		return !errors.Is(err, client.ErrFull)
	})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := l.Read(ctx, p); err != nil || string(b) != "after the trim" {
		t.Fatal(string(b), err)
	}
	if b, err := l.Read(ctx, last); err != nil || !strings.HasPrefix(string(b), "entry") {
		t.Fatal(string(b), err)
	}
}

// sick is a disk that can be told what to do, unit by unit.
type sick struct {
	flash.File
	d *disease
}

type disease struct {
	unit              string // part of the path of the unit's directory
	read, write, slow atomic.Bool
}

func (d *disease) wrap(path string, f flash.File) flash.File {
	if !strings.Contains(path, d.unit) {
		return f
	}
	return sick{f, d}
}

func (s sick) Read(b []byte, off int64) error {
	if s.d.read.Load() {
		return unix.EIO
	}
	return s.File.Read(b, off)
}

func (s sick) Write(bufs [][]byte, off int64, sync bool) error {
	if s.d.slow.Load() {
		time.Sleep(2 * time.Second)
	}
	if s.d.write.Load() {
		return unix.EIO
	}
	return s.File.Write(bufs, off, sync)
}

// sickCluster is one chain of two; the disk of unit n is the sick one. All that was appended has left the window.
func sickCluster(t *testing.T, n int) (*cluster, *client.Log, *disease) {
	d := &disease{unit: fmt.Sprintf("/unit-%d/", n)}
	c := start(t, devcluster.Options{Chains: 1, Replicas: 2, Flash: flash.Options{SegmentPages: 64, Wrap: d.wrap}})
	l := c.open(client.Options{})
	ctx := within(t)
	for i := range 2 * smallGeometry.Window {
		if p, err := l.Append(ctx, payloadOf(i)); err != nil || int(p) != i {
			t.Fatal(p, err)
		}
	}
	return c, l, d
}

func payloadOf(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%d ", i), 20) }

func wantEntry(t *testing.T, l *client.Log, i int) {
	t.Helper()
	if b, err := l.Read(within(t), layout.Position(i)); err != nil || !bytes.Equal(b, payloadOf(i)) {
		t.Fatalf("position %d: %q, %v", i, b, err)
	}
}

// EIO on read at the tail: the client gets the entry from another replica.
func TestReadErrorIsServedByAnotherReplica(t *testing.T) {
	client.NotInLab(t, "the disk; TestBitFlipIsServedByAnotherReplica reads cold pages here")
	_, l, d := sickCluster(t, 2)
	d.read.Store(true)
	wantEntry(t, l, 3)
	d.read.Store(false)
	wantEntry(t, l, 3)
}

// Bits that flip at rest at the tail: the client gets the entry from another replica, never the wrong bytes.
func TestBitFlipIsServedByAnotherReplica(t *testing.T) {
	c, l, _ := sickCluster(t, 2)
	f, err := os.OpenFile(filepath.Join(c.UnitDir(2), "seg-000000000000"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{'X'}, 3*4096+70); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	wantEntry(t, l, 3)
	wantEntry(t, l, 4)
}

// EIO on write: nothing is acknowledged, what was is readable, and the append ends well when the disk does again.
func TestWriteErrorHoldsTheAck(t *testing.T) {
	client.NotInLab(t, "the disk")
	c, l, d := sickCluster(t, 1)
	d.write.Store(true)
	done := make(chan error, 1)
	go func() {
		_, err := l.Append(context.Background(), []byte("held"))
		done <- err
	}()
	for c.Units[0].Health() == nil {
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-done:
		t.Fatalf("acknowledged by a broken disk: %v", err)
	default:
	}
	wantEntry(t, l, 7)
	d.write.Store(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A disk that takes seconds: appends wait and end well.
func TestSlowDiskIsWaitedFor(t *testing.T) {
	client.NotInLab(t, "the disk")
	_, l, d := sickCluster(t, 2)
	d.slow.Store(true)
	began := time.Now()
	if _, err := l.Append(within(t), []byte("slow")); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 2*time.Second {
		t.Fatalf("acknowledged after %v", took)
	}
	d.slow.Store(false)
}

// What keeps a unit from making a segment, and is no lack of room, is not called "full": the append waits, and its error says what it waited for.
func TestASegmentThatCannotBeMadeIsNotCalledFull(t *testing.T) {
	client.NotInLab(t, "room on flash")
	c := start(t, devcluster.Options{Chains: 1, Replicas: 1, Flash: flash.Options{SegmentPages: 64},
		Geometry: layout.Geometry{PageSize: 4096, Window: 64, SessionSlots: 16, MaxSessions: 8}})
	l := c.open(client.Options{})
	obstacle := filepath.Join(c.state(1).Store, "new-000000000005") // under which segment 5 is made
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	for n := 0; err == nil && n < 1000; n++ {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err = l.Append(ctx, []byte("entry"))
		cancel()
	}
	if err == nil || errors.Is(err, client.ErrFull) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no room can be made") {
		t.Errorf("append: %v; want the end of its time, and that no room can be made", err)
	}
	if err := c.Units[0].Ready(); err == nil || !strings.Contains(err.Error(), "new-000000000005") {
		t.Errorf("ready: %v; want what failed", err)
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(within(t), []byte("after it")); err != nil {
		t.Error(err)
	}
}
