package metrics

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"callhome/internal/proto"
)

// protoWords returns the string constants of package proto whose names begin
// with prefix.
func protoWords(t *testing.T, prefix string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../proto/proto.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(s.Names[0].Name, prefix) && len(s.Values) == 1 {
			word, err := strconv.Unquote(s.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			words = append(words, word)
		}
		return true
	})
	slices.Sort(words)
	return words
}

func sorted[W ~string](words []W) []string {
	var out []string
	for _, w := range words {
		out = append(out, string(w))
	}
	slices.Sort(out)
	return out
}

// A word that is new in package proto would else be counted as "other".
func TestEveryWordIsKnown(t *testing.T) {
	for _, tt := range []struct {
		prefix string
		known  []string
	}{
		{"Event", sorted(events)},
		{"Stage", sorted(stages)},
		{"State", sorted(append(slices.Clone(states), proto.StateClosed))},
	} {
		if want := protoWords(t, tt.prefix); !slices.Equal(tt.known, want) {
			t.Errorf("%s: got %v, package proto has %v", tt.prefix, tt.known, want)
		}
	}
}
