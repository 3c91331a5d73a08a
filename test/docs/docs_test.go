package docs_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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
	pages := documents(t)
	for _, name := range []string{"CHANGELOG.md", "packaging/README.md", "packaging/yang/README.md"} {
		pages[name] = read(t, filepath.Join(root, name))
	}
	for name, text := range pages {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to, anchor, anchored := strings.Cut(m[1], "#")
			if strings.Contains(to, "://") {
				continue
			}
			file := filepath.Join(filepath.Dir(name), to)
			if to == "" {
				file = name
			}
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s links to %s: %v", name, to, err)
				continue
			}
			if anchored && !slices.Contains(anchors(read(t, filepath.Join(root, file))), anchor) {
				t.Errorf("%s links to %s: there is no such heading", name, m[1])
			}
		}
	}
}

var (
	heading    = regexp.MustCompile("(?m)^#+ +(.+)$")
	notInSlugs = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are those that GitHub and GitLab give a document's headings.
func anchors(text string) (all []string) {
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		all = append(all, strings.ReplaceAll(strings.ToLower(notInSlugs.ReplaceAllString(m[1], "")), " ", "-"))
	}
	return all
}

func TestIndexIsWhole(t *testing.T) {
	index := read(t, root+"/docs/README.md")
	for name := range documents(t) {
		if base := filepath.Base(name); strings.HasPrefix(name, "docs/") && base != "README.md" && !strings.Contains(index, "("+base+")") {
			t.Errorf("docs/README.md lacks %s", base)
		}
	}
}

// said is a message that troubleshooting.md quotes: in a heading's row of its
// tables, between backquotes in the first column. … stands for what differs.
var said = regexp.MustCompile("(?m)^\\| `([^`]+)`(?:, `([^`]+)`)?(?:, `([^`]+)`)? \\|")

// verbs of a format string: what differs from one message to the next.
var verbs = regexp.MustCompile(`%[-+#0-9.]*[a-z]|\n`)

// message is the text of a string expression: literals joined, and … in place
// of every operand that is not one. It is "" where there is no literal.
func message(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); e.Kind == token.STRING && err == nil {
			return text
		}
	case *ast.ParenExpr:
		return message(e.X)
	case *ast.BinaryExpr:
		x, y := message(e.X), message(e.Y)
		switch {
		case e.Op != token.ADD || x+y == "":
		case x == "":
			return "…" + y
		case y == "":
			return x + "…"
		default:
			return x + y
		}
	}
	return ""
}

// messages are the string literals of a Go file, concatenations joined and
// verbs replaced by …, one a line. Comments, imports and tags are not among
// them, as no program prints those.
func messages(t *testing.T, name string, source any) string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.Field:
			n.Tag = nil
		case ast.Expr:
			if text := message(n); text != "" {
				out.WriteString(verbs.ReplaceAllString(text, "…") + "\n")
			}
		}
		return true
	})
	return out.String()
}

func TestOnlyStringLiteralsAreMessages(t *testing.T) {
	const source = `package p // a package comment
import "an/import"
type s struct { f int ` + "`tag:\"x\"`" + ` }
// a comment
func f(name string, n int) { g("opening %q"+": "+"not a "+"file\n", "at " + name + ": gone") }
`
	got := messages(t, "p.go", source)
	for _, want := range []string{"opening …: not a file", "at …: gone"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not among the messages:\n%s", want, got)
		}
	}
	for _, not := range []string{"comment", "an/import", "tag"} {
		if strings.Contains(got, not) {
			t.Errorf("%q is among the messages:\n%s", not, got)
		}
	}
}

// Each message that troubleshooting.md explains is one that is printed: each
// piece of it between two … stands in a string literal of ours, or is sshd's own
// and stands in a literal of internal/device/sshdlog or its tests.
func TestQuotedMessagesAreTheSources(t *testing.T) {
	var text strings.Builder
	for name := range sources(t, ".go", "callhome-dhcp") {
		if strings.HasSuffix(name, "_test.go") && !strings.Contains(name, "sshdlog") || strings.Contains(name, "/test/") {
			continue
		}
		if strings.HasSuffix(name, ".go") {
			text.WriteString(messages(t, name, nil))
			continue
		}
		for line := range strings.Lines(read(t, name)) { // shell: comments have a line of their own
			if !strings.HasPrefix(strings.TrimSpace(line), "#") {
				text.WriteString(verbs.ReplaceAllString(line, "…") + "\n")
			}
		}
	}
	all := text.String()
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
