package clusterstatus

import (
	"fmt"

	"corfu/internal/wire/pb"
)

// mendFabric says what to do about a member that the fabric does not reach.
func mendFabric(name, fabric string) string {
	at := "the address that it tells clients"
	if fabric != "" {
		at += ", " + fabric
	}
	return fmt.Sprintf("look at %s (fabric.advertise of %s), at firewalls, and at the network between", at, name)
}

// reach says whom the fabric does not reach, unless more was said of it.
func (j judge) reach() {
	if j.m.FabricDown != "" {
		j.say(Degraded, "mend that machine's link to the fabric, or let another layout server lead", "%s", j.m.FabricDown)
	}
	for _, u := range j.m.Units {
		j.unreached(fmt.Sprintf("unit %d", u.Id), u.Role, u.State, u.Error, u.Fabric, u.FabricError)
	}
	for _, s := range j.m.Sequencers {
		j.unreached(fmt.Sprintf("sequencer %d", s.Id), s.Role, s.State, s.Error, s.Fabric, s.FabricError)
	}
}

func (j judge) unreached(name, role, state, err, fabric, why string) {
	if why == "" || state == stateUnreachable || (role != roleServes && refuses(state, err)) || (j.m.Waiting != "" && err != "") {
		return
	}
	j.say(Degraded, mendFabric(name, fabric), "%s cannot be reached over the fabric: %s", name, why)
}

// mendMember says what to do about a unit that is left out, or waited for, though it answers.
func mendMember(u *pb.UnitStatus) string {
	if u.FabricError != "" {
		return mendFabric(fmt.Sprintf("unit %d", u.Id), u.Fabric) + ", or " + addSpare
	}
	if u.Past == PastGivenUp {
		return fmt.Sprintf("keep its store (docs/restoring.md); corfu unit add %d=%s --accept-loss wipes it, and it joins", u.Id, u.Control)
	}
	return mendUnit(u)
}
