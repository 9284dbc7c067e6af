package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

type source struct {
	set    *token.FileSet
	syntax *ast.File
}

// parsed returns all Go files of the module.
func parsed(t *testing.T) map[string]source {
	files := map[string]source{}
	eachFile(t, "../..", func(rel, name string) error {
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, nil, 0)
		files[rel] = source{set, f}
		return err
	})
	return files
}

// startsGoroutines are packages that start goroutines on behalf of those that import them.
var startsGoroutines = []string{"google.golang.org/grpc", "net/http", "net/http/httptest", "golang.org/x/sync/errgroup", "testing/synctest"}

// TestGoroutinesAreLookedFor: where goroutines are started, each test is checked for those that it
// leaves behind.
func TestGoroutinesAreLookedFor(t *testing.T) {
	starts, looks, tested := map[string]string{}, map[string]bool{}, map[string]bool{}
	for name, f := range parsed(t) {
		pkg := path.Dir(name)
		if strings.HasSuffix(name, "_test.go") {
			tested[pkg] = true
		}
		for _, i := range f.syntax.Imports {
			if p, err := strconv.Unquote(i.Path.Value); err == nil && slices.Contains(startsGoroutines, p) {
				starts[pkg] = name
			}
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				starts[pkg] = name
			case *ast.CallExpr:
				looks[pkg] = looks[pkg] || callee(n) == "leaktest.Run"
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && (s.Sel.Name == "Go" || s.Sel.Name == "AfterFunc") {
					starts[pkg] = name
				}
			}
			return true
		})
	}
	for pkg, file := range starts {
		if tested[pkg] && !looks[pkg] && pkg != "internal/leaktest" {
			t.Errorf("%s starts goroutines (%s): its tests want func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }", pkg, file)
		}
	}
}

// callee returns the name of the function that is called, with its package or receiver if that is a
// plain name.
func callee(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return x.Name + "." + f.Sel.Name
		}
		return f.Sel.Name
	}
	return ""
}
