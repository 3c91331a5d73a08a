// Package cli owns the grammar of a command line: commands, their options, and which
// arguments are the values of which. The mains describe their commands with it, and
// package cmdline runs them. It never prints, and runs no action.
//
// The libraries for this render help with text/template. That calls methods by names
// that only the run knows, so the linker keeps every exported method of every type:
// two megabytes of callhome-mgr (packaging/README.md).
package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Command is a program, or one of its commands.
type Command struct {
	Name, Usage string
	// UsageText replaces the line of usage that the fields make.
	UsageText string
	// ArgsUsage has the placeholders of the arguments; "" where there are none.
	ArgsUsage   string
	Description string
	Hidden      bool
	Flags       []Flag
	Subcommands []*Command
	Action      ActionFunc

	// Of a program alone:

	Version string
	Writer  io.Writer // of help and version
	// OptionsFirst has all after the first argument be arguments.
	OptionsFirst bool
}

// ActionFunc runs a command.
type ActionFunc func(*Context) error

// Named returns the subcommand of that name, or nil.
func (c *Command) Named(name string) *Command {
	i := slices.IndexFunc(c.Subcommands, func(s *Command) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return c.Subcommands[i]
}

// Flag returns the option of that name, or nil.
func (c *Command) Flag(name string) Flag {
	i := slices.IndexFunc(c.Flags, func(f Flag) bool { return slices.Contains(f.Describe().Names, name) })
	if i < 0 {
		return nil
	}
	return c.Flags[i]
}

// Asked is what a command line wants instead of a command's action.
type Asked int

// The values of Asked.
const (
	Action Asked = iota
	Help
	Version
)

// Context is a command line that was read.
type Context struct {
	Context context.Context
	Command *Command // the innermost one
	Asked   Asked

	path []*Command // from the program to Command
	args Args
}

// Path returns the commands from the program to the innermost one.
func (c *Context) Path() []*Command { return c.path }

// FullName returns the names of Path.
func (c *Context) FullName() string {
	var names []string
	for _, command := range c.path {
		names = append(names, command.Name)
	}
	return strings.Join(names, " ")
}

// Args are the arguments that are no option's value.
type Args []string

// Get returns the argument n, or "".
func (a Args) Get(n int) string {
	if n >= len(a) {
		return ""
	}
	return a[n]
}

// First returns the first argument, or "".
func (a Args) First() string { return a.Get(0) }

// Present reports whether there is one.
func (a Args) Present() bool { return len(a) > 0 }

// Slice returns a copy.
func (a Args) Slice() []string { return slices.Clone(a) }

// Args returns the arguments.
func (c *Context) Args() Args { return c.args }

// NArg returns their number.
func (c *Context) NArg() int { return len(c.args) }

// flag returns an option of the command, or of one that it belongs to; nil: none.
func (c *Context) flag(name string) Flag {
	for _, command := range slices.Backward(c.path) {
		if f := command.Flag(name); f != nil {
			return f
		}
	}
	return nil
}

// valueOf returns the value of an option; the zero value where there is no such one.
func valueOf[T any](c *Context, name string) (value T) {
	if f := c.flag(name); f != nil {
		value, _ = f.get().(T)
	}
	return value
}

// IsSet reports whether an option has been given, or its variable of the environment.
func (c *Context) IsSet(name string) bool {
	f := c.flag(name)
	return f != nil && f.IsSet()
}

// Bool, Int, Uint64, StringSlice and Generic return the value of an option.
func (c *Context) Bool(name string) bool            { return valueOf[bool](c, name) }
func (c *Context) Int(name string) int              { return valueOf[int](c, name) }
func (c *Context) Uint64(name string) uint64        { return valueOf[uint64](c, name) }
func (c *Context) StringSlice(name string) []string { return valueOf[[]string](c, name) }
func (c *Context) Generic(name string) Value        { return valueOf[Value](c, name) }

// String returns the value of an option, also of a GenericFlag.
func (c *Context) String(name string) string {
	if v := c.Generic(name); v != nil {
		return v.String()
	}
	return valueOf[string](c, name)
}

// Duration returns the value of a GenericFlag whose String is a duration.
func (c *Context) Duration(name string) time.Duration {
	d, _ := time.ParseDuration(c.String(name))
	return d
}

// UnknownOption is the error of an option that Command does not have.
type UnknownOption struct {
	Option  string // as typed
	Command *Command
}

func (e *UnknownOption) Error() string { return fmt.Sprintf("unknown option %q", e.Option) }
