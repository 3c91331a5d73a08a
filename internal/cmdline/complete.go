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
		case strings.TrimLeft(option, "-") != name || !isFlag(option):
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
	commands, flags, arguments := app.Commands, app.Flags, app.ArgsUsage
	if command != nil {
		commands, flags, arguments = command.Subcommands, command.Flags, command.ArgsUsage
	}
	if option, _, ok := strings.Cut(current, "="); ok && isFlag(option) {
		return prefixed(option+"=", p.values(flagNamed(flags, strings.TrimLeft(option, "-")), line))
	}
	if len(before) > 0 && isFlag(before[len(before)-1]) && !slices.Contains(before, "--") {
		f := flagNamed(flags, strings.TrimLeft(before[len(before)-1], "-"))
		// The value of an option that can do without one may be the next option instead.
		if values := p.values(f, line); f != nil && (!isSwitch(f) || len(values) > 0 && !strings.HasPrefix(current, "-")) {
			return values
		}
	}
	if strings.HasPrefix(current, "-") {
		return optionNames(flags)
	}
	if len(commands) > 0 {
		return append(names(commands), "help")
	}
	return p.noun(argumentNoun(arguments, flags, args[min(at, len(args)):]), line)
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
func argumentNoun(usage string, flags []cli.Flag, args []string) string {
	n := 0
	for len(args) > 0 {
		took := 1
		switch {
		case isFlag(args[0]):
			took = length(flags, args)
		default:
			n++
		}
		args = args[took:]
	}
	if nouns := strings.Fields(usage); n < len(nouns) {
		return nouns[n]
	}
	return ""
}
