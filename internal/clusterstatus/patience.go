package clusterstatus

import (
	"fmt"
	"time"
)

// leaderLog is what to do about what the layout leader is to mend, and has not mended in time.
const leaderLog = "this is still shown then, look at the log of the layout leader"

// patience says how long to wait for what needs nobody, and what to do if that is not enough.
func patience(howLong, then string) string { return fmt.Sprintf("wait %s; if %s", howLong, then) }

// silent says that a member that serves has not answered its last heartbeat, or is stopped and waited for.
func (j judge) silent(name, control string, silent, stopped, waited uint64) {
	if stopped > 0 && waited > 0 {
		j.say(Degraded, fmt.Sprintf("start it at %s again within that time; after it, the log goes on without it if it can", control),
			"%s was stopped by its operator %s ago: appends wait for it, for %s more (restart_grace)", name, ms(stopped), ms(waited))
		return
	}
	j.say(Degraded, patience("10 s, in which it answers or is left out", fmt.Sprintf("this is still shown then, look at %s at %s and at the network", name, control)),
		"%s has not answered for %s", name, ms(silent))
}

// stoppedBy says that the member did not crash; "": nobody announced its stop.
func stoppedBy(stopped uint64) string {
	if stopped == 0 {
		return ""
	}
	return fmt.Sprintf(": its operator stopped it %s ago", (time.Duration(stopped) * time.Millisecond).Round(time.Second))
}
