package clusterstatus

import (
	"fmt"
	"strings"
)

// What UnitStatus.Past says of a unit's store. The empty string means that nothing is wrong.
const (
	PastLost       = "lost"        // it counts for nothing in R16 (rules R21 to R23)
	PastGivenUp    = "given up"    // the unit stands by, and is not wiped without an operator's word (R27)
	PastAnotherLog = "another log" // than that of the layout store
)

// PastText returns the error of a unit whose status has no other text for what past says.
func PastText(past string) string {
	switch past {
	case PastLost:
		return "its store has lost its past"
	case PastGivenUp:
		return "it may hold what was given up with --accept-loss, and is not wiped"
	case PastAnotherLog:
		return "it holds another log"
	}
	return ""
}

// mendStores says what to do about units whose stores lost their past while the log waits for them;
// "": there are none.
func (j judge) mendStores() string {
	var at, ids []string
	for _, u := range j.m.Units {
		if u.Role == roleServes && u.Past == PastLost {
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
