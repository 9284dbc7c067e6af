package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

// sleepsAllowed says which tests let time pass, as file and function, and why they cannot wait for
// an event.
var sleepsAllowed = map[string]string{
	// Load that leaves the processor to what is tested. How much of it there is decides nothing.
	"client/linear_test.go TestLinearizable":        "pace of one client",
	"tools/corfu/kill_test.go append":               "pace of a client whose appends fail",
	"tools/corfu/upgrade_test.go startAppenders":    "pace of the clients",
	"tools/corfu/internal/doctor/live_test.go Post": "how long the faulty device is wrong",

	"client/patience_test.go TestFarWriterIsNotStarvedByCloseReaders": "the round trip of a far writer",

	// Something late. That it is later still, on a busy machine, changes nothing.
	"client/flash_test.go Write":                                "a slow disk",
	"client/torn_test.go TestReadersWaitForASlowLargeAppend":    "a slow writer, who has 5.8 s left each time",
	"rdma/tcp/conn_test.go TestRefusalBehindAnswers":            "lets sockets fill up; fuller or emptier ones are as good",
	"internal/certs/revoked_test.go TestStaleListsStayInForce":  "a list is valid for whole seconds of the day",
	"internal/sim/promise_test.go leads":                        "called in synctest bubbles",
	"internal/sim/follow_test.go idleFollower":                  "called in synctest bubbles",
	"deploy/watch/live_test.go TestEveryPanelShowsALiveCluster": "what rates look over, in a real Prometheus",
	"internal/sim/past_test.go tailGoesBack":                    "called in synctest bubbles",
	"internal/sim/past_test.go layoutForgets":                   "called in synctest bubbles",

	// Nothing happens. The test passes on any machine; how long it looks decides what it would
	// find.
	"unit/server/fault_test.go TestStateTellsThatFlashIsStuck": "a hole is not called stuck",
}

// TestTestsDoNotSleep: a test that sleeps in order that something has happened by then fails on a
// machine that is busier than its author's, and one that sleeps to see that nothing happens is slow
// everywhere. So tests wait for an event, poll for a condition, or let time pass in a synctest
// bubble, where it costs nothing.
//
//	for !done() && time.Now().Before(end) { … time.Sleep(d) }    polls: any Sleep whose loop ends by itself
//	for end := …; !done(); time.Sleep(d) {}                      polls
//	synctest.Test(t, func(t *testing.T) { … time.Sleep(d) })     costs nothing
func TestTestsDoNotSleep(t *testing.T) {
	used := map[string]bool{}
	for file, f := range parsed(t) {
		if !strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, at := range sleeps(f.syntax) {
			key := file + " " + at.function
			if used[key] = true; sleepsAllowed[key] == "" {
				t.Errorf("%s: %s sleeps: wait for an event or poll for a condition, or say in sleepsAllowed why it cannot", f.set.Position(at.pos), at.function)
			}
		}
	}
	for key := range sleepsAllowed {
		if !used[key] {
			t.Errorf("%s is allowed to sleep, and does not", key)
		}
	}
}

func TestSleepsAreFound(t *testing.T) {
	for _, c := range []struct {
		body string
		want int
	}{
		{"time.Sleep(d)", 1},
		{"go func() { time.Sleep(d) }()", 1},
		{"for range 3 { time.Sleep(d) }", 1},
		{"for i := 0; i < 3; i++ { time.Sleep(d) }", 1},
		{"for { time.Sleep(d) }", 1},
		{"<-time.After(d)", 1},
		{"select { case <-done: case <-time.After(d): t.Fatal() }", 0},
		{"for !ok() { time.Sleep(d) }", 0},
		{"for !ok() { go func() { time.Sleep(d) }() }", 1},
		{"for ; !ok(); time.Sleep(d) {}", 0},
		{"for end := now(); ; time.Sleep(d) { if ok() { break } }", 0},
		{"for { if ok() { return }; time.Sleep(d) }", 1},
		{"synctest.Test(t, func(t *testing.T) { time.Sleep(d) })", 0},
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "a_test.go", "package a\nfunc TestA(t *testing.T) {\n"+c.body+"\n}\n", 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := sleeps(f); len(got) != c.want {
			t.Errorf("%s: found %d, want %d", c.body, len(got), c.want)
		}
	}
}

type sleeping struct {
	function string
	pos      token.Pos
}

// sleeps returns where a file lets a fixed time pass.
func sleeps(f *ast.File) []sleeping {
	var found []sleeping
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		var look func(n ast.Node, polls bool)
		look = func(n ast.Node, polls bool) {
			ast.Inspect(n, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncLit:
					look(n.Body, false)
					return false
				case *ast.ForStmt:
					// A loop polls if it waits between looks, or ends by something else than a
					// count.
					look(n.Body, n.Cond != nil && !counts(n))
					if n.Init != nil {
						look(n.Init, false)
					}
					return false
				case *ast.BlockStmt: // not the case of a select, which waits for something else, too
					for _, s := range n.List {
						if x, ok := s.(*ast.ExprStmt); ok && receives(x.X, "time.After") {
							found = append(found, sleeping{fn.Name.Name, s.Pos()})
						}
					}
				case *ast.CallExpr:
					switch callee(n) {
					case "synctest.Test":
						return false
					case "time.Sleep":
						if !polls {
							found = append(found, sleeping{fn.Name.Name, n.Pos()})
						}
					}
				}
				return true
			})
		}
		look(fn.Body, false)
	}
	return found
}

// counts reports whether a loop ends after a number of turns.
func counts(n *ast.ForStmt) bool {
	_, ok := n.Post.(*ast.IncDecStmt)
	return ok
}

// receives reports whether x receives from what a call of the function returns.
func receives(x ast.Expr, function string) bool {
	u, ok := x.(*ast.UnaryExpr)
	if !ok || u.Op != token.ARROW {
		return false
	}
	c, ok := u.X.(*ast.CallExpr)
	return ok && callee(c) == function
}
