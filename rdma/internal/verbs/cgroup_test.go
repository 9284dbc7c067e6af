package verbs

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestRefusedByTheCgroup: each verb whose object the kernel counts says what to look at, and
// nothing else does.
func TestRefusedByTheCgroup(t *testing.T) {
	for _, verb := range []string{"ibv_open_device", "rdma_bind_addr", "rdma_resolve_addr", "ibv_alloc_pd", "ibv_reg_mr", "ibv_create_comp_channel", "ibv_create_cq", "rdma_create_qp"} {
		if got := (&Error{Verb: verb, Errno: syscall.EAGAIN}).Error(); !strings.Contains(got, "rdma.max") || !strings.Contains(got, verb) {
			t.Errorf("%s: %q; wanted rdma.max in it", verb, got)
		}
	}
	if got := (&Error{Verb: "ibv_post_send", Errno: syscall.EAGAIN}).Error(); strings.Contains(got, "rdma.max") {
		t.Errorf("a full send queue: %q", got)
	}
}

func TestCgroupDir(t *testing.T) {
	list := filepath.Join(t.TempDir(), "cgroup")
	for text, want := range map[string]string{
		"0::/system.slice/corfu-unit.service\n": "/sys/fs/cgroup/system.slice/corfu-unit.service",
		"5:rdma:/x\n0::/user.slice\n":           "/sys/fs/cgroup/user.slice",
		"5:rdma:/x\n":                           "/sys/fs/cgroup",
	} {
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := cgroupDir(list, "/sys/fs/cgroup"); got != want {
			t.Errorf("%q: %s, not %s", text, got, want)
		}
	}
}
