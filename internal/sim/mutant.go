package sim

import (
	"google.golang.org/protobuf/proto"

	"corfu/internal/wire"
	"corfu/internal/wire/pb"
	"corfu/rdma"
)

// Mutant is a rule broken on purpose, to see that the checks find it.
type Mutant string

// Mutants below the programs: the fabric, the disk or the control plane breaks the rule for them.
const (
	Sound            Mutant = ""
	LateArrivals     Mutant = "R15: operations land after their connection was closed"
	EpochNotCompared Mutant = "R8: operations land late, and the epoch is not compared"
	CASBeforePayload Mutant = "R6: CAS before its payload"
	VolatileFlash    Mutant = "R3: acknowledged before it is on flash"
	NothingCopied    Mutant = "R17: members of the base are not completed"
	MembersWiped     Mutant = "R17: a member of the base is wiped"
)

// connectionsSurvive tells whether what is on its way lands although the unit has closed the connection. The sessions' ends are one
// of three layers (keys and compared values are the others), so that alone it must do no harm.
func (m Mutant) connectionsSurvive() bool { return m == LateArrivals || m == EpochNotCompared }

// swaps tells whether a CAS that compares with want changes the word old.
func (f *Fabric) swaps(old, want uint64) bool {
	a, b := wire.Word(old), wire.Word(want)
	if f.weird.Broken == EpochNotCompared && a.State() == wire.Empty && b.State() == wire.Empty && a.Generation() == b.Generation() {
		return true
	}
	return old == want
}

// mutate breaks rule R17 in what a reconfigurer sends to a unit.
func (f *Fabric) mutate(m proto.Message) proto.Message {
	q, ok := m.(*pb.ReconcileRequest)
	switch {
	case !ok:
	case f.weird.Broken == NothingCopied:
		q.Entries = nil
	case f.weird.Broken == MembersWiped && q.Header != nil:
		q.Header.Wipe = true
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
