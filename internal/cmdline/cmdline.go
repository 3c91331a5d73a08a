// Package cmdline owns what the command lines of the programs share: how arguments
// are read, help, completion and usage errors; output as a table or as JSON, --watch,
// the stream of events; and the options of a daemon's log, hook and metrics. The
// mains use it. It never calls a method of a daemon.
package cmdline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"callhome/internal/lazyregexp"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
	"github.com/xrash/smetrics"
)

// Program is a program's command line.
type Program struct {
	// Hint names the command that prints the usage.
	Hint string
	// Nouns list the values that a placeholder of an option or argument stands for,
	// for completion.
	Nouns map[string]func(Line) []string
}

// typedKey is the context key of the arguments as the user typed them.
type typedKey struct{}

// Run runs the command that args name. typed are the arguments as the user typed
// them, which errors quote.
func (p Program) Run(ctx context.Context, app *cli.App, args, typed []string) error {
	cli.HelpPrinter = printHelp
	app.HideHelpCommand, app.OnUsageError = true, p.onUsageError
	app.ExitErrHandler = func(*cli.Context, error) {}
	if app.Action == nil {
		app.Action = p.noCommand
	}
	p.prepare(app.Commands)
	if len(args) > 1 && args[1] == completeCommand {
		return p.complete(os.Stdout, app, args[2:])
	}
	return app.RunContext(context.WithValue(ctx, typedKey{}, typed), args)
}

// prepare sets what all commands share.
func (p Program) prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.HideHelpCommand, c.OnUsageError = true, p.onUsageError
		if c.ArgsUsage == "" {
			c.Before = p.noArguments
		}
		p.prepare(c.Subcommands)
	}
}

// Usage makes err a usage error, with exit status 64.
func (p Program) Usage(err error) error {
	if err == nil || sysexits.Code(err) == sysexits.Usage {
		return err
	}
	return sysexits.New(sysexits.Usage, p.Hint, err)
}

// unknown is a usage error for a word that is not one of known.
func (p Program) unknown(known []string, word string, err error) error {
	hint := p.Hint
	if near := nearest(known, word); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	return sysexits.New(sysexits.Usage, hint, err)
}

// nearest returns the one of known that word is probably a misspelling of, or "".
func nearest(known []string, word string) string {
	const enough = 0.8 // of 1; "adopt" and "stop" have 0.6, "status" and "statsu" 0.98
	best, near := enough, ""
	for _, k := range known {
		// The threshold and the prefix are those of Winkler's paper.
		if d := smetrics.JaroWinkler(bare(word), bare(k), 0.7, 4); d > best {
			best, near = d, k
		}
	}
	return near
}

// bare is an option's name without dashes and case, which all options share.
func bare(name string) string { return strings.ToLower(strings.TrimLeft(name, "-")) }

// noArguments is a cli.BeforeFunc of commands without arguments. What a command with
// subcommands gets is an unknown one.
func (p Program) noArguments(c *cli.Context) error {
	switch first := c.Args().First(); {
	case !c.Args().Present():
		return nil
	case len(c.Command.Subcommands) > 0 && named(c.Command.Subcommands, first) != nil:
		return nil
	case len(c.Command.Subcommands) > 0:
		return p.unknown(names(c.Command.Subcommands), first, fmt.Errorf("unknown command %q of %s", first, c.Command.Name))
	default:
		return p.Usage(fmt.Errorf("%s: unexpected argument %q", c.Command.Name, first))
	}
}

// noCommand is the action for a missing or unknown command.
func (p Program) noCommand(c *cli.Context) error {
	if first := c.Args().First(); c.Args().Present() {
		return p.unknown(append(names(c.App.Commands), "help"), first, fmt.Errorf("unknown command %q", first))
	}
	return p.Usage(errors.New("no command given"))
}

// The messages of package flag that name an option: it puts one dash before each.
var (
	undefined = lazyregexp.New(`^flag provided but not defined: -(.*)$`)
	noValue   = lazyregexp.New(`^flag needs an argument: -(.*)$`)
	badValue  = lazyregexp.New(`(?s)^invalid value ("(?:[^"\\]|\\.)*") for flag -([^:]*): (.*)$`)
	badSwitch = lazyregexp.New(`(?s)^invalid boolean value ("(?:[^"\\]|\\.)*") for -([^:]*): (.*)$`)
)

// causes are package flag's reasons why a value is not a number, in plain terms.
var causes = strings.NewReplacer("parse error", "expected a number", "value out of range", "the number is out of range")

// onUsageError is cli.OnUsageErrorFunc. It names the option as the user typed it.
func (p Program) onUsageError(c *cli.Context, err error, _ bool) error {
	args, _ := c.Context.Value(typedKey{}).([]string)
	text := err.Error()
	if m := undefined().FindStringSubmatch(text); m != nil {
		return p.unknown(optionNames(c.Command.Flags), withDashes(m[1]), fmt.Errorf("unknown option %q", typed(args, m[1])))
	}
	if m := noValue().FindStringSubmatch(text); m != nil {
		return p.Usage(fmt.Errorf("%s needs a value", typed(args, m[1])))
	}
	if m := badValue().FindStringSubmatch(text); m != nil {
		return p.Usage(fmt.Errorf("%s %s: %s", typed(args, m[2]), m[1], causes.Replace(m[3])))
	}
	if m := badSwitch().FindStringSubmatch(text); m != nil {
		return p.Usage(fmt.Errorf("%s %s: %s", typed(args, m[2]), m[1], strings.Replace(m[3], "parse error", "expected true or false", 1)))
	}
	return p.Usage(err)
}

// typed returns an option as args have it.
func typed(args []string, name string) string {
	for _, arg := range args {
		option, _, _ := strings.Cut(arg, "=")
		if isFlag(option) && strings.TrimLeft(option, "-") == name {
			return option
		}
	}
	return withDashes(name)
}

// withDashes returns an option's name as users write it: -i, --json.
func withDashes(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// OneLine returns an error and what to do next, in one line.
func OneLine(err error) string {
	line := err.Error()
	var e *proto.Error
	switch {
	case sysexits.Hint(err) != "":
		line += "; " + sysexits.Hint(err)
	case errors.As(err, &e) && e.Data.Retry:
		line += "; temporary, retry"
	}
	return line
}
