package fabric

import (
	"errors"
	"strings"
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

// Soft-RoCE over a VLAN is refused with what to do, and not with the kernel's "operation not permitted", which sounds as if root could.
func TestSoftRoCEOverAVLANNamesTheInterfaceUnderIt(t *testing.T) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	vlan := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "lo.100", ParentIndex: lo.Attrs().Index}, VlanId: 100}
	if err := refuseVLAN(vlan); !errors.Is(err, ErrNoSoftRoCE) || !strings.Contains(err.Error(), "lo.100 is a VLAN") || !strings.Contains(err.Error(), "make it over lo,") {
		t.Error(err)
	}
	if err := refuseVLAN(lo); err != nil {
		t.Errorf("an interface that is no VLAN: %v", err)
	}
}
