package docs_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"callhome/test/docs/markdown"
)

// tests are all tests of the repository, by name.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	out := make(map[string]bool)
	for name := range sources(t, "_test.go") {
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(read(t, name), -1) {
			out[m[1]] = true
		}
	}
	return out
}

// sources are the files of the repository whose names end so.
func sources(t *testing.T, ends ...string) map[string]bool {
	t.Helper()
	out := make(map[string]bool)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin") {
			return filepath.SkipDir
		}
		for _, end := range ends {
			if d.Type().IsRegular() && strings.HasSuffix(name, end) {
				out[name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEveryBlockSaysHowItIsHeld(t *testing.T) {
	known := tests(t)
	for name, text := range documents(t) {
		for _, b := range markdown.Blocks(name, text) {
			at := fmt.Sprintf("%s:%d", b.File, b.Line)
			kind, rest, _ := strings.Cut(b.Marker, ": ")
			switch {
			case kind == "tested by":
				if !known[rest] {
					t.Errorf("%s: there is no %s", at, rest)
				}
			case b.Marker != "":
			case strings.HasPrefix(b.Info, "json"):
				if !json.Valid([]byte(b.Text)) {
					t.Errorf("%s: not JSON", at)
				}
			case b.Info != "text":
				t.Errorf("%s: nothing says how it is held to the programs: run, tested by, or not run", at)
			}
		}
	}
}

// What git writes where it could not merge is in no document.
func TestNoConflictIsLeft(t *testing.T) {
	for name, text := range documents(t) {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "<<<<<<< ") || strings.HasPrefix(line, ">>>>>>> ") {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}

// testName is a test that prose names.
var testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`")

func TestNamedTestsExist(t *testing.T) {
	known := tests(t)
	for name, text := range documents(t) {
		for _, m := range testName.FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s names %s, which there is not", name, m[1])
			}
		}
	}
}

// link is a link of Markdown.
var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	for name, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to, _, _ := strings.Cut(m[1], "#")
			if to == "" || strings.Contains(to, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(name), to)); err != nil {
				t.Errorf("%s links to %s: %v", name, to, err)
			}
		}
	}
}

func TestIndexIsWhole(t *testing.T) {
	index := read(t, root+"/docs/README.md")
	for name := range documents(t) {
		if base := filepath.Base(name); base != "README.md" && !strings.Contains(index, "("+base+")") {
			t.Errorf("docs/README.md lacks %s", base)
		}
	}
}

// said is a message that troubleshooting.md quotes: in a heading's row of its
// tables, between backquotes in the first column. … stands for what differs.
var said = regexp.MustCompile("(?m)^\\| `([^`]+)`(?:, `([^`]+)`)?(?:, `([^`]+)`)? \\|")

// verbs of a format string: what differs from one message to the next.
var verbs = regexp.MustCompile(`%[-+#0-9.]*[a-z]|\\n`)

// Each message that troubleshooting.md explains is one that is printed: each
// piece of it between two … stands in a source file of ours, or is sshd's own
// and stands in internal/device/sshdlog, which knows sshd's lines.
func TestQuotedMessagesAreTheSources(t *testing.T) {
	var text strings.Builder
	for name := range sources(t, ".go", "callhome-dhcp") {
		if strings.HasSuffix(name, "_test.go") && !strings.Contains(name, "sshdlog") || strings.Contains(name, "/test/") {
			continue
		}
		text.WriteString(read(t, name))
	}
	// A string that goes on in the next line of Go is one.
	all := regexp.MustCompile("\"\\s*\\+\\s*\"").ReplaceAllString(text.String(), "")
	all = verbs.ReplaceAllString(all, "…")
	for e := syscall.Errno(1); e < 134; e++ {
		all += "\n" + e.Error() // what the operating system says, behind a colon
	}
	n := 0
	for _, m := range said.FindAllStringSubmatch(documents(t)["docs/troubleshooting.md"], -1) {
		for _, quote := range m[1:] {
			for piece := range strings.SplitSeq(quote, "…") {
				piece = strings.Trim(piece, ": ")
				if piece == "" {
					continue
				}
				n++
				if !strings.Contains(all, piece) {
					t.Errorf("troubleshooting.md quotes %q; nothing prints %q", quote, piece)
				}
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d quotes found", n)
	}
}
