package lazyregexp

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNewCompilesOnce(t *testing.T) {
	re := New(`^a+$`)
	if !re().MatchString("aa") || re().MatchString("b") {
		t.Error("it does not match as its expression says")
	}
	if first, second := re(), re(); first != second {
		t.Error("it is compiled for each use")
	}
}

// Nothing is compiled when a program starts.
func TestNoPackageVariableIsARegexp(t *testing.T) {
	for _, root := range []string{"../../internal", "../../cmd"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "lazyregexp.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if strings.Contains(string(text), "regexp.MustCompile(") {
				t.Errorf("%s compiles a regular expression; use lazyregexp.New", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
