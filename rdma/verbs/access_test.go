package verbs

import (
	"testing"

	"corfu/rdma"
	ib "corfu/rdma/internal/verbs"
)

// TestR7NoRelaxedOrdering: whatever rights a region is asked for, its registration has what ibv_reg_mr(3) asks of them
// and nothing else: none of the optional flags of enum ibv_access_flags, of which relaxed ordering is the first (bit 20).
func TestR7NoRelaxedOrdering(t *testing.T) {
	const w = ib.RemoteWrite | ib.LocalWrite
	const a = ib.RemoteAtomic | ib.LocalWrite
	want := []ib.Access{0, ib.RemoteRead, w, w | ib.RemoteRead, a, a | ib.RemoteRead, a | w, a | w | ib.RemoteRead}
	for rights := range 256 {
		if got := access(rdma.Access(rights)); got != want[rights&7] {
			t.Errorf("rights %#x: registered with %#x, want %#x", rights, int(got), int(want[rights&7]))
		}
	}
}
