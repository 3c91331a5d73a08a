package console

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"callhome/internal/sysexits"
)

// Script is the requests of a command line, in order. A modifier after an operation
// applies to that one; before the first, to all that take it.
type Script struct {
	// File has whole messages, which are sent after the operations; "" for none.
	File string

	requests []*Request
	common   map[string][]string
}

// Flag is an operation or modifier as a flag.Value. Package flag calls Set in the
// order of the command line, which gives the script its order.
type Flag struct {
	Name  string
	Value string // placeholder of the argument, in [] if that is optional; "": no argument
	Usage string
	// Hidden flags are the short names of others.
	Hidden  bool
	choices []string

	set func(string) error
}

// Set implements flag.Value.
func (f *Flag) Set(value string) error { return f.set(value) }

// String implements flag.Value.
func (f *Flag) String() string { return "" }

// IsBoolFlag reports to package flag whether the option may come without an argument.
func (f *Flag) IsBoolFlag() bool { return f.Value == "" || f.Value[0] == '[' }

// Choices returns the values that the argument can have; nil: any.
func (f *Flag) Choices() []string { return f.choices }

// Help returns the usage with the placeholder, as package cmdline understands it.
func (f *Flag) Help() string {
	if f.Value == "" {
		return f.Usage
	}
	return "`" + f.Value + "`: " + f.Usage
}

// Flags are the options that fill the script.
func (s *Script) Flags() []*Flag {
	var all []*Flag
	for _, o := range Operations {
		all = append(all, &Flag{Name: o.Name, Value: o.placeholder(), Usage: o.Usage, set: func(value string) error { return s.add(o, value) }})
	}
	for _, m := range Modifiers {
		long := &Flag{Name: m.Name, Value: m.Value, Usage: m.Usage, choices: m.choices, set: func(value string) error { return s.modify(m, "--"+m.Name, value) }}
		all = append(all, long)
		if m.Short != "" {
			long.Usage += " (-" + m.Short + ")"
			all = append(all, &Flag{Name: m.Short, Value: m.Value, Hidden: true, choices: m.choices, set: func(value string) error { return s.modify(m, "-"+m.Short, value) }})
		}
	}
	return all
}

// placeholder returns the placeholder of the operation's argument in help.
func (o *Operation) placeholder() string {
	switch o.Arity {
	case Required:
		return o.Value
	case Optional:
		return "[" + o.Value + "]"
	}
	return ""
}

// given is the value that package cli sets for a switch.
const given = "true"

func (s *Script) add(o *Operation, value string) error {
	switch {
	case value == given && o.Arity != Required:
		value = ""
	case o.Arity == None:
		return fmt.Errorf("--%s takes no argument", o.Name)
	}
	r := &Request{Operation: o, argument: value, with: make(map[string][]string)}
	for _, name := range o.Takes {
		if len(s.common[name]) > 0 {
			r.with[name] = slices.Clone(s.common[name])
		}
	}
	if o.Value == "DB" && r.argument != "" {
		delete(r.with, "db") // the argument replaces the common --db
	}
	s.requests = append(s.requests, r)
	return nil
}

// modify applies a modifier; typed is its name on the command line.
func (s *Script) modify(m *Modifier, typed, value string) error {
	if m.choices != nil && !slices.Contains(m.choices, value) {
		return usage(fmt.Errorf("expected one of %s", strings.Join(m.choices, ", ")))
	}
	if m.check != nil {
		if err := m.check(value); err != nil {
			return err
		}
	}
	if len(s.requests) == 0 {
		if s.common == nil {
			s.common = make(map[string][]string)
		}
		s.common[m.Name] = append(s.common[m.Name], value)
		return nil
	}
	r := s.requests[len(s.requests)-1]
	if !slices.Contains(r.Operation.Takes, m.Name) {
		return fmt.Errorf("--%s does not take %s", r.Operation.Name, typed)
	}
	if m.Name != "ns" {
		r.with[m.Name] = nil // it replaces the common one
	}
	r.with[m.Name] = append(r.with[m.Name], value)
	return nil
}

// Requests returns the script's requests, with their files read. A common modifier that
// no operation takes is an error.
func (s *Script) Requests() ([]*Request, error) {
	for name := range s.common {
		if !slices.ContainsFunc(s.requests, func(r *Request) bool { return slices.Contains(r.Operation.Takes, name) }) && len(s.requests) > 0 {
			return nil, usage(fmt.Errorf("no operation of the command line takes --%s", name))
		}
	}
	stdin := 0
	if s.File == "-" {
		stdin++
	}
	for _, r := range s.requests {
		for _, file := range []string{r.argument, r.one("subtree", "")} {
			if file == "-" {
				stdin++
			}
		}
	}
	if stdin > 1 {
		return nil, usage(errors.New("standard input, -, can replace one FILE only"))
	}
	for _, r := range s.requests {
		if err := r.prepare(); err != nil {
			return nil, err
		}
	}
	if s.File == "" {
		return s.requests, nil
	}
	more, err := readMessages(s.File)
	return append(s.requests, more...), err
}

// Join prepares a command line for package flag: it joins an optional argument to its
// option with "=", as package flag requires. extra are further options with an optional
// argument.
func Join(args []string, extra ...string) []string {
	optional := append([]string(nil), extra...)
	for _, o := range Operations {
		if o.Arity == Optional {
			optional = append(optional, "--"+o.Name)
		}
	}
	var out []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if slices.Contains(optional, arg) && i+1 < len(args) && (args[i+1] == "-" || !strings.HasPrefix(args[i+1], "-")) {
			i++
			arg += "=" + args[i]
		}
		out = append(out, arg)
	}
	return out
}

// parseLine parses one command of the interactive mode, such as `get-config candidate
// -x /interfaces`.
func parseLine(line string) (*Request, error) {
	args, err := split(line)
	if err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return nil, usage(errors.New("expected an operation"))
	}
	if !slices.ContainsFunc(Operations, func(o *Operation) bool { return o.Name == args[0] }) {
		return nil, usage(fmt.Errorf("unknown command %q; help lists the commands", args[0]))
	}
	var s Script
	set := flag.NewFlagSet(args[0], flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for _, f := range s.Flags() {
		set.Var(f, f.Name, f.Usage)
	}
	args[0] = "--" + args[0]
	if err := set.Parse(Join(args)); err != nil {
		return nil, usage(errors.New(strings.ReplaceAll(err.Error(), ": -", ": --")))
	}
	if set.NArg() > 0 {
		return nil, usage(fmt.Errorf("unexpected argument %q", set.Arg(0)))
	}
	requests, err := s.Requests()
	if err == nil && len(requests) != 1 {
		err = usage(errors.New("expected one operation per line"))
	}
	if err != nil {
		return nil, err
	}
	return requests[0], nil
}

// split divides a line into arguments at blanks. An argument, or a part of it, may be in
// single or double quotes. No other character is special.
func split(line string) ([]string, error) {
	var args []string
	var arg strings.Builder
	inArg, quote := false, rune(0)
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			arg.WriteRune(r)
		case r == '"' || r == '\'':
			quote, inArg = r, true
		case r == ' ' || r == '\t':
			if inArg {
				args = append(args, arg.String())
				arg.Reset()
			}
			inArg = false
		default:
			arg.WriteRune(r)
			inArg = true
		}
	}
	if quote != 0 {
		return nil, sysexits.New(sysexits.Usage, "", fmt.Errorf("closing quote %c is missing", quote))
	}
	if inArg {
		args = append(args, arg.String())
	}
	return args, nil
}
