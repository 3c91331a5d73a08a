package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Flag is an option.
type Flag interface {
	Describe() Description
	// Set gives the option a value from the command line or the environment.
	Set(text string) error
	IsSet() bool
	get() any
	// fromEnvironment sets the option from its variables unless it is set.
	fromEnvironment() error
}

// Description is what help and completion say of an option.
type Description struct {
	Names    []string // without dashes
	Usage    string
	Category string
	Hidden   bool
	Default  string
	EnvVars  []string
	Choices  []string // values that completion lists
	Switch   bool     // it takes no argument for its value
	List     bool     // it may be repeated
}

// Value is the value of a GenericFlag. It is a switch if it has a method IsBoolFlag
// that returns true, and lists the values that Choices returns.
type Value interface {
	Set(string) error
	String() string
}

// The kinds of options.
type (
	BoolFlag        = FlagOf[bool]
	IntFlag         = FlagOf[int]
	Uint64Flag      = FlagOf[uint64]
	StringFlag      = FlagOf[string]
	StringSliceFlag = FlagOf[[]string]
	GenericFlag     = FlagOf[Value]
)

// FlagOf is an option with a value of a type above. Value is the default first.
type FlagOf[T any] struct {
	Name     string
	Aliases  []string
	Usage    string
	Category string
	Hidden   bool
	EnvVars  []string
	Choices  []string
	// DefaultText replaces Value in help.
	DefaultText string
	Value       T

	set bool
}

// Describe implements Flag.
func (f *FlagOf[T]) Describe() Description {
	d := Description{
		Names: append([]string{f.Name}, f.Aliases...), Usage: f.Usage, Category: f.Category, Hidden: f.Hidden,
		Default: f.DefaultText, EnvVars: f.EnvVars, Choices: f.Choices,
	}
	value := ""
	switch v := any(&f.Value).(type) {
	case *bool:
		d.Switch = true
	case *[]string:
		d.List = true
		value = strings.Join(*v, ", ")
	case *Value:
		value = (*v).String()
		if b, ok := (*v).(interface{ IsBoolFlag() bool }); ok {
			d.Switch = b.IsBoolFlag()
		}
		if c, ok := (*v).(interface{ Choices() []string }); ok {
			d.Choices = c.Choices()
		}
	default:
		value = fmt.Sprint(f.Value)
	}
	if d.Default == "" {
		d.Default = value
	}
	return d
}

// Set implements Flag.
func (f *FlagOf[T]) Set(text string) (err error) {
	switch v := any(&f.Value).(type) {
	case *bool:
		if *v, err = strconv.ParseBool(text); err != nil {
			err = errors.New("expected true or false")
		}
	case *int:
		var n int64
		n, err = strconv.ParseInt(text, 0, strconv.IntSize)
		*v, err = int(n), numberError(err)
	case *uint64:
		*v, err = strconv.ParseUint(text, 0, 64)
		err = numberError(err)
	case *string:
		*v = text
	case *[]string:
		if !f.set {
			*v = nil // the default
		}
		*v = append(slices.Clip(*v), text)
	case *Value:
		err = (*v).Set(text)
	}
	f.set = true
	return err
}

func numberError(err error) error {
	switch {
	case errors.Is(err, strconv.ErrRange):
		return errors.New("the number is out of range")
	case err != nil:
		return errors.New("expected a number")
	}
	return nil
}

// IsSet implements Flag.
func (f *FlagOf[T]) IsSet() bool { return f.set }

func (f *FlagOf[T]) get() any { return f.Value }

func (f *FlagOf[T]) fromEnvironment() error {
	for _, name := range f.EnvVars {
		text := os.Getenv(name)
		if f.set || text == "" {
			continue
		}
		if err := f.Set(text); err != nil {
			return fmt.Errorf("%s %q: %w", name, text, err)
		}
	}
	return nil
}
