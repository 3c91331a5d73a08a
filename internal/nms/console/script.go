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

// Script is what was asked for, in its order. A modifier behind an operation is
// that one's; before the first it is for all that understand it.
type Script struct {
	requests []*Request
	common   map[string][]string
}

// Flag is an option of the table as package flag takes it. Its Set calls come
// in the order of the command line, which is how a script gets its order.
type Flag struct {
	Name  string
	Word  string // what has to follow, [what] where it may, or ""
	Usage string

	set func(string) error
}

// Set is flag.Value's.
func (f *Flag) Set(value string) error { return f.set(value) }

// String is flag.Value's.
func (f *Flag) String() string { return "" }

// IsBoolFlag is how package flag asks whether the option may stand alone.
func (f *Flag) IsBoolFlag() bool { return f.Word == "" || f.Word[0] == '[' }

// Flags are the options that fill the script.
func (s *Script) Flags() []*Flag {
	var all []*Flag
	for _, o := range Operations {
		all = append(all, &Flag{Name: o.Name, Word: o.word(), Usage: o.Usage, set: func(value string) error { return s.add(o, value) }})
	}
	for _, m := range Modifiers {
		usage := m.Usage
		if m.Short != "" {
			usage += " (-" + m.Short + ")"
		}
		all = append(all, &Flag{Name: m.Name, Word: m.Value, Usage: usage, set: func(value string) error { return s.modify(m, value) }})
	}
	return all
}

// word is the operation's word as help shows it.
func (o *Operation) word() string {
	switch o.Arity {
	case Required:
		return o.Value
	case Optional:
		return "[" + o.Value + "]"
	}
	return ""
}

// given is what package flag sets a switch to that has no value.
const given = "true"

func (s *Script) add(o *Operation, value string) error {
	switch {
	case value == given && o.Arity != Required:
		value = ""
	case o.Arity == None:
		return fmt.Errorf("--%s takes no argument", o.Name)
	}
	r := &Request{Operation: o, word: value, with: make(map[string][]string)}
	for _, name := range o.Takes {
		if len(s.common[name]) > 0 {
			r.with[name] = slices.Clone(s.common[name])
		}
	}
	if o.Value == "DB" && r.word != "" {
		delete(r.with, "db") // the word is nearer
	}
	s.requests = append(s.requests, r)
	return nil
}

func (s *Script) modify(m *Modifier, value string) error {
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
		return fmt.Errorf("--%s has no --%s", r.Operation.Name, m.Name)
	}
	if m.Name != "ns" {
		r.with[m.Name] = nil // in place of the common one
	}
	r.with[m.Name] = append(r.with[m.Name], value)
	return nil
}

// Requests returns the script, with files read. Common modifiers that no
// operation understands are an error.
func (s *Script) Requests() ([]*Request, error) {
	for name := range s.common {
		if !slices.ContainsFunc(s.requests, func(r *Request) bool { return slices.Contains(r.Operation.Takes, name) }) && len(s.requests) > 0 {
			return nil, usage(fmt.Errorf("none of the operations has --%s", name))
		}
	}
	stdin := 0
	for _, r := range s.requests {
		for _, file := range []string{r.word, r.one("subtree", "")} {
			if file == "-" {
				stdin++
			}
		}
	}
	if stdin > 1 {
		return nil, usage(errors.New("standard input can be one file only"))
	}
	for _, r := range s.requests {
		if err := r.prepare(); err != nil {
			return nil, err
		}
	}
	return s.requests, nil
}

// Join makes a command line fit for package flag: a short modifier becomes its
// long name, and the word behind an option that may stand alone, which package
// flag would not take, is joined to it. extra are further such options.
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
		for _, m := range Modifiers {
			if m.Short != "" && arg == "-"+m.Short {
				arg = "--" + m.Name
			}
		}
		if slices.Contains(optional, arg) && i+1 < len(args) && (args[i+1] == "-" || !strings.HasPrefix(args[i+1], "-")) {
			i++
			arg += "=" + args[i]
		}
		out = append(out, arg)
	}
	return out
}

// parseLine reads one command of interactive mode, as `get-config candidate -x
// /interfaces`.
func parseLine(line string) (*Request, error) {
	words, err := split(line)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(Operations, func(o *Operation) bool { return o.Name == words[0] }) {
		return nil, usage(fmt.Errorf("there is no %q; help lists what there is", words[0]))
	}
	var s Script
	set := flag.NewFlagSet(words[0], flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for _, f := range s.Flags() {
		set.Var(f, f.Name, f.Usage)
	}
	words[0] = "--" + words[0]
	if err := set.Parse(Join(words)); err != nil {
		return nil, usage(errors.New(strings.ReplaceAll(err.Error(), ": -", ": --")))
	}
	if set.NArg() > 0 {
		return nil, usage(fmt.Errorf("unexpected argument %q", set.Arg(0)))
	}
	requests, err := s.Requests()
	if err == nil && len(requests) != 1 {
		err = usage(errors.New("one operation a line"))
	}
	if err != nil {
		return nil, err
	}
	return requests[0], nil
}

// split divides a line into words, of which one may stand in quotes of either
// kind. Nothing else is special.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, inWord = r, true
		case r == ' ' || r == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, sysexits.New(sysexits.Usage, "", fmt.Errorf("a %c is open", quote))
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
