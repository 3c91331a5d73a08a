// Package cmdline owns what the command lines of the programs share: how a command is
// run, help, completion and usage errors; output as a table or as JSON, --watch,
// the stream of events; and the options of a daemon's log, hook and metrics. The
// mains use it. It never calls a method of a daemon.
package cmdline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

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

// Run runs the command that args name; args[0] is the program.
func (p Program) Run(ctx context.Context, app *cli.App, args []string) error {
	if len(args) > 1 && args[1] == completeCommand {
		return p.complete(os.Stdout, app, args[2:])
	}
	line, err := parse(app, args[1:])
	if err != nil {
		return p.faulty(line.command(), err)
	}
	switch line.asked {
	case help:
		printHelp(writer(app), line)
		return nil
	case version:
		return printVersion(app)
	}
	c, err := line.context(ctx)
	if err != nil {
		return p.Usage(err)
	}
	if err := p.arguments(c, line); err != nil {
		return err
	}
	return c.Command.Action(c)
}

// writer returns where help and version are printed.
func writer(app *cli.App) io.Writer {
	if app.Writer != nil {
		return app.Writer
	}
	return os.Stdout
}

// PrintVersion prints the program's version.
func PrintVersion(c *cli.Context) error { return printVersion(c.App) }

func printVersion(app *cli.App) error {
	_, err := fmt.Fprintf(writer(app), "%s version %s\n", app.Name, app.Version)
	return err
}

// arguments refuses those of a command that takes none, where an unknown command is
// one, and a command that has no action of its own.
func (p Program) arguments(c *cli.Context, line *parsed) error {
	command, first := c.Command, c.Args().First()
	of, known := " of "+command.Name, names(command.Subcommands)
	if len(line.path) == 1 {
		of, known = "", append(known, "help")
	}
	switch {
	case command.Action == nil && !c.Args().Present():
		return p.Usage(errors.New("no command given"))
	case command.ArgsUsage != "" || !c.Args().Present():
		return nil
	case len(command.Subcommands) > 0:
		return p.unknown(known, first, fmt.Errorf("unknown command %q%s", first, of))
	default:
		return p.Usage(fmt.Errorf("%s: unexpected argument %q", command.Name, first))
	}
}

// faulty is the usage error of a command's option.
func (p Program) faulty(command *cli.Command, err error) error {
	var e *unknownOption
	if errors.As(err, &e) {
		return p.unknown(optionNames(command.Flags), e.option, err)
	}
	return p.Usage(err)
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

// Asks reports whether arguments without a flag are more than data to a program
// without commands: `help` alone, and what a shell's completion asks.
func Asks(args []string) bool {
	return len(args) == 1 && args[0] == "help" || len(args) > 0 && args[0] == completeCommand
}

// withDashes returns an option's name as users write it: -i, --json.
func withDashes(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func names(commands []*cli.Command) []string {
	var out []string
	for _, c := range commands {
		if !c.Hidden {
			out = append(out, c.Name)
		}
	}
	return out
}

// optionNames returns the options of a command that help shows, with their dashes.
func optionNames(flags []cli.Flag) []string {
	var out []string
	for _, f := range flags {
		for _, name := range f.Names() {
			if !isHidden(f) {
				out = append(out, withDashes(name))
			}
		}
	}
	return append(out, "--help")
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
