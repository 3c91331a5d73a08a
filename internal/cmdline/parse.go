package cmdline

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// The library describes commands and options, and holds their values. It is not run:
// its App.Run reaches its own help, which is made with text/template. That calls methods
// by names which only the run knows, so the linker would keep the exported methods of
// all types: 2 MB of callhome-mgr. TestWhatDevicesDoNotLink holds that.

// asked is what a command line wants.
type asked int

const (
	action asked = iota
	help
	version
)

// parsed is a command line that was read.
type parsed struct {
	app   *cli.App
	path  []*cli.Command // from the program to the innermost command
	asked asked
	args  []string
	found []assignment
}

// assignment is an option with its value.
type assignment struct {
	typed string // the option
	of    int    // the index in path of its command
	flag  cli.Flag
	value string
}

// unknownOption is the error of an option that a command does not have.
type unknownOption struct{ option string }

func (e *unknownOption) Error() string { return fmt.Sprintf("unknown option %q", e.option) }

// command returns the innermost command.
func (p *parsed) command() *cli.Command { return p.path[len(p.path)-1] }

// name returns the names of the program and the commands.
func (p *parsed) name() string {
	var names []string
	for _, c := range p.path {
		names = append(names, c.Name)
	}
	return strings.Join(names, " ")
}

// program is an application as a command.
func program(app *cli.App) *cli.Command {
	return &cli.Command{
		Name: app.Name, Usage: app.Usage, UsageText: app.UsageText, ArgsUsage: app.ArgsUsage, Description: app.Description,
		Flags: app.Flags, Subcommands: app.Commands, Action: app.Action,
	}
}

// parse reads args, which begin after the program's name. Options may stand after
// arguments, and those of the program after its commands. A program without commands
// takes all after its first argument as arguments. On an error what was read until then
// is returned too.
func parse(app *cli.App, args []string) (*parsed, error) {
	p := &parsed{app: app, path: []*cli.Command{program(app)}}
	if len(app.Commands) == 0 && len(args) == 1 && args[0] == "help" {
		args = []string{"--help"}
	}
	rest, err := p.read(args)
	if err != nil && len(app.Commands) > 0 && wantsHelp(rest) {
		p.asked, err = help, nil
	}
	return p, err
}

// wantsHelp reports whether help is asked for after a faulty option.
func wantsHelp(rest []string) bool {
	if i := slices.Index(rest, "--"); i >= 0 {
		rest = rest[:i]
	}
	return slices.Contains(rest, "--help") || slices.Contains(rest, "-h")
}

func (p *parsed) read(args []string) (rest []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		done := false
		switch {
		case arg == "--":
			p.args, args = append(p.args, args...), nil
		case isOption(arg):
			args, done, err = p.option(arg, args)
		case p.word(arg):
			p.args, args = append(p.args, args...), nil
		}
		if done || err != nil {
			return args, err
		}
	}
	return nil, nil
}

// word reads the name of a command, or an argument. last: all that follow are arguments.
func (p *parsed) word(arg string) (last bool) {
	command := p.command()
	sub := named(command.Subcommands, arg)
	switch {
	case len(p.args) > 0:
		p.args = append(p.args, arg)
	case sub != nil:
		p.path = append(p.path, sub)
	case arg == "help" && len(command.Subcommands) > 0 && p.asked == action:
		p.asked = help
	default:
		p.args = append(p.args, arg)
		// After what is no command, nothing is known of the options.
		return len(p.app.Commands) == 0 || len(command.Subcommands) > 0 && command.ArgsUsage == ""
	}
	return false
}

// option reads an option, and its value if that is the next argument. done: the rest
// does not matter.
func (p *parsed) option(arg string, args []string) (rest []string, done bool, err error) {
	typed, value, valued := strings.Cut(arg, "=")
	name := strings.TrimLeft(typed, "-")
	of, f := p.flag(name)
	switch {
	case f == nil && (name == "help" || name == "h"):
		p.asked = help
		return args, true, nil
	case f == nil && p.app.Version != "" && (name == "version" || name == "v" && len(p.path) == 1):
		p.asked = version
		return args, true, nil
	case f == nil:
		return args, true, &unknownOption{typed}
	case valued:
	case isSwitch(f):
		value = "true"
	case len(args) == 0:
		return args, true, fmt.Errorf("%s needs a value", typed)
	default:
		value, args = args[0], args[1:]
	}
	p.found = append(p.found, assignment{typed, of, f, value})
	return args, false, nil
}

// flag returns an option of the innermost command that has it, and that command's index
// in path; nil: none has it.
func (p *parsed) flag(name string) (int, cli.Flag) {
	for i, c := range slices.Backward(p.path) {
		if f := flagNamed(c.Flags, name); f != nil {
			return i, f
		}
	}
	return 0, nil
}

// context gives the options their values, in the order of the command line, and returns
// the library's context of the innermost command.
func (p *parsed) context(ctx context.Context) (c *cli.Context, err error) {
	for i, command := range p.path {
		set := flag.NewFlagSet(command.Name, flag.ContinueOnError)
		for _, f := range command.Flags {
			if err := f.Apply(set); err != nil {
				return nil, err
			}
		}
		if err := p.assign(set, i); err != nil {
			return nil, err
		}
		if i == len(p.path)-1 {
			if err := set.Parse(append([]string{"--"}, p.args...)); err != nil {
				return nil, err
			}
		}
		c = cli.NewContext(p.app, set, c)
		c.Context, c.Command = ctx, command
	}
	return c, nil
}

// assign sets the options of the command at index of in path.
func (p *parsed) assign(set *flag.FlagSet, of int) error {
	lists := make(map[string][]string)
	for _, a := range p.found {
		if a.of != of {
			continue
		}
		name, value := a.flag.Names()[0], a.value
		if _, ok := a.flag.(*cli.StringSliceFlag); ok {
			// The library would split a value at its commas.
			lists[name] = append(lists[name], value)
			value = cli.NewStringSlice(lists[name]...).Serialize()
		}
		if err := set.Set(name, value); err != nil {
			return fmt.Errorf("%s %q: %w", a.typed, a.value, inPlainTerms(a.flag, err))
		}
	}
	return nil
}

// inPlainTerms replaces package flag's reasons why a value is refused.
func inPlainTerms(f cli.Flag, err error) error {
	switch err.Error() {
	case "parse error":
		if isSwitch(f) {
			return errors.New("expected true or false")
		}
		return errors.New("expected a number")
	case "value out of range":
		return errors.New("the number is out of range")
	}
	return err
}

// isOption reports whether an argument is an option.
func isOption(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

// isSwitch reports whether an option takes no argument for its value.
func isSwitch(f cli.Flag) bool {
	switch f := f.(type) {
	case *cli.BoolFlag:
		return true
	case *cli.GenericFlag:
		b, ok := f.Value.(interface{ IsBoolFlag() bool })
		return ok && b.IsBoolFlag()
	}
	return false
}

func flagNamed(flags []cli.Flag, name string) cli.Flag {
	i := slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	if i < 0 {
		return nil
	}
	return flags[i]
}

func named(commands []*cli.Command, name string) *cli.Command {
	i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return commands[i]
}

func isHidden(f cli.Flag) bool {
	v, ok := f.(cli.VisibleFlag)
	return ok && !v.IsVisible()
}
