package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// No variable, parameter or function has the name of one of Go's builtins: the reader
// would take it for that.
func TestNoBuiltinIsShadowed(t *testing.T) {
	set := token.NewFileSet()
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		for name := range shadowing(file) {
			t.Errorf("%s: %s is a builtin of Go", set.Position(name.Pos()), name.Name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// shadowing returns the names that a file declares and that are builtins.
func shadowing(file *ast.File) map[*ast.Ident]bool {
	found := make(map[*ast.Ident]bool)
	declared := func(e ast.Expr) {
		if name, ok := e.(*ast.Ident); ok && name.Name != "_" && types.Universe.Lookup(name.Name) != nil {
			found[name] = true
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, left := range n.Lhs {
				if n.Tok == token.DEFINE {
					declared(left)
				}
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				declared(n.Key)
				declared(n.Value)
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				declared(name)
			}
		case *ast.FuncType:
			fields := n.Params.List
			if n.Results != nil {
				fields = slices.Concat(fields, n.Results.List)
			}
			for _, field := range fields {
				for _, name := range field.Names {
					declared(name)
				}
			}
		case *ast.FuncDecl:
			if n.Recv == nil {
				declared(n.Name)
			}
		}
		return true
	})
	return found
}

func TestShadowingIsFound(t *testing.T) {
	const source = `package p
func len(max int) (cap int) {
	for min, new := range []int{} {
		copy, ok := min, new
	}
	var close, fine = 1, func(print int) {}
	return
}
func (T) Len(int) { a.max = 1 }`
	file, err := parser.ParseFile(token.NewFileSet(), "", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	if found := shadowing(file); len(found) != 8 {
		t.Errorf("found %d names of 8", len(found))
	}
}
