package sim

import (
	"time"

	"google.golang.org/protobuf/proto"

	"corfu/internal/wire/pb"
	"corfu/rdma"
)

// Mutant is a rule broken on purpose, to see that the checks find it.
type Mutant string

// Mutants below the programs: the fabric, the disk or the control plane breaks the rule for them.
const (
	Sound            Mutant = ""
	CASBeforePayload Mutant = "R6: CAS before its payload"
	RelaxedOrdering  Mutant = "R7: a WRITE becomes visible after what was posted behind it"
	TwoNICs          Mutant = "R7: two NICs serve a word"
	VolatileFlash    Mutant = "R3: acknowledged before it is on flash"
	NothingCopied    Mutant = "R17: members of the base are not completed"
	MembersWiped     Mutant = "R17: a member of the base is wiped"
	NobodyWiped      Mutant = "R17: a unit that was left out and comes back keeps what it has"
)

// mutate breaks rule R17 in what a reconfigurer sends to a unit.
func (f *Fabric) mutate(m proto.Message) proto.Message {
	q, ok := m.(*pb.ReconcileRequest)
	switch {
	case !ok:
	case f.weird.Broken == NothingCopied:
		q.Entries = nil
	case f.weird.Broken == MembersWiped && q.Header != nil:
		q.Header.Wipe = true
	case f.weird.Broken == NobodyWiped && q.Header != nil:
		q.Header.Wipe = false
	}
	return m
}

// relaxedMost is how long a WRITE may take to become visible where memory is registered with relaxed ordering.
const relaxedMost = 20 * time.Microsecond

// land makes the bytes of a WRITE visible. The fabric's lock is held.
func (c *conn) land(r *region, off int, data []byte) {
	if c.f.weird.Broken != RelaxedOrdering {
		copy(r.mem.Bytes()[off:], data)
		return
	}
	r.later(time.Duration(c.rand.Int64N(int64(relaxedMost))), func() { copy(r.mem.Bytes()[off:], data) })
}

// order is that in which the operations of a batch travel.
func (f *Fabric) order(b *rdma.Batch) []int {
	list := make([]int, len(b.Ops))
	for i := range list {
		list[i] = i
	}
	if n := len(list); f.weird.Broken == CASBeforePayload && n > 1 && b.Ops[0].Kind == rdma.OpWrite && b.Ops[1].Kind == rdma.OpCompareSwap {
		list = append(list[1:], 0)
	}
	return list
}
