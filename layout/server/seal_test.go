package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"corfu/layout"
)

// script is a way that answers after a while, or never.
func script(name string, after time.Duration, end layout.Address, err error, asked func(string)) way {
	return way{name, func(ctx context.Context) (layout.Seal, error) {
		asked(name)
		t := time.NewTimer(after)
		defer t.Stop()
		select {
		case <-t.C:
			return layout.Seal{End: end}, err
		case <-ctx.Done():
			return layout.Seal{}, ctx.Err()
		}
	}}
}

const never = time.Hour

// TestFirstAnswer: which way is asked when, and what comes of it.
func TestFirstAnswer(t *testing.T) {
	broken, refused := errors.New("broken"), fmt.Errorf("%w: promised", errRefused)
	for _, x := range []struct {
		name           string
		fabric, tcp    time.Duration
		fabErr, tcpErr error
		by, err        string
		took           time.Duration
		asked          string
	}{
		{"the fabric answers", time.Millisecond, 0, nil, nil, "fabric", "", time.Millisecond, "fabric"},
		{"the fabric is silent", never, time.Millisecond, nil, nil, "control", "", hedge + time.Millisecond, "fabric control"},
		{"the fabric is slow and first", hedge + time.Millisecond, never, nil, nil, "fabric", "", hedge + time.Millisecond, "fabric control"},
		{"the fabric breaks at once", 0, time.Millisecond, broken, nil, "control", "", time.Millisecond, "fabric control"},
		{"the fabric breaks late", hedge * 2, hedge * 2, broken, nil, "control", "", 3 * hedge, "fabric control"},
		{"TCP breaks, the fabric is slow", 3 * hedge, 0, nil, broken, "fabric", "", 3 * hedge, "fabric control"},
		{"a refusal counts", 0, 0, refused, nil, "fabric", "refused: promised", 0, "fabric"},
		{"a refusal by TCP does, too, while the fabric is silent", never, 0, nil, status.Error(codes.FailedPrecondition, "promised"), "control", "promised", hedge, "fabric control"},
		{"and an error of the member's own", never, 0, nil, status.Error(codes.Internal, "no space"), "control", "no space", hedge, "fabric control"},
		{"TCP does not reach it, the fabric is slow", 3 * hedge, 0, nil, status.Error(codes.Unavailable, "connection refused"), "fabric", "", 3 * hedge, "fabric control"},
		{"both break", 0, 0, broken, broken, "", "by the fabric: broken\nby the control: broken", 0, "fabric control"},
		{"both are silent", never, never, nil, nil, "", "deadline", time.Second, "fabric control"},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				began := time.Now()
				var mu sync.Mutex
				var asked []string
				note := func(name string) {
					mu.Lock()
					defer mu.Unlock()
					asked = append(asked, name)
				}
				s, by, err := firstAnswer(ctx, []way{script(wayFabric, x.fabric, 1, x.fabErr, note), script(wayControl, x.tcp, 2, x.tcpErr, note)})
				took := time.Since(began)
				synctest.Wait()
				mu.Lock()
				defer mu.Unlock()
				if (err == nil) != (x.err == "") || (err != nil && !strings.Contains(err.Error(), x.err)) || by != x.by && x.err == "" {
					t.Errorf("by %q: %v", by, err)
				}
				if took != x.took || strings.Join(asked, " ") != x.asked {
					t.Errorf("after %v, asked %v; want after %v, asked %s", took, asked, x.took, x.asked)
				}
				if want := map[string]layout.Address{wayFabric: 1, wayControl: 2}[by]; err == nil && s.End != want {
					t.Errorf("answer %+v", s)
				}
			})
		})
	}
}

// TestSilenceEndsAtFailAfter: of one that was heard and is silent, how long it has left; of nobody else.
func TestSilenceEndsAtFailAfter(t *testing.T) {
	p := &pulse{}
	check := func(when string, want time.Duration, silent bool) {
		t.Helper()
		if got, is := p.left(testFail); got != want || is != silent {
			t.Errorf("%s: %v, %v; want %v, %v", when, got, is, want, silent)
		}
	}
	check("never heard", 0, false)
	p.times(1, false, testBeat)
	check("never heard, and missed", testFail-testBeat, true)
	p.times(1, true, testBeat)
	check("heard", 0, false)
	p.times(1, false, 350*time.Millisecond)
	check("silent", 150*time.Millisecond, true)
	p.times(1, false, 150*time.Millisecond)
	check("failed", 0, false)
	if !p.failed {
		t.Error("not failed after 500 ms")
	}
	p.times(1, true, testBeat)
	p.times(1, false, time.Hour) // the leader slept
	check("the leader slept", 150*time.Millisecond, true)
}
