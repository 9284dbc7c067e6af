package verbs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// charged reports whether the kernel counts what a verb makes in the rdma controller of the
// caller's cgroup, which answers EAGAIN where the limit is reached:
// drivers/infiniband/core/rdma_core.c and uverbs_cmd.c (ib_rdmacg_try_charge),
// kernel/cgroup/rdma.c.
func charged(verb string) bool {
	switch verb {
	case "ibv_open_device", "rdma_bind_addr", "rdma_resolve_addr", "ibv_alloc_pd", "ibv_reg_mr", "ibv_create_comp_channel", "ibv_create_cq", "rdma_create_qp":
		return true
	}
	return false
}

// cgroupHint says which limit is reached, as far as this process can see.
func cgroupHint() string {
	dir := cgroupDir("/proc/self/cgroup", "/sys/fs/cgroup")
	const what = "the limit of RDMA objects of this process's cgroup is reached: raise rdma.max"
	limits, err := os.ReadFile(filepath.Join(dir, "rdma.max"))
	if err != nil {
		return what + " there"
	}
	return fmt.Sprintf("%s in %s, which is %s", what, dir, strings.Join(strings.Fields(string(limits)), " "))
}

// cgroupDir is the directory of this process's cgroup of version 2.
func cgroupDir(list, root string) string {
	b, err := os.ReadFile(list)
	if err != nil {
		return root
	}
	for _, l := range strings.Split(string(b), "\n") {
		if path, ok := strings.CutPrefix(l, "0::"); ok {
			return filepath.Join(root, path)
		}
	}
	return root
}
