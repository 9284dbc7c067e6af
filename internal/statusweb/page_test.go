package statusweb_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"corfu/internal/clusterstatus"
	"corfu/internal/clusterstatus/statustest"
	"corfu/internal/devcluster"
	"corfu/internal/statusweb"
	"corfu/internal/wire/pb"
)

// patience is for a machine that is very busy.
const patience = 90 * time.Second

// browser starts Chromium, or skips the test where none was asked for: make test-web asks.
func browser(t *testing.T) context.Context {
	t.Helper()
	if os.Getenv("CORFU_WEB") != "1" {
		t.Skip("the page in a browser is tested by make test-web")
	}
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal(err)
	}
	o := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, o...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	console := chromedp.Console(ctx)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		// Whatever the page throws, or the policy refuses, fails the test.
		for m, err := range console {
			if err != nil {
				return
			}
			if m.IsException() || strings.Contains(m.String(), "Content Security Policy") {
				t.Errorf("the browser complains: %v", m)
			}
		}
	})
	t.Cleanup(func() { cancel(); reading.Wait() })
	return ctx
}

// site serves the page over one state at a time.
type site struct {
	*httptest.Server
	state atomic.Pointer[pb.ClusterStatus]
}

func newSite(t *testing.T) *site {
	s := &site{}
	mux := http.NewServeMux()
	statusweb.Mount(mux, func(context.Context) (*pb.ClusterStatus, error) {
		m := s.state.Load()
		if m.Epoch == 0 {
			return m, errors.New("no leader")
		}
		return m, nil
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// seen is what stands on the page, as a person would sum it up.
type seen struct {
	Verdict  string
	Title    string
	Problems []string
	Chains   []string // "1-2: 1 head open, 2 tail open"
	Spares   []string
	Progress int
	Servers  int
	History  []string // what changed
	Hidden   []string // sections without anything to show
	Wide     bool     // the page is wider than the window
}

const look = `(() => {
  const all = (q, root = document) => [...root.querySelectorAll(q)], text = (e) => e.textContent.replace(/\s+/g, " ").trim();
  const unit = (e) => e.dataset.unit ? text(e.querySelector(".top > span")) + " " + text(e.querySelector(".pill")) : text(e);
  return { Verdict: document.getElementById("verdict").dataset.verdict, Title: document.title,
    Problems: all("#verdict li").map(text),
    Chains: all(".chains > li").map((c) => text(c.querySelector("h3").firstChild) + ": " + all(".unit", c).map(unit).join(", ")),
    Spares: all("#spares .unit").map(unit), Progress: all("#copies li").length, Servers: all("#servers tbody tr").length,
    History: all("#history tbody tr").map((r) => text(r.children[2].firstChild)),
    Hidden: all("section[hidden]").map((e) => e.id), Wide: document.documentElement.scrollWidth > innerWidth };
})()`

// await looks until ok says that the page is as it should be, or fails with what is there.
func await(t *testing.T, ctx context.Context, ok func(seen) error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		got, e := chromedp.Run(ctx, chromedp.Evaluate[seen](look))
		if e != nil {
			t.Fatal(e)
		}
		if err = ok(got); err == nil {
			return
		}
	}
	t.Error(err)
}

func is(want seen) func(seen) error {
	return func(got seen) error {
		if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
			return fmt.Errorf("the page shows\n%s\nwant\n%s", g, w)
		}
		return nil
	}
}

// window sets size and colours; the page reacts as on such a device.
func window(width, height int64, dark bool) chromedp.Action[chromedp.Void] {
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	return chromedp.Steps(chromedp.EmulateViewport(width, height), chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	}))
}

// picture writes what the browser shows to build/web-name.png, for people to look at.
func picture(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	b, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join("..", "..", "build")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "web-"+name+".png"), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestThePageShowsTheCluster follows a cluster from one state to the next without being loaded anew: its refresh is what shows them.
func TestThePageShowsTheCluster(t *testing.T) {
	ctx := browser(t)
	states := statustest.States()
	s := newSite(t)
	s.state.Store(states["healthy"])
	if err := chromedp.Do(ctx, window(1280, 900, false), chromedp.Navigate(s.URL)); err != nil {
		t.Fatal(err)
	}
	history := []string{"the same members", "sequencer 1 took over from 2", "the log begins: chains 1-2, 3-4, sequencer 2"}
	first := seen{Verdict: "healthy", Title: "corfu", Chains: []string{"Chain 1-2: Unit 1 head open, Unit 2 tail open", "Chain 3-4: Unit 3 head open, Unit 4 tail open"},
		Spares: []string{"Unit 5 stands by"}, Servers: 3, History: history, Hidden: []string{"copies"}}
	await(t, ctx, is(first))
	picture(t, ctx, "healthy")

	s.state.Store(states["no-spare"])
	short := first
	short.Verdict, short.Title = "degraded", "Degraded – corfu"
	short.Problems = []string{"Chain 1 has 1 of 2 units.To do: start unit 2 at 10.0.0.12:7780 again, or add a spare (corfu unit add ID=HOST:PORT)."}
	short.Chains = []string{"Chain 1: Unit 1 head and tail open, a unit is lacking", first.Chains[1]}
	short.Spares, short.History = []string{"Unit 2 unreachable"}, append([]string{"unit 2 left its chain"}, history...)
	await(t, ctx, is(short))
	picture(t, ctx, "degraded")

	s.state.Store(states["rebuilding"])
	await(t, ctx, func(got seen) error {
		if got.Progress != 2 || got.Chains[0] != "Chain 1-5: Unit 1 head open, Unit 5 tail open" || len(got.Hidden) != 0 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	picture(t, ctx, "rebuilding")

	// A phone, in the dark, on a bad day: nothing is cut off at the side.
	s.state.Store(states["many-troubles"])
	if err := chromedp.Do(ctx, window(390, 844, true)); err != nil {
		t.Fatal(err)
	}
	await(t, ctx, func(got seen) error {
		if got.Verdict != "degraded" || len(got.Problems) != 8 || got.Wide {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	picture(t, ctx, "phone-dark")

	s.state.Store(states["no-leader"])
	await(t, ctx, is(seen{Verdict: "down", Title: "Down – corfu",
		Problems: []string{"No layout server leads: 1 of 3 answer, 2 are needed.To do: start layout server 2 at 10.0.0.2:7770 again, or start layout server 3 at 10.0.0.3:7770 again, or, if it runs, look at its log and at the network to it."},
		Chains:   short.Chains[:0], Servers: 3, Hidden: []string{"chains", "spares", "copies", "sequencers", "history", "segments", "clients"}}))
}

// TestThePageShowsALiveCluster: a unit is killed under the eyes of somebody who looks on.
func TestThePageShowsALiveCluster(t *testing.T) {
	ctx := browser(t)
	c, err := devcluster.Start(ctx, devcluster.Options{Provider: "tcp", Dir: t.TempDir(), MinReplicas: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	mux := http.NewServeMux()
	statusweb.Mount(mux, c.Status)
	s := httptest.NewServer(mux)
	defer s.Close()
	if err := chromedp.Do(ctx, window(1280, 900, true), chromedp.Navigate(s.URL)); err != nil {
		t.Fatal(err)
	}
	await(t, ctx, func(got seen) error {
		if got.Verdict != clusterstatus.Healthy || len(got.Chains) != 2 || got.Chains[0] != "Chain 1-2: Unit 1 head open, Unit 2 tail open" {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	if err := c.KillUnit(2); err != nil {
		t.Fatal(err)
	}
	await(t, ctx, func(got seen) error {
		if got.Verdict != clusterstatus.Degraded || got.Chains[0] != "Chain 1: Unit 1 head and tail open, a unit is lacking" ||
			len(got.Spares) != 1 || got.Spares[0] != "Unit 2 unreachable" || got.History[0] != "unit 2 left its chain" {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	picture(t, ctx, "live-dark")
}
