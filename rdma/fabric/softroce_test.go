package fabric

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestSoftRoCENeedsANetdev(t *testing.T) {
	if d, made, err := AddSoftRoCE("rxe9", "no-such-if"); d != "" || made || !errors.Is(err, ErrNoSoftRoCE) {
		t.Errorf("%q, %v, %v", d, made, err)
	}
	if d, err := RemoveSoftRoCE("no-such-if"); d != "" || err != nil {
		t.Errorf("%q, %v", d, err)
	}
}

// TestSoftRoCEComesAndGoes: made once however often it is asked for, and what stands there keeps its name.
func TestSoftRoCEComesAndGoes(t *testing.T) {
	if !inLab() {
		t.Skip("needs the lab's kernel")
	}
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "d9", MTU: 9000}}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netlink.LinkDel(link) }()
	add := func(name, device string, made bool) {
		t.Helper()
		if d, m, err := AddSoftRoCE(name, "d9"); d != device || m != made || err != nil {
			t.Errorf("add %s: %q, %v, %v", name, d, m, err)
		}
	}
	remove := func(device string) {
		t.Helper()
		if d, err := RemoveSoftRoCE("d9"); d != device || err != nil {
			t.Errorf("remove: %q, %v", d, err)
		}
	}
	if _, _, err := AddSoftRoCE("rxe0", "d9"); err == nil {
		t.Error("the lab's own device has that name")
	}
	add("rxe9", "rxe9", true)
	add("other", "rxe9", false)
	remove("rxe9")
	remove("")
	add("other", "other", true)
	remove("other")
}
