package cmdline

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"callhome/internal/lazyregexp"

	"github.com/urfave/cli/v2"
)

// The widths of help: what it has where it is no terminal, and the bounds where it
// is. Lines above 100 columns are hard to read.
const (
	helpWidth = 80
	mostWidth = 100
	leftWidth = 26 // of the column of options
)

// printHelp prints the help of a program or command.
func printHelp(w io.Writer, line *parsed) {
	h := helper{w: w, width: widthOf(w)}
	x, name := line.command(), line.name()
	h.section("NAME", name+" - "+x.Usage)
	title, usage := "OPTIONS", name+" [options] "+x.ArgsUsage
	flags := append(slices.Clone(x.Flags), &cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "show help"})
	isProgram := len(line.path) == 1
	switch {
	case isProgram && len(x.Subcommands) > 0:
		title, usage = "GLOBAL OPTIONS", name+" [global options] COMMAND [options]"
	case len(x.Subcommands) > 0:
		usage = name + " [options] [COMMAND]"
	}
	if isProgram {
		flags = append(flags, &cli.BoolFlag{Name: "version", Aliases: []string{"v"}, Usage: "print the version"})
	}
	h.section("USAGE", cmp.Or(x.UsageText, strings.TrimSpace(usage)))
	if isProgram {
		h.section("VERSION", line.app.Version)
	}
	h.section("DESCRIPTION", x.Description)
	h.commands(x.Subcommands)
	h.options(title, flags)
}

// widthOf returns the width of help on w.
func widthOf(w io.Writer) int {
	if n := Width(w); n > 0 {
		return min(max(n, 40), mostWidth)
	}
	return helpWidth
}

type helper struct {
	w     io.Writer
	width int
	begun bool
}

func (h *helper) title(title string) {
	if h.begun {
		fmt.Fprintln(h.w)
	}
	h.begun = true
	fmt.Fprintln(h.w, title+":")
}

func (h *helper) section(title, text string) {
	if text == "" {
		return
	}
	h.title(title)
	for _, line := range wrap(text, h.width-3) {
		fmt.Fprintln(h.w, "   "+line)
	}
}

func (h *helper) commands(list []*cli.Command) {
	var rows [][2]string
	for _, c := range list {
		if !c.Hidden {
			rows = append(rows, [2]string{c.Name, c.Usage})
		}
	}
	if rows != nil {
		h.title("COMMANDS")
		h.rows(rows)
	}
}

// options prints the options by category, those without one first.
func (h *helper) options(title string, flags []cli.Flag) {
	h.title(title)
	var categories []string
	of := make(map[string][][2]string)
	for _, f := range flags {
		if isHidden(f) {
			continue
		}
		c := ""
		if f, ok := f.(cli.CategorizableFlag); ok {
			c = f.GetCategory()
		}
		if !slices.Contains(categories, c) {
			categories = append(categories, c)
		}
		of[c] = append(of[c], optionRow(f))
	}
	slices.SortStableFunc(categories, func(a, b string) int { return min(len(a), 1) - min(len(b), 1) })
	for i, c := range categories {
		if i > 0 {
			fmt.Fprintln(h.w)
		}
		if c != "" {
			fmt.Fprintf(h.w, "   %s\n\n", c)
		}
		h.rows(of[c])
	}
}

// rows prints a list of names with their texts.
func (h *helper) rows(list [][2]string) { printList(h.w, 3, h.width, list) }

// PrintList prints names with their texts in two columns that fit the terminal of
// standard output. A name that is too long for its column has a line of its own.
func PrintList(w io.Writer, list [][2]string) { printList(w, 0, widthOf(os.Stdout), list) }

func printList(w io.Writer, indent, width int, list [][2]string) {
	left := 0
	for _, r := range list {
		if len(r[0]) <= leftWidth {
			left = max(left, len(r[0]))
		}
	}
	for _, r := range list {
		name := r[0]
		if len(name) > left {
			fmt.Fprintf(w, "%*s%s\n", indent, "", name)
			name = ""
		}
		for _, line := range wrap(r[1], width-indent-left-gap) {
			fmt.Fprintf(w, "%*s%-*s%*s%s\n", indent, "", left, name, gap, "", line)
			name = ""
		}
	}
}

// placeholder is how a usage names the value: in backquotes, as the library has it.
// One before a colon stands for the value only, and is not printed.
var placeholder = lazyregexp.New("`([^`]*)`(: )?")

// Placeholder returns the noun that stands for an option's value, and the usage as it
// is printed.
func Placeholder(usage string) (noun, text string) {
	m := placeholder().FindStringSubmatch(usage)
	switch {
	case m == nil:
		return "", usage
	case m[2] != "":
		return m[1], strings.Replace(usage, m[0], "", 1)
	}
	return m[1], strings.Replace(usage, m[0], inner(m[1]), 1)
}

// inner removes the brackets of a placeholder that may be left out.
func inner(noun string) string {
	if strings.HasPrefix(noun, "[") {
		return strings.TrimSuffix(noun[1:], "]")
	}
	return noun
}

func optionRow(f cli.Flag) [2]string {
	var all []string
	for _, name := range f.Names() {
		all = append(all, withDashes(name))
	}
	name := strings.Join(all, ", ")
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return [2]string{name, ""}
	}
	noun, text := Placeholder(d.GetUsage())
	if noun != "" {
		name += " " + noun
	}
	if s, ok := f.(cli.DocGenerationSliceFlag); ok && s.IsSliceFlag() && !strings.Contains(text, "repeatable") {
		text += "; repeatable"
	}
	if value := d.GetDefaultText(); value != "" && value != "0s" && !isSwitch(f) && d.TakesValue() {
		text += " (default: " + strings.ReplaceAll(value, `"`, "") + ")"
	}
	for _, env := range d.GetEnvVars() {
		text += " [$" + env + "]"
	}
	return [2]string{name, text}
}

// wrap breaks text at white space, and where it has line ends. A word that is longer
// than a line has its own.
func wrap(text string, width int) []string {
	var out []string
	for paragraph := range strings.SplitSeq(text, "\n") {
		line := ""
		for _, word := range strings.Fields(paragraph) {
			if line != "" && len(line)+1+len(word) > width {
				out = append(out, line)
				line = ""
			}
			line = strings.TrimPrefix(line+" "+word, " ")
		}
		out = append(out, line)
	}
	return out
}
