package cli

import (
	"fmt"
	"slices"
	"strings"
)

// assignment is an option with its value.
type assignment struct {
	typed string // the option
	flag  Flag
	value string
}

// reader reads a command line.
type reader struct {
	Context
	rest  []string
	found []assignment
}

// Parse reads args, which begin after the program's name. Options may stand after
// arguments, and those of the program after its commands. No option has been set where
// help or the version is asked for.
func (c *Command) Parse(args []string) (*Context, error) {
	r := reader{Context: Context{Command: c, path: []*Command{c}}, rest: args}
	if len(c.Subcommands) == 0 && len(args) == 1 && args[0] == "help" {
		r.rest = []string{"--help"}
	}
	err := r.read()
	if err != nil && r.wantsHelp() {
		r.Asked, err = Help, nil
	}
	if err == nil && r.Asked == Action {
		err = r.set()
	}
	return &r.Context, err
}

// wantsHelp reports whether help is asked for after a faulty option.
func (r *reader) wantsHelp() bool {
	options := r.rest
	if i := slices.Index(options, "--"); i >= 0 {
		options = options[:i]
	}
	return !r.path[0].OptionsFirst && slices.ContainsFunc(options, func(arg string) bool { return arg == "--help" || arg == "-h" })
}

func (r *reader) read() error {
	for len(r.rest) > 0 {
		arg := r.rest[0]
		r.rest = r.rest[1:]
		switch {
		case arg == "--":
			r.args, r.rest = append(r.args, r.rest...), nil
		case IsOption(arg):
			if done, err := r.option(arg); done || err != nil {
				return err
			}
		default:
			r.word(arg)
		}
	}
	return nil
}

// word reads the name of a command, or an argument.
func (r *reader) word(arg string) {
	sub := r.Command.Named(arg)
	switch {
	case len(r.args) > 0:
		r.args = append(r.args, arg)
	case sub != nil:
		r.Command, r.path = sub, append(r.path, sub)
	case arg == "help" && len(r.Command.Subcommands) > 0 && r.Asked == Action:
		r.Asked = Help
	default:
		r.args = append(r.args, arg)
		// After what is no command, nothing is known of the options.
		if r.path[0].OptionsFirst || len(r.Command.Subcommands) > 0 && r.Command.ArgsUsage == "" {
			r.args, r.rest = append(r.args, r.rest...), nil
		}
	}
}

// option reads an option, and its value if that is the next argument. done: the rest
// does not matter.
func (r *reader) option(arg string) (done bool, err error) {
	typed, value, valued := strings.Cut(arg, "=")
	name := strings.TrimLeft(typed, "-")
	f := r.flag(name)
	switch {
	case f == nil && (name == "help" || name == "h"):
		r.Asked = Help
		return true, nil
	case f == nil && (name == "version" || name == "v" && len(r.path) == 1) && r.path[0].Version != "":
		r.Asked = Version
		return true, nil
	case f == nil:
		return true, &UnknownOption{typed, r.Command}
	case valued:
	case f.Describe().Switch:
		value = "true"
	case len(r.rest) == 0:
		return true, fmt.Errorf("%s needs a value", typed)
	default:
		value, r.rest = r.rest[0], r.rest[1:]
	}
	r.found = append(r.found, assignment{typed, f, value})
	return false, nil
}

// set gives the options their values, in the order of the command line.
func (r *reader) set() error {
	for _, a := range r.found {
		if err := a.flag.Set(a.value); err != nil {
			return fmt.Errorf("%s %q: %w", a.typed, a.value, err)
		}
	}
	for _, c := range r.path {
		for _, f := range c.Flags {
			if err := f.fromEnvironment(); err != nil {
				return err
			}
		}
	}
	return nil
}

// IsOption reports whether an argument is an option.
func IsOption(arg string) bool { return len(arg) > 1 && arg[0] == '-' }
