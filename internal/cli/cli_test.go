package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// sample is a program with all that the package understands. What Set of its options
// is given goes to log.
func sample(log *[]string) *Command {
	json := &BoolFlag{Name: "json", Aliases: []string{"j"}}
	return &Command{
		Name: "m", Version: "1",
		Flags: []Flag{&StringFlag{Name: "socket", EnvVars: []string{"CLI_TEST_SOCKET"}, Value: "default"}},
		Subcommands: []*Command{
			{Name: "call", ArgsUsage: "HOST [PORT]", Flags: []Flag{
				&StringFlag{Name: "opaque"}, &StringSliceFlag{Name: "to", Value: []string{"a", "b"}}, &IntFlag{Name: "number", Value: 3, EnvVars: []string{"CLI_TEST_NUMBER"}},
				&Uint64Flag{Name: "size", Value: 4}, &GenericFlag{Name: "wait", Value: &logged{log, "wait", "1m0s"}}, &GenericFlag{Name: "way", Value: &way{logged{log, "way", ""}}}, json,
			}},
			{Name: "list", Flags: []Flag{json}, Subcommands: []*Command{{Name: "adopt", ArgsUsage: "KEY", Flags: []Flag{&BoolFlag{Name: "version"}}}}},
			{Name: "stop"},
		},
	}
}

// logged is a value that keeps what it was given.
type logged struct {
	log        *[]string
	name, text string
}

func (v *logged) Set(text string) error {
	if text == "never" {
		return errors.New("expected another one")
	}
	*v.log = append(*v.log, v.name+"="+text)
	v.text = text
	return nil
}

func (v *logged) String() string { return v.text }

// way is a switch that may have a value.
type way struct{ logged }

func (*way) IsBoolFlag() bool  { return true }
func (*way) Choices() []string { return []string{"x"} }

// parsed describes a command line that was read: the command, the options, the
// arguments.
func parsed(line string) string {
	var log []string
	c, err := sample(&log).Parse(strings.Fields(line))
	if err != nil {
		return err.Error()
	}
	switch c.Asked {
	case Help:
		return "help of " + c.FullName()
	case Version:
		return "version"
	}
	out := []string{c.FullName()}
	for _, command := range c.Path() {
		for _, f := range command.Flags {
			if name := f.Describe().Names[0]; f.IsSet() {
				out = append(out, fmt.Sprintf("%s=%v", name, c.flag(name).get()))
			}
		}
	}
	return strings.Join(append(out, fmt.Sprintf("%q", c.Args().Slice())), " ")
}

func TestParse(t *testing.T) {
	for line, want := range map[string]string{
		"call nms 4334":                      `m call ["nms" "4334"]`,
		"call nms 4334 --opaque x --json":    `m call opaque=x json=true ["nms" "4334"]`,
		"call nms -opaque=x 4334":            `m call opaque=x ["nms" "4334"]`,
		"--socket s call nms --opaque -x":    `m call socket=s opaque=-x ["nms"]`,
		"call --opaque ssh -- -nms --json":   `m call opaque=ssh ["-nms" "--json"]`,
		"call x -- y --json":                 `m call ["x" "y" "--json"]`,
		"--socket call call nms -j":          `m call socket=call json=true ["nms"]`,
		"call nms --socket s -j=false":       `m call socket=s json=false ["nms"]`,
		"call - nms":                         `m call ["-" "nms"]`,
		"call call list":                     `m call ["call" "list"]`,
		"call help":                          `m call ["help"]`,
		"call nms --to x --to y,z":           `m call to=[x y,z] ["nms"]`,
		"call --number 0x10 --size 7":        `m call number=16 size=7 []`,
		"-- call nms":                        `m ["call" "nms"]`,
		"nonesuch call --json":               `m ["nonesuch" "call" "--json"]`,
		"list nonesuch --json":               `m list ["nonesuch" "--json"]`,
		"list --json adopt K":                `m list adopt json=true ["K"]`,
		"list adopt --version K":             `m list adopt version=true ["K"]`,
		"":                                   "m []",
		"help":                               "help of m",
		"-h":                                 "help of m",
		"help list adopt":                    "help of m list adopt",
		"list help adopt":                    "help of m list adopt",
		"call nms --number x --help":         "help of m call",
		"call --bad x --help":                "help of m call",
		"call --bad x -- --help":             `unknown option "--bad"`,
		"-v":                                 "version",
		"stop --version":                     "version",
		"stop -v":                            `unknown option "-v"`,
		"call nms --socket":                  "--socket needs a value",
		"call nms -opaque":                   "-opaque needs a value",
		"call --json --opaqe=x":              `unknown option "--opaqe"`,
		"call --number x":                    `--number "x": expected a number`,
		"call --size -1":                     `--size "-1": expected a number`,
		"call --number 99999999999999999999": `--number "99999999999999999999": the number is out of range`,
		"call --json=x":                      `--json "x": expected true or false`,
		"call --wait never":                  `--wait "never": expected another one`,
		"--socket":                           "--socket needs a value",
		"--=x":                               `unknown option "--"`,
	} {
		if got := parsed(line); got != want {
			t.Errorf("%s: got %s\nwant %s", line, got, want)
		}
	}
}

func TestValuesAreSetInTheOrderOfTheLine(t *testing.T) {
	var log []string
	c, err := sample(&log).Parse(strings.Fields("call --way --wait 3s nms --way=x --wait 5s"))
	if want := []string{"way=true", "wait=3s", "way=x", "wait=5s"}; err != nil || !slices.Equal(log, want) {
		t.Errorf("%v, %q, want %q", err, log, want)
	}
	if c.Duration("wait") != 5*time.Second || c.String("wait") != "5s" || c.Args().First() != "nms" || c.NArg() != 1 {
		t.Errorf("got %v, %q", c.Duration("wait"), c.Args())
	}
}

func TestNothingIsSetWhereHelpIsAskedFor(t *testing.T) {
	var log []string
	app := sample(&log)
	if c, err := app.Parse(strings.Fields("call --wait 3s --help")); err != nil || c.Asked != Help || log != nil {
		t.Errorf("%v, %v, %q", err, c.Asked, log)
	}
}

func TestDefaultsAndTheEnvironment(t *testing.T) {
	var log []string
	check := func(want string, args ...string) {
		t.Helper()
		c, err := sample(&log).Parse(append([]string{"call"}, args...))
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprintf("%s %v %q %d %d %v %v %q", c.String("socket"), c.IsSet("socket"), c.StringSlice("to"), c.Int("number"), c.Uint64("size"), c.Duration("wait"), c.Bool("json"), c.String("none"))
		}
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	check(`default false ["a" "b"] 3 4 1m0s false ""`)
	t.Setenv("CLI_TEST_SOCKET", "")
	check(`default false ["a" "b"] 3 4 1m0s false ""`)
	t.Setenv("CLI_TEST_SOCKET", "s")
	t.Setenv("CLI_TEST_NUMBER", "8")
	check(`s true ["a" "b"] 8 4 1m0s false ""`)
	check(`x true ["a" "b"] 8 4 1m0s false ""`, "--socket", "x")
	t.Setenv("CLI_TEST_NUMBER", "y")
	check(`CLI_TEST_NUMBER "y": expected a number`)
	check(`s true ["a" "b"] 5 4 1m0s false ""`, "--number", "5")
}

// A program without commands, as callhome-trigger: after the first argument all is data.
func TestOptionsFirst(t *testing.T) {
	for line, want := range map[string]string{
		"--opaque x nms 4334 --opaque -- --help": `x ["nms" "4334" "--opaque" "--" "--help"]`,
		"help":                                   "help",
		"help 4334":                              ` ["help" "4334"]`,
		"--help nms":                             "help",
		"--bad nms --help":                       `unknown option "--bad"`,
		"-- --help":                              ` ["--help"]`,
	} {
		app := &Command{Name: "p", ArgsUsage: "HOST", OptionsFirst: true, Flags: []Flag{&StringFlag{Name: "opaque"}}}
		c, err := app.Parse(strings.Fields(line))
		got := ""
		switch {
		case err != nil:
			got = err.Error()
		case c.Asked == Help:
			got = "help"
		default:
			got = fmt.Sprintf("%s %q", c.String("opaque"), c.Args())
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", line, got, want)
		}
	}
}

func TestDescribe(t *testing.T) {
	var log []string
	var got []string
	for _, f := range sample(&log).Named("call").Flags {
		d := f.Describe()
		got = append(got, fmt.Sprintf("%s %q %v %v %s", strings.Join(d.Names, "/"), d.Default, d.Switch, d.List, d.Choices))
	}
	want := []string{`opaque "" false false []`, `to "a, b" false true []`, `number "3" false false []`, `size "4" false false []`,
		`wait "1m0s" false false []`, `way "" true false [x]`, `json/j "" true false []`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, line := range []string{"call nms 4334 --json", "--socket s help list adopt", "call --way=x -- -y", "list --bad --help", "--=", "-"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var log []string
		args := strings.Split(line, " ")
		c, err := sample(&log).Parse(args)
		if c == nil || err == nil && len(c.Args()) > len(args) {
			t.Errorf("%q: %v, %v", args, c, err)
		}
	})
}
