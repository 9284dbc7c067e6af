package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"corfu/internal/devcluster"
)

// TestOperatorChangesTheMembers goes through the commands that change the cluster, each first with a dry run.
func TestOperatorChangesTheMembers(t *testing.T) {
	notInLab(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := devcluster.Start(ctx, devcluster.Options{Provider: "tcp", Dir: t.TempDir(), Chains: 1, Spares: 1, Standbys: 1, MinReplicas: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	corfu := func(want int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if got := run(ctx, append(args, "--cluster", c.LayoutAddr()), nil, &out, &errs); got != want {
			t.Fatalf("%v: status %d, want %d: %s", args, got, want, errs.String())
		}
		return out.String() + errs.String()
	}
	has := func(text string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%q is missing in\n%s", want, text)
			}
		}
	}
	shown := corfu(exitOK, "layout", "show")
	has(shown, "standby     2 at", "spare       3 at")
	has(corfu(exitOK, "seq", "failover", "--dry-run"), "- sequencer   1 at", "+ sequencer   2 at", "+ standby     1 at", "  spare       3 at")
	if after := corfu(exitOK, "layout", "show"); after != shown {
		t.Errorf("a dry run changed the layout to\n%s", after)
	}
	corfu(exitOK, "seq", "failover")
	has(corfu(exitOK, "layout", "show"), "sequencer   2 at", "standby     1 at")
	has(corfu(exitOK, "unit", "remove", "2", "--dry-run"), "- from 0, chain 0: units 1 at", "- spare       3 at", ", 3 at")
	corfu(exitOK, "unit", "remove", "2")
	text := corfu(exitOK, "layout", "show")
	has(text, ", 3 at")
	if strings.Contains(text, "2 at "+c.Units[1].ControlAddr()) {
		t.Errorf("unit 2 is there still:\n%s", text)
	}
	const already = "already so"
	has(corfu(exitOK, "unit", "remove", "2"), "nothing to do: no unit 2 is listed")
	has(corfu(exitOK, "unit", "add", "3="+c.Units[2].ControlAddr()), already)
	has(corfu(exitRuntime, "unit", "add", "3=127.0.0.1:1"), "listed already, at "+c.Units[2].ControlAddr())
	has(corfu(exitRuntime, "unit", "add", "9=127.0.0.1:1"), "unit 9 does not answer at 127.0.0.1:1")
	has(corfu(exitUsage, "unit", "remove", "x"), "not the number of a unit")
	has(corfu(exitUsage, "unit", "replace", "3", "3"), "its own place")
	has(corfu(exitUsage, "chain", "add", "2,2"), "named twice")
	has(corfu(exitRuntime, "unit", "drain", "1"), "no spare answers")
	has(corfu(exitRuntime, "unit", "drain", "9"), "unit 9: in no chain")
	has(corfu(exitOK, "seq", "failover", "2"), already)
	has(corfu(exitUsage, "seq", "failover", "x"), "not the number of a sequencer")
	corfu(exitOK, "unit", "add", "2="+c.Units[1].ControlAddr())
	shown = corfu(exitOK, "layout", "show")
	has(corfu(exitOK, "unit", "replace", "1", "2", "--dry-run"), "- spare       2 at", "+ leaving     1, once others hold what it holds")
	if after := corfu(exitOK, "layout", "show"); after != shown {
		t.Errorf("a dry run changed the layout to\n%s", after)
	}
	has(corfu(exitOK, "unit", "replace", "1", "2", "--wait", "60s"), "+ leaving     1", "unit 1 has left its chains")
	has(corfu(exitOK, "unit", "replace", "1", "2"), already)
	has(corfu(exitOK, "layout", "show"), "drained     1 at")
	corfu(exitOK, "unit", "add", "1="+c.Units[0].ControlAddr())
	has(corfu(exitOK, "unit", "drain", "3", "--wait", "60s"), "unit 3 has left its chains")
	has(corfu(exitOK, "unit", "drain", "3"), already)
	has(corfu(exitRuntime, "unit", "drain", "1", "--shorter"), "min_replicas")
	corfu(exitOK, "unit", "add", "3="+c.Units[2].ControlAddr())
	has(corfu(exitOK, "layout", "status"), "spare, ", "standby, ")
}

func TestLayoutServerTakesSettingsOfFailures(t *testing.T) {
	notInLab(t)
	path := filepath.Join(t.TempDir(), "layout.yaml")
	text := "heartbeat: 50ms\nfail_after: 250ms\nmin_replicas: 2\nrebuild_rate: 1MiB\nbootstrap:\n  spares:\n    - {id: 3, control: \"h:3\"}\n  standbys:\n    - {id: 2, control: \"h:2\"}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if got := run(context.Background(), []string{"layout", "--config", path}, nil, &out, &errs); got != exitUsage || !strings.Contains(errs.String(), "layout needs --dir") {
		t.Errorf("status %d: %s", got, errs.String())
	}
}
