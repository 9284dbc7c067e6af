package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"corfu/internal/clusterstatus"
	"corfu/internal/clusterstatus/statustest"
	"corfu/internal/devcluster"
	"corfu/internal/golden"
	"corfu/internal/wire/pb"
)

// TestStatusSaysWhatIsWrong: what an operator reads in good and bad days, to the letter.
func TestStatusSaysWhatIsWrong(t *testing.T) {
	notInLab(t)
	for name, m := range statustest.States() {
		golden.Text(t, "status-"+name, text(statusLines(m), false))
	}
	golden.Text(t, "top", text(topLines(statustest.States()["healthy"]), false))
}

// TestScreenHoldsWhatFits: no line is wider and no frame higher than the terminal, and what stood there before is cleared.
func TestScreenHoldsWhatFits(t *testing.T) {
	notInLab(t)
	for name, m := range statustest.States() {
		// Only the verdict is wrapped: rows of a table are cut.
		want := len(statusLines(m)) + 1
		for _, l := range verdictLines(m) {
			want += len(wrap(l.text, 60)) - 1
		}
		if got := strings.Count(frame(statusLines(m), 60, 1000, false), lineEnd) + 1; got != want {
			t.Errorf("%s: %d rows, want %d", name, got, want)
		}
		for _, size := range [][2]int{{80, 24}, {40, 10}, {1, 2}} {
			width, height := size[0], size[1]
			rows := strings.Split(frame(statusLines(m), width, height, false), lineEnd)
			if len(rows) > height {
				t.Errorf("%s: %d rows on a screen of %d", name, len(rows), height)
			}
			for i, r := range rows[:len(rows)-1] {
				if r = strings.TrimPrefix(r, screenHome); len([]rune(r)) > width {
					t.Errorf("%s: row %d is %q, the screen has %d columns", name, i, r, width)
				}
			}
			if last := rows[len(rows)-1]; !strings.HasPrefix(last, screenRest) {
				t.Errorf("%s: the rest is not cleared: %q", name, last)
			}
		}
	}
}

// statusRun runs a command in this process, as an operator does.
func statusRun(t *testing.T, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	code := run(ctx, args, strings.NewReader(""), &out, &errs)
	return outcome{out.String(), errs.String(), code}
}

// TestStatusOfALiveCluster: healthy; a unit is killed and its chain gets shorter; it comes back and joins again; the layout server stops.
func TestStatusOfALiveCluster(t *testing.T) {
	notInLab(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	c, err := devcluster.Start(ctx, devcluster.Options{Provider: "tcp", Dir: t.TempDir(), MinReplicas: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	at := []string{"--cluster", c.LayoutAddr(), "--timeout", patience.String()}
	status := func(more ...string) outcome {
		return statusRun(t, append(append([]string{"status"}, at...), more...)...)
	}
	says := func(code int, first string) {
		t.Helper()
		eventually(t, func() error {
			got := status()
			if line, _, _ := strings.Cut(got.stdout, "\n"); got.code != code || got.stderr != "" || !strings.HasPrefix(line, first) {
				return fmt.Errorf("%+v, want exit %d and %q", got, code, first)
			}
			return nil
		})
	}
	says(0, "healthy")
	if got := statusRun(t, append([]string{"append", "--provider", "tcp", "a", "b", "c"}, at...)...); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	eventually(t, func() error {
		if got := statusRun(t, append([]string{"top", "-n", "1"}, at...)...); got.code != 0 || !strings.Contains(got.stdout, "tail 3,") {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})

	addr := c.Units[1].ControlAddr()
	if err := c.KillUnit(2); err != nil {
		t.Fatal(err)
	}
	says(1, "DEGRADED: chain 1 has 1 of 2 units. To do: start unit 2 at "+addr+" again, or add a spare (corfu unit add ID=HOST:PORT).")
	var got struct {
		Verdict          string
		Epoch, Tail      uint64
		DeficitOpen      int `json:"deficit_open"`
		Reconfigurations []struct {
			Epoch   uint64
			Result  string
			Changes []string
			Phases  []struct{ Name string }
		}
	}
	if out := status("-o", "json"); out.code != 1 || json.Unmarshal([]byte(out.stdout), &got) != nil {
		t.Fatalf("%+v", out)
	}
	last := got.Reconfigurations[0]
	if got.Verdict != clusterstatus.Degraded || got.DeficitOpen != 1 || got.Tail < 3 || last.Epoch != got.Epoch || last.Result != "active" ||
		len(last.Changes) != 1 || last.Changes[0] != "unit 2 left its chain" || len(last.Phases) != 5 {
		t.Errorf("%+v", got)
	}

	if err := c.RestartUnit(ctx, 2); err != nil {
		t.Fatal(err)
	}
	says(0, "healthy")
	if err := c.StopLayout(0); err != nil {
		t.Fatal(err)
	}
	if got := statusRun(t, "status", "--cluster", at[1], "--timeout", "2s"); got.code != 1 || !strings.HasPrefix(got.stdout, "DOWN: no layout server answers at "+at[1]+".") {
		t.Errorf("%+v", got)
	}
}

// TestNobodyLeads: each server that was tried is named, with what it said.
func TestNobodyLeads(t *testing.T) {
	notInLab(t)
	c, err := devcluster.Start(t.Context(), devcluster.Options{Provider: "tcp", Dir: t.TempDir(), LayoutServers: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all := strings.Join(c.LayoutAddrs(), ",")
	for _, i := range []int{0, 2} {
		if err := c.StopLayout(i); err != nil {
			t.Fatal(err)
		}
	}
	if got := statusRun(t, "top", "-n", "1", "--cluster", "127.0.0.1:1", "--timeout", "1s"); got.code != 1 || got.stderr != "" || !strings.HasPrefix(got.stdout, "DOWN: no layout server answers") || strings.Count(got.stdout, "\n") != 1 {
		t.Errorf("top of a cluster that does not answer: %+v", got)
	}
	eventually(t, func() error {
		got := statusRun(t, "status", "--cluster", all, "--timeout", "2s")
		for _, want := range []string{"DOWN: no layout server leads: 1 of 3 answer, 2 are needed.", "start layout server 1 at " + c.LayoutAddrs()[0],
			"start layout server 3 at " + c.LayoutAddrs()[2], "candidate", "connection refused"} {
			if got.code != 1 || got.stderr != "" || !strings.Contains(got.stdout, want) {
				return fmt.Errorf("%q is missing: %+v", want, got)
			}
		}
		return nil
	})
}

// TestLongErrorsStandAboveTheTables: a column of the table stays short, and the sentence is part of the verdict.
func TestLongErrorsStandAboveTheTables(t *testing.T) {
	why := "the store of unit 6 has lost its past: store 7bcff is as it was in epoch 1, and was in epoch 2 since: an old copy"
	m := &pb.ClusterStatus{Verdict: "down", Epoch: 2, Waiting: "unit 1", Problems: []*pb.Problem{{Severity: "down", What: "appends wait", Todo: "start it"}},
		Units: []*pb.UnitStatus{{Id: 6, Role: "serves", State: "closed", Error: why, Past: clusterstatus.PastLost, Control: "u:6"}}}
	var text []string
	for _, l := range statusLines(m) {
		text = append(text, l.text)
	}
	verdict, tables, _ := strings.Cut(strings.Join(text, "\n"), "\n\n")
	if !strings.Contains(verdict, "unit 6 is closed: "+why) || strings.Contains(tables, why) || !strings.Contains(tables, "closed (went back)") {
		t.Errorf("verdict\n%s\ntables\n%s", verdict, tables)
	}
	m.Problems[0].What += ": " + why
	if n := strings.Count(fmt.Sprint(statusLines(m)), why); n != 1 {
		t.Errorf("it is said %d times", n)
	}
}
