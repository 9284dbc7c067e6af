package flash

import (
	"os"
	"path/filepath"
	"testing"

	"corfu/layout"
)

// TestR21StoreID: a store draws an id when it is formatted and keeps it, whatever is saved; one
// that is formatted anew has another one.
func TestR21StoreID(t *testing.T) {
	overBoth(t, func(t *testing.T, path string) {
		s := readyAt(t, path, Options{})
		id := s.Meta().Store
		if id.IsZero() {
			t.Fatal("a store that was formatted has no id")
		}
		must(t, s.SaveMeta(Meta{Unit: 1, SegmentPages: s.SegmentPages()}))
		must(t, s.Wipe())
		must(t, s.Close())
		s, err := Open(path, 1, Options{}, quiet())
		must(t, err)
		if got := s.Meta().Store; got != id {
			t.Errorf("store %v after a wipe and a restart; want %v", got, id)
		}
		must(t, s.Close())
	})
	if a, b := open(t, t.TempDir(), Options{}), open(t, t.TempDir(), Options{}); a.Meta().Store == b.Meta().Store {
		t.Errorf("two stores have the id %v", a.Meta().Store)
	}
}

// TestR22StoreOfTheReleaseBeforeIsIdentified: it gets an id once, and counts as reconciled for its
// layout, of a record without an id.
func TestR22StoreOfTheReleaseBeforeIsIdentified(t *testing.T) {
	dir := t.TempDir()
	must(t, open(t, dir, Options{}).Close())
	l := testLayout(4096)
	b, err := encodeMeta(Meta{Unit: 1, SegmentPages: 16, Log: LogID(testLog), Layout: l, Promise: l.Epoch})
	must(t, err)
	if v := versionOfMeta(b); v != metaPlain {
		t.Fatalf("a meta without an id has format %d; want %d, as the release before writes it", v, metaPlain)
	}
	must(t, os.WriteFile(filepath.Join(dir, metaName), b, 0o600))
	var was layout.StoreID
	for range 2 {
		s := open(t, dir, Options{})
		m := s.Meta()
		if m.Store.IsZero() || (!was.IsZero() && m.Store != was) {
			t.Errorf("store %v; want an id that stays, %v", m.Store, was)
		}
		if want := (layout.RecordRef{Epoch: l.Epoch}); m.Reconciled != want {
			t.Errorf("reconciled for %v; want %v", m.Reconciled, want)
		}
		was = m.Store
		must(t, s.Close())
	}
}
