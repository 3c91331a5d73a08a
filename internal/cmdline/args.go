package cmdline

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Arguments returns args as the library understands them; args[0] is the program.
// It moves a command's flags before its arguments, because the library stops parsing
// flags at the first argument, and the program's flags before the command. `help
// COMMAND` becomes `COMMAND --help`, and --version of a command that of the program.
func Arguments(app *cli.App, args []string) []string {
	switch {
	case len(args) == 0 || len(args) > 1 && args[1] == completeCommand:
		return args
	case len(app.Commands) == 0 && Asks(args[1:]):
		return []string{args[0], "--help"}
	}
	at, command := lastCommand(app, args)
	if at < len(args) && args[at] == "help" && (command == nil && len(app.Commands) > 0 || command != nil && len(command.Subcommands) > 0) {
		args = append(slices.Delete(slices.Clone(args), at, at+1), "--help")
		at, command = lastCommand(app, args)
	}
	if command == nil {
		return args
	}
	var global, flags, arguments []string
	for rest := args[at:]; len(rest) > 0; {
		n := 1
		switch name := nameOf(rest[0]); {
		case rest[0] == "--":
			return slices.Concat(args[:1], global, args[1:at], flags, rest[:1], arguments, rest[1:])
		case !isFlag(rest[0]):
			arguments = append(arguments, rest[0])
		case name == "help", name == "h":
			return append(slices.Clone(args[:at]), "--help") // the library takes an argument for a topic
		case name == "version" && flagNamed(command.Flags, name) == nil:
			return []string{args[0], "--version"}
		case flagNamed(command.Flags, name) == nil && flagNamed(app.Flags, name) != nil:
			if valueMissing(app.Flags, rest) {
				return []string{args[0], rest[0]}
			}
			n = length(app.Flags, rest)
			global = append(global, rest[:n]...)
		case valueMissing(command.Flags, rest):
			return slices.Concat(args[:at], rest) // no argument may become its value
		default:
			n = length(command.Flags, rest)
			flags = append(flags, rest[:n]...)
		}
		rest = rest[n:]
	}
	return slices.Concat(args[:1], global, args[1:at], flags, arguments)
}

// lastCommand returns the innermost command that args name, and the index after its
// name. Flags may stand before each name.
func lastCommand(app *cli.App, args []string) (int, *cli.Command) {
	commands, flags := app.Commands, app.Flags
	var command *cli.Command
	after := 1
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

// Asks reports whether arguments without a flag are more than data to a program
// without commands: `help` alone, and what a shell's completion asks.
func Asks(args []string) bool {
	return len(args) == 1 && args[0] == "help" || len(args) > 0 && args[0] == completeCommand
}

func isFlag(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

// nameOf returns the name of an option without dashes and value.
func nameOf(arg string) string {
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	return name
}

// length returns how many of args, which begin with a flag, belong to it: 2 where its
// value is an argument of its own.
func length(flags []cli.Flag, args []string) int {
	if f := flagNamed(flags, strings.TrimLeft(args[0], "-")); f != nil && !isSwitch(f) {
		return min(2, len(args))
	}
	return 1
}

// valueMissing reports whether args end with a flag that lacks its value.
func valueMissing(flags []cli.Flag, args []string) bool {
	f := flagNamed(flags, nameOf(args[0]))
	return len(args) == 1 && f != nil && !isSwitch(f) && !strings.Contains(args[0], "=")
}

// isSwitch reports whether package flag takes the argument after a flag as its value.
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
	for _, f := range visible(flags) {
		for _, name := range f.Names() {
			out = append(out, withDashes(name))
		}
	}
	return append(out, "--help")
}

func visible(flags []cli.Flag) []cli.Flag {
	return slices.DeleteFunc(slices.Clone(flags), func(f cli.Flag) bool {
		v, ok := f.(cli.VisibleFlag)
		return ok && !v.IsVisible()
	})
}
