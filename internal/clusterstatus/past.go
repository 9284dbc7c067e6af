package clusterstatus

import (
	"fmt"
	"strings"

	"corfu/internal/wire/pb"
)

// LostPast is the error of a unit that answers, and whose store does not count in rule R16, or is a
// stranger's (rules R21 to R23).
const LostPast = "its store has lost its past"

// GivenUp is the error of a unit that stands by, and is not wiped without an operator's word (rule
// R27).
const GivenUp = "it may hold what was given up with --accept-loss, and is not wiped"

// otherLog reports whether the unit answers and holds another log than the layout store.
func otherLog(u *pb.UnitStatus) bool { return strings.Contains(u.Error, "it holds another log") }

// mendStores says what to do about units whose stores lost their past while the log waits for them;
// "": there are none.
func (j judge) mendStores() string {
	var at, ids []string
	for _, u := range j.m.Units {
		if u.Role == roleServes && u.Error == LostPast {
			at = append(at, fmt.Sprintf("unit %d at %s", u.Id, u.Control))
			ids = append(ids, fmt.Sprint(u.Id))
		}
	}
	switch len(at) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("start %s on the store that it had: mount the volume, put the drive or the directory back. "+
			"If that store is gone for good, corfu unit remove %s --accept-loss gives up what it alone may hold", at[0], ids[0])
	}
	return fmt.Sprintf("start %s on the stores that they had: mount the volumes, put the drives or the directories back. "+
		"If one of those stores is gone for good, docs/restoring.md says how to go on without it (--accept-loss)", strings.Join(at, ", "))
}
