package proto

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// constants returns the string constants whose names begin with prefix.
func constants(t *testing.T, prefix string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "proto.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(s.Names[0].Name, prefix) && len(s.Values) == 1 {
			if lit, ok := s.Values[0].(*ast.BasicLit); ok {
				value, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, value)
			}
		}
		return true
	})
	slices.Sort(values)
	return values
}

func sorted[V ~string](values []V) []string {
	var out []string
	for _, v := range values {
		out = append(out, string(v))
	}
	slices.Sort(out)
	return out
}

// The hook refuses an event that is not listed, and the metrics count a value that
// is not listed as "other".
func TestListsHaveEveryConstant(t *testing.T) {
	for _, tt := range []struct {
		prefix string
		known  []string
	}{
		{"Event", sorted(Events)},
		{"Stage", sorted(Stages)},
		{"Client", sorted(ClientStates)},
		{"End", sorted(Ends)},
		{"Via", sorted(Vias)},
		{"State", sorted(append(slices.Clone(States), StateClosed))},
	} {
		if want := constants(t, tt.prefix); !slices.Equal(tt.known, want) {
			t.Errorf("%s: the list has %v, the constants are %v", tt.prefix, tt.known, want)
		}
	}
}
