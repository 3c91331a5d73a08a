package skips

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A skip is in the list, in the file beside it, and skips.
func TestSkipsAreListed(t *testing.T) {
	list := filepath.Join(t.TempDir(), "list")
	t.Setenv(ListEnv, list)
	t.Setenv(ForbidEnv, "")
	skips.list = nil
	reached := false
	t.Run("story", func(t *testing.T) {
		Story(t, "no such program")
		reached = true
	})
	if status := All("needs root"); reached || status != 0 {
		t.Errorf("the story went on: %v, exit status %d", reached, status)
	}
	want := "TestSkipsAreListed/story: no such program\nneeds root\n"
	if got, err := os.ReadFile(list); err != nil || string(got) != want {
		t.Errorf("the file has %q, %v, want %q", got, err, want)
	}
	var out strings.Builder
	Print(&out)
	if out.String() != "skipped: 2\n  TestSkipsAreListed/story: no such program\n  needs root\n" {
		t.Errorf("prints %q", out.String())
	}
}

func TestSkipsCanBeForbidden(t *testing.T) {
	t.Setenv(ListEnv, "")
	t.Setenv(ForbidEnv, "1")
	if All("needs root") != 1 {
		t.Error("the whole program was skipped, and its exit status is 0")
	}
}
