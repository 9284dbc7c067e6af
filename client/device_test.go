package client_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"corfu/client"
	"corfu/internal/devcluster"
	"corfu/layout"
	"corfu/unit/flash"
)

// A chain whose tail has a device as its store (a file stands in for it) and whose head has a directory: windows of entries, single
// trims and a prefix trim, and after a restart all of it as it was, in the log and in what fsck finds.
func TestUnitOnADevice(t *testing.T) {
	path := dir(t)
	device := filepath.Join(path, "unit-2")
	if err := errors.Join(os.WriteFile(device, nil, 0o600), os.Truncate(device, 16<<20)); err != nil {
		t.Fatal(err)
	}
	o := devcluster.Options{Dir: path, Chains: 1, Replicas: 2, Flash: flash.Options{SegmentPages: 64}}
	c := start(t, o)
	l := c.open(client.Options{})
	ctx := within(t)
	n := 3 * smallGeometry.Window
	for i := range n {
		if p, err := l.Append(ctx, payloadOf(i)); err != nil || int(p) != i {
			t.Fatal(p, err)
		}
	}
	trimmed := func(i int) bool { return i < 64 || i == n-1 || (i%7 == 0 && i < 150) }
	for i := range n {
		if trimmed(i) && i > 64 {
			if err := l.Trim(ctx, layout.Position(i)); err != nil {
				t.Fatal(i, err)
			}
		}
	}
	if err := l.TrimPrefix(ctx, 64); err != nil {
		t.Fatal(err)
	}
	want := func(l *client.Log) {
		t.Helper()
		for i := range n {
			if !trimmed(i) {
				wantEntry(t, l, i)
			} else if _, err := l.Read(ctx, layout.Position(i)); !errors.Is(err, client.ErrTrimmed) {
				t.Fatalf("position %d: %v", i, err)
			}
		}
	}
	want(l)
	if err := errors.Join(l.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	singles := 0
	for i := 64; i < n; i++ {
		if trimmed(i) {
			singles++
		}
	}
	for _, store := range []string{filepath.Join(path, "unit-1"), device} {
		in, err := flash.OpenInspector(store)
		if err != nil {
			t.Fatal(err)
		}
		sum, err := in.Check(func(p flash.Problem) { t.Errorf("%s: %+v", store, p) })
		if err := errors.Join(err, in.Close()); err != nil {
			t.Fatal(err)
		}
		if sum.Trimmed != uint64(singles) || sum.Entries != uint64(n-64-singles) || sum.TrimmedBelow != 64 {
			t.Errorf("%s: %+v", store, sum)
		}
	}
	c = start(t, o)
	l = c.open(client.Options{})
	want(l)
	if _, err := l.Append(context.Background(), []byte("and on")); err != nil {
		t.Fatal(err)
	}
}
