package sim

import (
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
