package certs

import (
	"strconv"
	"testing"
	"time"
)

// However many peers are refused, the log has a burst of lines and then one now and then, and says
// how many had none.
func TestRefusalsAreSaidAtABoundedRate(t *testing.T) {
	var r refusals
	now := time.Unix(1000, 0)
	said, silent := 0, uint64(0)
	take := func(host string) {
		say, others := r.take(host, "why", now)
		if say {
			said++
			silent += others
		}
	}
	for i := range 5000 {
		take(strconv.Itoa(i))
	}
	if said != refusalBurst {
		t.Errorf("%d lines at once, want %d", said, refusalBurst)
	}
	for i := range 600 { // a minute
		now = now.Add(100 * time.Millisecond)
		take("later " + strconv.Itoa(i))
	}
	if want := refusalBurst + int(time.Minute/refusalEvery); said != want {
		t.Errorf("%d lines after a minute, want %d", said, want)
	}
	if r.total != 5600 || silent+r.silent+uint64(said) != r.total {
		t.Errorf("%d refused, %d said, %d of others told, %d to be told", r.total, said, silent, r.silent)
	}
	now = now.Add(time.Hour)
	take("0")
	take("0")
	if now = now.Add(sayEvery); said != refusalBurst+int(time.Minute/refusalEvery)+1 {
		t.Errorf("a peer that comes again at once has %d lines", said)
	}
	take("0")
	if said != refusalBurst+int(time.Minute/refusalEvery)+2 {
		t.Error("a peer that comes again later has no line")
	}
	for i := range 10 * refusalPeers {
		now = now.Add(refusalEvery)
		take("many " + strconv.Itoa(i))
	}
	if len(r.said) > refusalPeers {
		t.Errorf("%d peers are remembered, want at most %d", len(r.said), refusalPeers)
	}
}
