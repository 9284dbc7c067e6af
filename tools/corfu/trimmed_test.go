package main

import (
	"fmt"
	"strings"
	"testing"
)

// Readers say on stderr which positions a trim took from them, and go on behind it; one above the
// end of the log is told so.
func TestReadersSayWhatATrimTook(t *testing.T) {
	c := newCLI(t)
	startDev(c)
	c.ok("append", "a", "b", "c", "d")
	c.ok("trim", "--prefix", "3")
	notice := "corfu: positions 0 to 2 were trimmed: there is nothing to be read (going on at 3)\n"
	if got := c.run("", "read", "--from", "0"); got != (outcome{"d\n", notice, exitOK}) {
		t.Errorf("read --from 0: %+v, want d and %q", got, notice)
	}
	if got := c.run("", "read", "--from", "0", "--to", "3"); got.stdout != "" || got.code != exitOK || !strings.Contains(got.stderr, "positions 0 to 2 were trimmed") {
		t.Errorf("read --from 0 --to 3: %+v", got)
	}
	f := c.start("tail", "--follow", "--from", "1") // start waits for the first entry
	if got := f.word("payload"); got != "d" {
		t.Errorf("tail -f --from 1: %v", f.said)
	}
	eventually(t, func() error { // another pipe brings it
		if log := f.log.String(); !strings.Contains(log, "positions 1 to 2 were trimmed") {
			return fmt.Errorf("tail -f --from 1 says %q", log)
		}
		return nil
	})
	f.stop()
	c.fails(exitRuntime, []string{"position 9 is beyond the end of the log"}, "read", "--from", "9")
	c.fails(exitRuntime, []string{"position 9", "beyond the end of the log"}, "tail", "-f", "--from", "9")
}
