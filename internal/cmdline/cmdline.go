// Package cmdline owns what the command lines of callhome-mgr and callhome-nms
// share: usage errors, output as a table or as JSON, --watch, the stream of events,
// and the followers of a daemon's events (its log, hook and metrics). The two mains
// use it. It never calls a method of a daemon.
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
	Name string
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
// parse flags at the first argument. All after "--" are arguments.
func FlagsFirst(commands []*cli.Command, args []string) []string {
	if len(args) == 0 || args[len(args)-1] == "--generate-bash-completion" {
		return args // the library wants that flag last
	}
	at := slices.IndexFunc(args, func(a string) bool { return named(commands, a) != nil })
	if at < 0 {
		return args
	}
	command := named(commands, args[at])
	for at+1 < len(args) && named(command.Subcommands, args[at+1]) != nil {
		at++
		command = named(command.Subcommands, args[at])
	}
	var flags, arguments []string
	for rest := args[at+1:]; len(rest) > 0; {
		n := 1
		switch {
		case rest[0] == "--":
			return slices.Concat(args[:at+1], flags, rest[:1], arguments, rest[1:])
		case len(rest[0]) < 2 || rest[0][0] != '-':
			arguments = append(arguments, rest[0])
		default:
			if takesValue(command, rest[0]) {
				n = min(2, len(rest))
			}
			flags = append(flags, rest[:n]...)
		}
		rest = rest[n:]
	}
	return slices.Concat(args[:at+1], flags, arguments)
}

func named(commands []*cli.Command, name string) *cli.Command {
	i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return commands[i]
}

func takesValue(command *cli.Command, arg string) bool {
	return slices.ContainsFunc(command.Flags, func(f cli.Flag) bool {
		if _, isSwitch := f.(*cli.BoolFlag); isSwitch {
			return false
		}
		if g, ok := f.(*cli.GenericFlag); ok {
			if b, ok := g.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
				return false
			}
		}
		return slices.ContainsFunc(f.Names(), func(name string) bool { return strings.TrimLeft(arg, "-") == name })
	})
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
