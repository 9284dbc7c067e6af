package fabric

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"

	"corfu/rdma/verbs"
)

// TestDeadDevice: a device that cannot be opened, as one whose firmware died or that is not ours to use, stands in nobody's way: another
// one is found as if it were not there, and the list says what is wrong with it.
func TestDeadDevice(t *testing.T) {
	if !inLab() {
		t.Skip("makes RDMA devices: make test-lab")
	}
	const name, netdev = "a_dead0", "dead0" // the first of the list
	l := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: netdev}}
	if err := netlink.LinkAdd(l); err != nil {
		t.Fatal(err)
	}
	defer netlink.LinkDel(l)
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
	if _, _, err := AddSoftRoCE(name, netdev); err != nil {
		t.Fatal(err)
	}
	defer RemoveSoftRoCE(netdev)
	node := nodeOf(t, name)
	if err := os.Rename(node, node+".away"); err != nil {
		t.Fatal(err)
	}
	defer os.Rename(node+".away", node)
	if err := os.WriteFile(node, nil, 0o600); err != nil { // libibverbs passes over devices without a node
		t.Fatal(err)
	}

	d, err := verbs.Open(verbs.Options{})
	if err != nil {
		t.Fatalf("beside a dead device: %v", err)
	}
	defer d.Close()
	list, err := Devices()
	if err != nil {
		t.Fatal(err)
	}
	good, dead := 0, 0
	for _, x := range list {
		switch {
		case x.Name == name && !x.Usable && x.Problem != "" && len(x.Ports) > 0:
			t.Log(x.Problem)
			dead++
		case x.Name == d.Info().Name && x.Usable:
			good++
		}
	}
	if good != 1 || dead != 1 {
		t.Errorf("devices: %+v; want %s usable and %s not, with the reason", list, d.Info().Name, name)
	}
}

// nodeOf is the file by which a device is opened.
func nodeOf(t *testing.T, device string) string {
	t.Helper()
	dirs, err := filepath.Glob("/sys/class/infiniband_verbs/uverbs*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if b, err := os.ReadFile(filepath.Join(dir, "ibdev")); err == nil && string(bytes.TrimSpace(b)) == device {
			return filepath.Join("/dev/infiniband", filepath.Base(dir))
		}
	}
	t.Fatalf("no node of %s among %q", device, dirs)
	return ""
}
