// Package docs_test keeps the documents true: README and docs/*.md. Each block
// of code in them says by a comment in front of it how it is held to the
// programs:
//
//	<!-- run: NAME -->              TestDocuments runs it, in the scene NAME
//	<!-- run: NAME; not WORDS: WHY -->  the same, without lines that begin so
//	<!-- tested by: TestNAME -->    that test has the block's content
//	<!-- not run: WHY -->           it cannot be run here
//
// Blocks of ```text and ```json are none of commands. Quoted messages are to be
// found in the sources, tests that are named exist, links lead somewhere.
package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// block is a block of code: where it stands, what kind of, its text without the
// indent, and the marker in front of it.
type block struct {
	file   string // from the root
	line   int
	info   string // of the fence, "" without one
	text   string
	marker string
}

// marker is a comment that says how the next block is held to the programs.
var marker = regexp.MustCompile(`^<!-- ((?:run|tested by|not run): .*) -->$`)

// blocks finds the blocks of code in a document as far as ours go: fences at
// the line's beginning, and lines indented by four that follow an empty one.
func blocks(file, text string) (out []block) {
	var b *block
	fence, pending, after := "", "", ""
	end := func() {
		if b != nil {
			b.text = strings.TrimRight(b.text, "\n") + "\n"
			out = append(out, *b)
		}
		b = nil
	}
	for i, line := range strings.Split(text, "\n") {
		switch {
		case fence != "" && line == fence:
			fence = ""
			end()
		case fence != "":
			b.text += line + "\n"
		case strings.HasPrefix(line, "```"):
			end()
			fence = "```"
			b = &block{file, i + 1, strings.TrimPrefix(line, "```"), "", pending}
			pending = ""
		case strings.HasPrefix(line, "    ") && b != nil:
			b.text += line[4:] + "\n"
		case strings.HasPrefix(line, "    ") && after == "":
			b = &block{file, i + 1, "", line[4:] + "\n", pending}
			pending = ""
		case line == "" && b != nil:
			b.text += "\n"
		default:
			end()
			if m := marker.FindStringSubmatch(line); m != nil {
				pending = m[1]
			} else if line != "" {
				pending = "" // it was not in front of a block
			}
		}
		after = line
	}
	end()
	return out
}

// documents are README and docs/*.md, with their text.
func documents(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(root + "/docs/*.md")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	out := make(map[string]string)
	for _, f := range append(files, root+"/README.md") {
		name, err := filepath.Rel(root, f)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = read(t, f)
	}
	return out
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestBlocks(t *testing.T) {
	text := "intro\n\n<!-- run: a -->\n\n    one\n\n      two\n\ntext\n    no block\n\n<!-- not run: b -->\n```sh\n    three\n```\n<!-- run: c -->\ntext\n\n    four\n"
	want := []block{{"f", 5, "", "one\n\n  two\n", "run: a"}, {"f", 13, "sh", "    three\n", "not run: b"}, {"f", 19, "", "four\n", ""}}
	got := blocks("f", text)
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}
