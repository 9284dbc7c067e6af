package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"testing"
)

// enum is a type whose values are counted by iota in one declaration.
type enum struct {
	values []*ast.Ident
	text   *ast.FuncDecl // its String; nil if it has none
	at     token.Position
}

// Every value of an enumeration with a String method has a name of its own there: an operator who
// reads Status(8) learns nothing.
func TestEveryValueHasAName(t *testing.T) {
	fset := token.NewFileSet()
	byPackage := map[string][]*ast.File{}
	for _, i := range imports(t, "../..") {
		if i.path != "" {
			continue
		}
		f, err := parser.ParseFile(fset, "../../"+i.file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		byPackage[path.Dir(i.file)] = append(byPackage[path.Dir(i.file)], f)
	}
	checked := 0
	for _, files := range byPackage {
		lists := map[string]int{} // variables of the package that list names, and how many
		enums := map[string]*enum{}
		for _, f := range files {
			collect(fset, f, enums, lists)
		}
		for name, e := range enums {
			if e.text == nil || len(e.values) == 0 {
				continue
			}
			checked++
			mentioned, listed := namesIn(e.text, lists)
			for n, v := range e.values {
				if v.Name != "_" && v.Name != "ways" && // a count
					!mentioned[v.Name] && n >= listed {
					t.Errorf("%s: %s.String has no name for %s", e.at, name, v.Name)
				}
			}
		}
	}
	if checked < 8 {
		t.Errorf("only %d enumerations were found", checked)
	}
}

// collect notes the enumerations, String methods and lists of one file.
func collect(fset *token.FileSet, f *ast.File, enums map[string]*enum, lists map[string]int) {
	of := func(name string) *enum {
		if enums[name] == nil {
			enums[name] = &enum{}
		}
		return enums[name]
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.Name == "String" && d.Recv != nil {
				if id, ok := d.Recv.List[0].Type.(*ast.Ident); ok {
					e := of(id.Name)
					e.text, e.at = d, fset.Position(d.Pos())
				}
			}
		case *ast.GenDecl:
			counted := "" // type of the values that iota counts
			for _, s := range d.Specs {
				v, ok := s.(*ast.ValueSpec)
				if !ok {
					continue
				}
				if d.Tok == token.VAR {
					if len(v.Values) == 1 {
						if l, ok := v.Values[0].(*ast.CompositeLit); ok {
							lists[v.Names[0].Name] = len(l.Elts)
						}
					}
					continue
				}
				if len(v.Values) > 0 {
					counted = ""
					id, ok := v.Type.(*ast.Ident)
					if value, plain := v.Values[0].(*ast.Ident); ok && plain && value.Name == "iota" {
						counted = id.Name
					}
				}
				if counted != "" {
					of(counted).values = append(of(counted).values, v.Names...)
				}
			}
		}
	}
}

// namesIn returns the identifiers of a function, and the length of the longest list in it or in a
// variable that it names.
func namesIn(f *ast.FuncDecl, lists map[string]int) (mentioned map[string]bool, longest int) {
	mentioned = map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			mentioned[n.Name] = true
			longest = max(longest, lists[n.Name])
		case *ast.CompositeLit:
			longest = max(longest, len(n.Elts))
		}
		return true
	})
	return mentioned, longest
}
