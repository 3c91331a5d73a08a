package cmdline

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// DurationFlag is an option with a time, which context.Duration returns. A number
// without a unit is seconds, as in the device's options.
func DurationFlag(name string, value time.Duration, usage string) *cli.GenericFlag {
	d := duration(value)
	return &cli.GenericFlag{Name: name, Value: &d, Usage: usage}
}

type duration time.Duration

func (d *duration) Set(s string) error {
	if s != "" && strings.Trim(s, "0123456789.") == "" {
		s += "s"
	}
	value, err := time.ParseDuration(s)
	if err != nil || value < 0 {
		return fmt.Errorf("expected a time such as 30, 500ms or 1m30s")
	}
	*d = duration(value)
	return nil
}

func (d *duration) String() string { return time.Duration(*d).String() }

// ChoiceFlag is an option whose value is one of values, which context.String returns.
// Completion lists them.
func ChoiceFlag(name, value, usage string, values ...string) *cli.GenericFlag {
	return &cli.GenericFlag{Name: name, Value: &choice{value, values}, Usage: usage}
}

type choice struct {
	value  string
	values []string
}

func (c *choice) Set(s string) error {
	if !slices.Contains(c.values, s) {
		return fmt.Errorf("expected %s", Or(c.values))
	}
	c.value = s
	return nil
}

func (c *choice) String() string { return c.value }

// Choices returns the values that completion lists.
func (c *choice) Choices() []string { return c.values }

// Or lists values in a sentence: "a", "a or b", "a, b or c".
func Or(values []string) string {
	n := len(values) - 1
	if n < 1 {
		return strings.Join(values, "")
	}
	return strings.Join(values[:n], ", ") + " or " + values[n]
}
