// Package cmdline owns what the command lines of callhome-mgr and callhome-nms
// share: usage errors, output as a table or as JSON, --watch, the stream of events,
// and the options of a daemon's log, hook and metrics. The two mains use it. It never
// calls a method of a daemon.
package cmdline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
)

// Program is a program with commands.
type Program struct {
	// Hint names the command that prints the usage.
	Hint string
}

// Usage makes err a usage error, with exit status 64.
func (p Program) Usage(err error) error {
	if err == nil || sysexits.Code(err) == sysexits.Usage {
		return err
	}
	return sysexits.New(sysexits.Usage, p.Hint, err)
}

// OnUsageError is cli.OnUsageErrorFunc.
func (p Program) OnUsageError(_ *cli.Context, err error, _ bool) error { return p.Usage(err) }

// NoArguments is a cli.BeforeFunc that refuses arguments.
func (p Program) NoArguments(c *cli.Context) error {
	if c.Args().Present() {
		return p.Usage(fmt.Errorf("%s: unexpected argument %q", c.Command.Name, c.Args().First()))
	}
	return nil
}

// NoCommand is the action for a missing or unknown command.
func (p Program) NoCommand(c *cli.Context) error {
	if c.Args().Present() {
		return p.Usage(fmt.Errorf("unknown command %q", c.Args().First()))
	}
	return p.Usage(errors.New("no command given"))
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

// FlagsFirst moves a command's flags before its arguments: urfave/cli v2 stops to
// parse flags at the first argument. All after "--" are arguments. args[0] is the
// program.
func FlagsFirst(app *cli.App, args []string) []string {
	if len(args) == 0 || args[len(args)-1] == "--generate-bash-completion" {
		return args // the library wants that flag last
	}
	at, command := lastCommand(app, args)
	if command == nil {
		return args
	}
	var flags, arguments []string
	for rest := args[at:]; len(rest) > 0; {
		n := 1
		switch {
		case rest[0] == "--":
			return slices.Concat(args[:at], flags, rest[:1], arguments, rest[1:])
		case !isFlag(rest[0]):
			arguments = append(arguments, rest[0])
		default:
			n = length(command.Flags, rest)
			flags = append(flags, rest[:n]...)
		}
		rest = rest[n:]
	}
	return slices.Concat(args[:at], flags, arguments)
}

// lastCommand returns the innermost command that args name, and the index after its
// name. Flags may stand before each name.
func lastCommand(app *cli.App, args []string) (int, *cli.Command) {
	commands, flags := app.Commands, app.Flags
	var command *cli.Command
	after := 0
	for at := 1; at < len(args) && args[at] != "--"; {
		if isFlag(args[at]) {
			at += length(flags, args[at:])
			continue
		}
		next := named(commands, args[at])
		if next == nil {
			break
		}
		at++
		command, after, commands, flags = next, at, next.Subcommands, next.Flags
	}
	return after, command
}

func isFlag(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

// length returns how many of args, which begin with a flag, belong to it: 2 where its
// value is an argument of its own.
func length(flags []cli.Flag, args []string) int {
	name := strings.TrimLeft(args[0], "-")
	takesValue := slices.ContainsFunc(flags, func(f cli.Flag) bool {
		_, isSwitch := f.(*cli.BoolFlag)
		return !isSwitch && slices.Contains(f.Names(), name)
	})
	if takesValue {
		return min(2, len(args))
	}
	return 1
}

func named(commands []*cli.Command, name string) *cli.Command {
	i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return commands[i]
}

// JSONFlag is --json, which Show reads.
func JSONFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print the daemon's answer as JSON"}
}

// WatchFlag is --watch, which Watch reads.
func WatchFlag() cli.Flag {
	return &cli.BoolFlag{Name: "watch", Usage: "refresh the output every second until interrupted"}
}

// Show prints an answer as text or, with --json, as JSON.
func Show(c *cli.Context, answer any, print func(io.Writer)) error {
	if c.Bool("json") {
		return json.NewEncoder(os.Stdout).Encode(answer)
	}
	print(os.Stdout)
	return nil
}

// Watch shows an answer once, or with --watch every second.
func Watch(c *cli.Context, fetch func() (answer any, print func(io.Writer), err error)) error {
	for {
		answer, print, err := fetch()
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		if c.Bool("watch") {
			fmt.Print("\x1b[H\x1b[2J") // home, clear (ECMA-48)
		}
		if err := Show(c, answer, print); err != nil || !c.Bool("watch") {
			return err
		}
		select {
		case <-c.Context.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// EventFlags are the flags that Events reads.
func EventFlags() []cli.Flag {
	return []cli.Flag{&cli.BoolFlag{Name: "follow", Usage: "print further events until interrupted"}, JSONFlag()}
}

// Events shows the last events and, with --follow, the following ones until the
// command is interrupted or the daemon ends.
func Events[E any](c *cli.Context, daemon string, last []E, next <-chan E, print func(io.Writer, E)) error {
	one := func(e E) error { return Show(c, e, func(w io.Writer) { print(w, e) }) }
	for _, e := range last {
		if err := one(e); err != nil {
			return err
		}
	}
	for c.Bool("follow") {
		select {
		case <-c.Context.Done():
			return nil
		case e, ok := <-next:
			if !ok {
				return sysexits.New(sysexits.Unavailable, "run the command again", fmt.Errorf("%s ended the stream of events", daemon))
			}
			if err := one(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// NewTable returns a writer that aligns columns, which tabs separate. Flush
// prints them.
func NewTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }

// Age returns how long ago a time is, in whole seconds.
func Age(since time.Time) string { return time.Since(since).Round(time.Second).String() }

// Count is "1 client", "2 clients".
func Count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
