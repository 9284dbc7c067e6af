package unit

import (
	"reflect"
	"slices"
	"testing"

	"corfu/layout"
)

// TestR17TrimsAreRememberedAcrossEpochs: a copy made in an older epoch hears of all that were trimmed since, by a client or by a
// reconciliation; a unit that cannot know says so.
func TestR17TrimsAreRememberedAcrossEpochs(t *testing.T) {
	var u Unit
	ask := func(e layout.Epoch) (list []layout.Address, known bool) {
		list, known = u.Trims(e, 0, 1<<20)
		slices.Sort(list)
		return list, known
	}
	want := func(e layout.Epoch, known bool, list ...layout.Address) {
		t.Helper()
		if got, k := ask(e); k != known || !slices.Equal(got, list) {
			t.Errorf("since %d: %v, %v; want %v, %v", e, got, k, list, known)
		}
	}
	u.NoteTrim(1, 2) // before it was ever opened: nobody copied from it in this life
	want(2, false)
	u.noted.open(3)
	u.NoteTrim(5, 3)
	u.NoteTrim(6, 4) // told of as it is reconciled for 4
	u.noted.open(4)
	u.NoteTrim(7, 4)
	want(2, false)
	want(3, true, 5, 6, 7)
	want(4, true, 6, 7)
	want(5, true)
	if list, known := u.Trims(3, 6, 7); !known || !reflect.DeepEqual(list, []layout.Address{6}) {
		t.Errorf("in [6, 7): %v, %v", list, known)
	}
	// Too many: those of older epochs are forgotten first.
	for a := layout.Address(100); a < 100+maxNotes-2; a++ {
		u.NoteTrim(a, 4)
	}
	want(3, false)
	if list, known := ask(4); !known || len(list) != maxNotes || u.TrimsSince() != 4 {
		t.Errorf("%d, %v, since %d", len(list), known, u.TrimsSince())
	}
	u.NoteTrim(1, 4)
	want(4, false)
	u.noted.open(5)
	u.NoteTrim(9, 5)
	want(4, false)
	want(5, true, 9)
	u.Forget()
	want(5, false)
}
