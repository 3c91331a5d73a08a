package cmdline

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"callhome/internal/printable"

	"github.com/urfave/cli/v2"
)

// completeCommand is the first argument with which the shells' completions run a
// program; the words of the line follow, the one to complete last. The program
// prints what may stand there, one a line, or filesLine for names of files.
const (
	completeCommand = "__complete"
	filesLine       = ":files"
)

// CompletionTime bounds how long a completion waits for a daemon.
const CompletionTime = time.Second

// Line is an incomplete command line.
type Line struct {
	words []string
}

// Option returns the value of an option on the line, or otherwise.
func (l Line) Option(name, otherwise string) string {
	for i, w := range l.words {
		option, value, ok := strings.Cut(w, "=")
		switch {
		case strings.TrimLeft(option, "-") != name || !isOption(option):
		case ok:
			return value
		case i+1 < len(l.words):
			return l.words[i+1]
		}
	}
	return otherwise
}

// fileNouns are the placeholders of values that are names of files.
var fileNouns = []string{"FILE", "DIR", "PATH", "SOCKET", "PROGRAM", "NAME=FILE"}

// complete prints what may stand in place of the last of words.
func (p Program) complete(w io.Writer, app *cli.App, words []string) error {
	if len(words) == 0 {
		return nil
	}
	for _, candidate := range p.candidates(app, words[:len(words)-1], words[len(words)-1]) {
		if _, err := fmt.Fprintln(w, printable.Quoted(candidate)); err != nil {
			return err
		}
	}
	return nil
}

func (p Program) candidates(app *cli.App, before []string, current string) []string {
	line := Line{slices.Concat(before, []string{current})}
	args := append([]string{app.Name}, before...)
	at, command := lastCommand(app, args)
	if option, _, ok := strings.Cut(current, "="); ok && isOption(option) {
		return prefixed(option+"=", p.values(flagNamed(command.Flags, strings.TrimLeft(option, "-")), line))
	}
	if len(before) > 0 && isOption(before[len(before)-1]) && !slices.Contains(before, "--") {
		f := flagNamed(command.Flags, strings.TrimLeft(before[len(before)-1], "-"))
		// The value of an option that can do without one may be the next option instead.
		if values := p.values(f, line); f != nil && (!isSwitch(f) || len(values) > 0 && !strings.HasPrefix(current, "-")) {
			return values
		}
	}
	if strings.HasPrefix(current, "-") {
		return optionNames(command.Flags)
	}
	if len(command.Subcommands) > 0 {
		return append(names(command.Subcommands), "help")
	}
	return p.noun(argumentNoun(command, args[min(at, len(args)):]), line)
}

// prefixed puts an option before each of its values. Files the shells cannot
// complete there.
func prefixed(prefix string, values []string) []string {
	var out []string
	for _, v := range values {
		if v != filesLine {
			out = append(out, prefix+v)
		}
	}
	return out
}

// values are those of an option.
func (p Program) values(f cli.Flag, line Line) []string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return nil
	}
	var from any = f
	if g, ok := f.(*cli.GenericFlag); ok {
		from = g.Value
	}
	if c, ok := from.(interface{ Choices() []string }); ok && len(c.Choices()) > 0 {
		return c.Choices()
	}
	noun, _ := Placeholder(d.GetUsage())
	return p.noun(noun, line)
}

// noun returns the values that a placeholder stands for.
func (p Program) noun(noun string, line Line) []string {
	noun = inner(noun)
	if slices.Contains(fileNouns, noun) {
		return []string{filesLine}
	}
	if list := p.Nouns[noun]; list != nil {
		return list(line)
	}
	return nil
}

// argumentNoun returns the placeholder of the argument after args, which a command
// has already.
func argumentNoun(command *cli.Command, args []string) string {
	n := 0
	for len(args) > 0 {
		took := 1
		if isOption(args[0]) {
			took = length(command, args)
		} else {
			n++
		}
		args = args[took:]
	}
	if nouns := strings.Fields(command.ArgsUsage); n < len(nouns) {
		return nouns[n]
	}
	return ""
}

// lastCommand returns the innermost command that args name, whose first is the
// program, and the index after its name. Options may stand before each name.
func lastCommand(app *cli.App, args []string) (after int, command *cli.Command) {
	after, command = 1, program(app)
	for at := 1; at < len(args) && args[at] != "--"; {
		if isOption(args[at]) {
			at += length(command, args[at:])
			continue
		}
		next := named(command.Subcommands, args[at])
		if next == nil {
			break
		}
		at++
		command, after = next, at
	}
	return after, command
}

// length returns how many of args, which begin with an option, belong to it: 2 where
// its value is an argument of its own.
func length(command *cli.Command, args []string) int {
	if f := flagNamed(command.Flags, strings.TrimLeft(args[0], "-")); f != nil && !isSwitch(f) {
		return min(2, len(args))
	}
	return 1
}
