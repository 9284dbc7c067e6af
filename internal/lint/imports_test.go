package lint

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "corfu"

// mayImport says which packages of the module each package may import. "x/..." is x and all below it; a package may always
// import what lies below itself. A package that no row names fails the test: a new one needs a row, and a reason.
var mayImport = []struct {
	pkg  string
	ours []string
}{
	// The cores decide and do no I/O.
	{"layout", []string{"internal/mutant"}},
	{"seq", []string{"layout", "internal/wire"}},
	{"unit", []string{"layout", "internal/wire", "internal/mutant"}},

	// Formats. The protobuf is apart, so that the cores do not pull in gRPC.
	{"internal/wire", []string{"layout"}},
	{"internal/wire/pb", nil},
	{"internal/wire/pbconv", []string{"layout", "internal/wire", "internal/wire/pb"}},
	{"internal/control", []string{"internal/wire/pb", "internal/certs"}}, // pb: the methods and their rules; who leads the layout servers

	// Who is who on the control plane, and the one-time tokens that it issues for the fabric. Neither knows a server.
	{"internal/certs", nil},
	{"internal/certs/certstest", []string{"internal/certs"}},
	{"internal/tickets", nil},

	// What units and sequencers promise stands in a file that is replaced on a full disk, too.
	{"internal/boltfile", nil},
	{"internal/twinfile", nil},

	// Control messages over the fabric: both ends, which know no member.
	{"internal/messages", []string{"layout", "internal/tickets", "internal/wire", "internal/wire/pb", "internal/certs", "internal/control", "rdma"}}, // certs, control: who got a token may be revoked

	// Switches for broken rules, constants outside of the tests that want them.
	{"internal/mutant", nil},

	// A pause that a context ends.
	{"internal/sleep", nil},

	// What the servers' metrics have in common; it knows none of them.
	{"internal/promset", nil},

	// The judgement of a cluster's state, and its JSON form; the page that shows it asks whoever it is given.
	{"internal/clusterstatus", []string{"internal/wire/pb"}},
	{"internal/clusterstatus/statustest", []string{"internal/wire/pb", "internal/clusterstatus"}},
	{"internal/statusweb", []string{"internal/wire/pb", "internal/clusterstatus"}},

	// How a disk wears, which unit/server shows.
	{"internal/nvme", nil},

	// Checks of tests, which this table does not look at.
	{"internal/leaktest", nil},

	// The golden files of tests, which this table does not look at: code that runs has no use for it.
	{"internal/golden", nil},

	// The fabric: the contract knows no provider, the providers do not know each other.
	{"rdma", nil},
	{"rdma/internal/verbs", nil},
	{"rdma/tcp", []string{"rdma"}},
	{"rdma/verbs", []string{"rdma", "rdma/internal/verbs"}},
	{"rdma/fabric", []string{"rdma", "rdma/tcp", "rdma/verbs", "rdma/internal/verbs"}},
	{"rdma/selftest", []string{"rdma"}}, // what rdmatest and the doctor both try
	{"rdma/rdmatest", []string{"rdma", "rdma/selftest"}},

	// The servers put a core to work.
	{"layout/server", []string{"layout", "internal/wire/...", "internal/boltfile", "internal/certs", "internal/clusterstatus", "internal/control", "internal/messages", "internal/mutant", "internal/promset", "internal/sleep", "rdma"}},
	{"seq/server", []string{"seq", "layout", "internal/wire/...", "internal/certs", "internal/control", "internal/messages", "internal/promset", "internal/tickets", "internal/twinfile", "rdma"}},
	{"unit/flash", []string{"unit", "layout", "internal/twinfile", "internal/mutant", "internal/wire"}},
	{"unit/server", []string{"unit", "unit/flash", "layout", "internal/wire/...", "internal/certs", "internal/control", "internal/messages", "internal/mutant", "internal/nvme", "internal/promset", "internal/sleep", "internal/tickets", "rdma"}},

	// Clients reach units and sequencers by the fabric and the control plane alone.
	{"client", []string{"layout", "internal/wire/...", "internal/certs", "internal/control", "internal/messages", "internal/mutant", "internal/sleep", "rdma", "rdma/fabric"}},

	// The judge of what clients were told knows positions, and no cluster.
	{"internal/history", []string{"layout"}},

	{"internal/lint", nil},
	{"internal/sim", []string{"layout/...", "seq/...", "unit/...", "client/...", "rdma/...", "internal/..."}},
	{"internal/devcluster", []string{"layout/...", "seq/...", "unit/...", "client/...", "rdma/...", "internal/..."}},
	{"tools/...", []string{"..."}},

	// The lab serves every package's tests and knows none.
	{"deploy/lab/nbd", nil},

	// Dashboards know metrics by their names alone.
	{"deploy/watch", nil},
}

// pure packages hold no clock, goroutine's lock, file, network or C. Their owner brings those.
var pure = []string{"layout", "seq", "unit"}

var impure = []string{"C", "net", "os", "time", "sync", "unsafe", "runtime", "syscall", "context", "math/rand", "crypto/rand", "log"}

// cgo is the only package with C in it.
const cgo = "rdma/internal/verbs"

func matches(pattern, pkg string) bool {
	base, below := strings.CutSuffix(pattern, "...")
	if !below {
		return pkg == pattern
	}
	return base == "" || pkg == strings.TrimSuffix(base, "/") || strings.HasPrefix(pkg, base)
}

// imported is one import of a file that is not a test.
type imported struct{ file, pkg, path string }

func imports(t *testing.T, root string) []imported {
	var list []imported
	eachFile(t, root, func(rel, name string) error {
		if strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		list = append(list, imported{rel, path.Dir(rel), ""})
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			list = append(list, imported{rel, path.Dir(rel), p})
		}
		return nil
	})
	return list
}

// eachFile calls visit for each Go file of the module, with its path from root and its name.
func eachFile(t *testing.T, root string, visit func(rel, name string) error) {
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, name)
		rel = filepath.ToSlash(rel)
		if e.IsDir() {
			if base := e.Name(); name != root && (base[0] == '.' || base == "testdata" || rel == "bin" || rel == "build") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); name != root && err == nil {
				return filepath.SkipDir // another module
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		return visit(rel, name)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPackagesImportWhatTheTableAllows(t *testing.T) {
	list := imports(t, "../..")
	if len(list) < 20 {
		t.Fatalf("only %d imports found", len(list))
	}
	unknown := map[string]bool{}
	for _, i := range list {
		row := slices.IndexFunc(mayImport, func(r struct {
			pkg  string
			ours []string
		}) bool {
			return matches(r.pkg, i.pkg)
		})
		if row < 0 {
			if !unknown[i.pkg] {
				t.Errorf("%s: package %s is not in the table", i.file, i.pkg)
			}
			unknown[i.pkg] = true
			continue
		}
		ours, ok := strings.CutPrefix(i.path, module+"/")
		if !ok || strings.HasPrefix(ours, i.pkg+"/") {
			continue
		}
		if !slices.ContainsFunc(mayImport[row].ours, func(p string) bool { return matches(p, ours) }) {
			t.Errorf("%s imports %s: %s may import %v", i.file, i.path, i.pkg, mayImport[row].ours)
		}
	}
}

func TestPureCoresStayPure(t *testing.T) {
	for _, i := range imports(t, "../..") {
		if !slices.Contains(pure, i.pkg) {
			continue
		}
		for _, p := range impure {
			if i.path == p || strings.HasPrefix(i.path, p+"/") {
				t.Errorf("%s imports %s: a pure core does no I/O, and has no clock or lock of its own", i.file, i.path)
			}
		}
	}
}

func TestCIsInOnePlace(t *testing.T) {
	for _, i := range imports(t, "../..") {
		if i.path == "C" && i.pkg != cgo {
			t.Errorf("%s imports C: only %s may", i.file, cgo)
		}
	}
}

func TestTableMatching(t *testing.T) {
	for _, c := range []struct {
		pattern, pkg string
		want         bool
	}{
		{"layout", "layout", true}, {"layout", "layout/server", false}, {"layout/...", "layout/server", true},
		{"layout/...", "layout", true}, {"layout/...", "layouts", false}, {"...", "anything", true},
	} {
		if got := matches(c.pattern, c.pkg); got != c.want {
			t.Errorf("matches(%q, %q) = %v", c.pattern, c.pkg, got)
		}
	}
}
