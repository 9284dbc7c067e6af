package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"corfu/internal/history"
	"corfu/layout"
)

// told is a run of which nothing is wrong: an entry, one of three pages, junk, an entry of unknown outcome that is there, one whose client
// died and that is there, one that failed for certain.
func told() *testimony {
	read := func(p layout.Position, what string, at int64) fact {
		return fact{Kind: factRead, Position: p, Payload: what, Since: at, At: at + 1}
	}
	final := []string{"1.1/20", "1.2/9000", history.Inside(1), history.Inside(1), history.Junk, "2.1/20", "3.1/20"}
	t := &testimony{clients: [][]fact{
		{
			{Kind: factInvoke, N: 1, At: 10, Payload: "1.1/20", Pages: 1}, {Kind: factInvoke, N: 2, At: 11, Payload: "1.2/9000", Pages: 3},
			{Kind: factAck, N: 1, At: 20}, {Kind: factAck, N: 2, At: 22, Position: 1},
			{Kind: factTail, Since: 23, At: 24, Position: 5}, read(3, history.Inside(1), 30), read(4, history.Junk, 40),
			{Kind: factInvoke, N: 3, At: 41, Payload: "1.3/20", Pages: 1}, {Kind: factFailed, N: 3, At: 45, Error: "no cluster"},
		},
		{
			{Kind: factInvoke, N: 1, At: 10, Payload: "2.1/20", Pages: 1}, {Kind: factUnknown, N: 1, At: 30, Position: 5, Known: true, Error: "time-out"},
			{Kind: factInvoke, N: 2, At: 50, Payload: "2.2/20", Pages: 1}, {Kind: factUnknown, N: 2, At: 60, Error: "time-out"},
			read(6, history.Unwritten, 15),
		},
		{{Kind: factInvoke, N: 1, At: 12, Payload: "3.1/20", Pages: 1}},
	}}
	for p, what := range final {
		t.final = append(t.final, read(layout.Position(p), what, 100))
	}
	return t
}

// trim adds a trim of all below p after all else but the last reads. end: what became of it; "": its client died.
func (t *testimony) trim(p layout.Position, end factKind) {
	facts := []fact{{Kind: factTrim, N: 9, At: 90, Position: p}}
	if end != "" {
		facts = append(facts, fact{Kind: end, N: 9, At: 95, Position: p})
	}
	t.clients = append(t.clients, facts)
}

// gone has the last readers find the first n positions trimmed.
func (t *testimony) gone(n int) {
	for i := range t.final[:n] {
		t.final[i].Payload = history.Trimmed
	}
}

// TestJudge: each thing that is changed in what was told is found.
func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testimony)
		want   string
	}{
		"nothing is wrong":                   {func(*testimony) {}, ""},
		"an acknowledged entry is not there": {func(t *testimony) { t.final[0].Payload = history.Junk }, `position 0: "1.1/20" was acknowledged to client 0`},
		"its position was not read":          {func(t *testimony) { t.final = t.final[1:] }, `position 0: "1.1/20" was acknowledged`},
		"a fragment is not there":            {func(t *testimony) { t.final[2].Payload = history.Junk }, "position 2:"},
		"junk became a value":                {func(t *testimony) { t.final[4].Payload = "2.2/20" }, "position 4 was read as"},
		"a value became junk": {func(t *testimony) {
			t.clients[1][4] = fact{Kind: factRead, Position: 5, Payload: history.Junk, Since: 31, At: 32}
		}, "position 5"},
		"the same at two positions":        {func(t *testimony) { t.final[6].Payload = "1.1/20" }, `payload "1.1/20" read at 6, appended at 0`},
		"what failed for certain is there": {func(t *testimony) { t.final[6].Payload = "1.3/20" }, "failed for certain: no cluster"},
		"what nobody wrote is there":       {func(t *testimony) { t.final[6].Payload = "9.9/20" }, "known: false"},
		"unwritten after it was read": {func(t *testimony) {
			t.clients[1][4] = fact{Kind: factRead, Position: 0, Payload: history.Unwritten, Since: 60, At: 61}
		}, "position 0 is not linearizable"},
		"read before the append began": {func(t *testimony) {
			t.clients[0][5] = fact{Kind: factRead, Position: 0, Payload: "1.1/20", Since: 5, At: 6}
		}, "position 0 is not linearizable"},
		"a tail below what was acknowledged":   {func(t *testimony) { t.clients[0][4].Position = 3 }, "tail 3, although position 3 was known"},
		"a position given to two appends":      {func(t *testimony) { t.clients[1][1] = fact{Kind: factAck, N: 1, At: 30, Position: 0} }, "position 0 is not linearizable"},
		"a client found what is not possible":  {func(t *testimony) { t.clients[0][8].Error = "position 3: invariant broken: other bytes" }, "client 0: failed 0: position 3: invariant broken"},
		"the acknowledgement that was altered": {func(t *testimony) { *t = *t.altered() }, `position 2: "1.2/9000" was acknowledged`},
		"trimmed, and the rest of an entry":    {func(t *testimony) { t.trim(2, factTrimmed); t.gone(4) }, ""},
		"trimmed in part":                      {func(t *testimony) { t.trim(2, factHalf); t.gone(1) }, ""},
		"trimmed by a client that died":        {func(t *testimony) { t.trim(2, ""); t.gone(4) }, ""},
		"nobody trimmed it":                    {func(t *testimony) { t.gone(1) }, `position 0: "1.1/20" was acknowledged`},
		"more is gone than was trimmed":        {func(t *testimony) { t.trim(1, factTrimmed); t.gone(2) }, `position 1: "1.2/9000" was acknowledged`},
		"trimmed, and there again":             {func(t *testimony) { t.trim(2, factTrimmed) }, "position 0 is not linearizable"},
	} {
		x := told()
		c.change(x)
		err := x.judge()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant %q", name, err, c.want)
		}
	}
	acked, unknown, failed, reads := told().counts()
	if got := []int{acked, unknown, failed, reads}; !reflect.DeepEqual(got, []int{2, 3, 1, 3}) {
		t.Errorf("counts %v", got)
	}
}

func TestFactsThereAndBackWithoutATornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	r, err := newRecorder(path)
	if err != nil {
		t.Fatal(err)
	}
	want := append(told().clients[0], told().clients[1]...)
	for _, x := range want {
		if err := r.tell(x); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.f.WriteString(`{"k":"ack","n":`); err != nil { // kill -9 in the middle of a write
		t.Fatal(err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	if got, err := readFacts(path); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	if err := os.WriteFile(path, []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readFacts(path); err == nil {
		t.Errorf("nonsense was read as %+v", got)
	}
}

func TestPayloadSaysWhatItIs(t *testing.T) {
	for _, tag := range []string{"1.2/20", "1.2/9000", "100.20000/6"} {
		b := payload(tag)
		if got := tagOf(b); got != tag {
			t.Errorf("%q became %q", tag, got)
		}
		if got := tagOf(append(b, '+')); got == tag {
			t.Errorf("%q with a byte too many was taken for it", tag)
		}
		b[len(b)-1]--
		if got := tagOf(b); got == tag {
			t.Errorf("%q with another last byte was taken for it", tag)
		}
	}
}

func TestPauses(t *testing.T) {
	x := &testimony{clients: [][]fact{{{Kind: factAck, At: 1e9}, {Kind: factAck, At: 4e9}, {Kind: factRead, At: 5e9}}, {{Kind: factAck, At: 2e9}, {Kind: factAck, At: 9e9}}}}
	for _, c := range []struct {
		from, to int64
		want     time.Duration
	}{
		{15e8, 16e8, time.Second}, {15e8, 25e8, 2 * time.Second}, {3e9, 4e9, 2 * time.Second}, {3e9, 41e8, 5 * time.Second}, {95e8, 99e8, 0}, {0, 5e8, 0},
	} {
		if got := longest([]int64{1e9, 2e9, 4e9, 9e9}, inflicted{"", c.from, c.to}); got != c.want {
			t.Errorf("fault from %d to %d: %v, want %v", c.from, c.to, got, c.want)
		}
	}
	want := []string{
		"kill           2 times, longest time without an acknowledgement: median 5s, most 5s",
		"stop           1 times, longest time without an acknowledgement: median 1s, most 1s",
	}
	if got := pauses(x, []inflicted{{"kill", 3e9, 41e8}, {"stop", 15e8, 16e8}, {"kill", 15e8, 25e8}}); !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}
