package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// dayless packages decide by intervals alone, which Go measures by the monotonic clock: it does not jump. What turns a time
// into a number, or a number into a time, loses that reading, and goes by the time of day, which may jump and differs among machines.
var dayless = []string{"layout/...", "seq/...", "unit/...", "client", "rdma/...", "internal/messages", "internal/control", "internal/tickets", "internal/wire/..."}

// ofTheDay are the selectors that do that. Times in protobuf, too.
var ofTheDay = []string{"Unix", "UnixNano", "UnixMilli", "UnixMicro", "AsTime", "UTC"}

// daysAllowed says which files use them all the same, and why that decides nothing of the protocol.
var daysAllowed = map[string]string{
	"unit/server/scrub.go":        "when the last scrub ended, on disk: a scrub that comes early or late harms nobody, and one that ended in the future does not put the next one off",
	"layout/server/cluster.go":    "shown to people",
	"layout/server/history.go":    "shown to people",
	"rdma/internal/verbs/poll.go": "a deadline in the past, to wake a reader",
}

func TestNothingGoesByTheTimeOfDay(t *testing.T) {
	used := map[string]bool{}
	for _, i := range imports(t, "../..") {
		if i.path == "" && slices.ContainsFunc(dayless, func(p string) bool { return matches(p, i.pkg) }) {
			checkDays(t, i.file, used)
		}
		if strings.HasSuffix(i.path, "timestamppb") {
			t.Errorf("%s sends times of day: %s", i.file, i.path)
		}
	}
	for f := range daysAllowed {
		if !used[f] {
			t.Errorf("%s is allowed to use the time of day, and does not", f)
		}
	}
}

func checkDays(t *testing.T, file string, used map[string]bool) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "../../"+file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok || !slices.Contains(ofTheDay, s.Sel.Name) {
			return true
		}
		if used[file] = true; daysAllowed[file] == "" {
			t.Errorf("%s: .%s: by the time of day? Keep the time.Time, or say in daysAllowed why it does no harm", fset.Position(s.Pos()), s.Sel.Name)
		}
		return true
	})
}
