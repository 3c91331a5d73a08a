// Package markdown finds the blocks of code in our documents, each with the
// comment in front of it that says how it is held to the programs. The tests of
// the documents and those of the packages run what it finds. It runs nothing.
package markdown

import (
	"regexp"
	"strings"
)

// Block is a block of code: where it stands, what kind of, its text without the
// indent, and the marker in front of it.
type Block struct {
	File   string // from the root
	Line   int
	Info   string // of the fence, "" without one
	Text   string
	Marker string
}

// marker is a comment that says how the next block is held to the programs.
var marker = regexp.MustCompile(`^<!-- ((?:run|tested by|not run): .*) -->$`)

// Blocks finds the blocks of code in a document as far as ours go: fences at
// the line's beginning, and lines indented by four that follow an empty one.
func Blocks(file, text string) (out []Block) {
	var b *Block
	fence, pending, after := "", "", ""
	end := func() {
		if b != nil {
			b.Text = strings.TrimRight(b.Text, "\n") + "\n"
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
			b.Text += line + "\n"
		case strings.HasPrefix(line, "```"):
			end()
			fence = "```"
			b = &Block{file, i + 1, strings.TrimPrefix(line, "```"), "", pending}
			pending = ""
		case strings.HasPrefix(line, "    ") && b != nil:
			b.Text += line[4:] + "\n"
		case strings.HasPrefix(line, "    ") && after == "":
			b = &Block{file, i + 1, "", line[4:] + "\n", pending}
			pending = ""
		case line == "" && b != nil:
			b.Text += "\n"
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
