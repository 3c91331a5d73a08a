package cmdline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// tree is a program with all kinds of options. What Set of its generic options is given
// goes to log.
func tree(log *[]string) *cli.App {
	json := &cli.BoolFlag{Name: "json", Aliases: []string{"j"}}
	return &cli.App{
		Name: "m", Version: "1",
		Flags: []cli.Flag{&cli.StringFlag{Name: "socket", EnvVars: []string{"CMDLINE_TEST_SOCKET"}, Value: "default"}},
		Commands: []*cli.Command{
			{Name: "call", ArgsUsage: "HOST [PORT]", Flags: []cli.Flag{
				&cli.StringFlag{Name: "opaque"}, &cli.StringSliceFlag{Name: "to", Value: cli.NewStringSlice("a", "b")}, &cli.IntFlag{Name: "number", Value: 3, EnvVars: []string{"CMDLINE_TEST_NUMBER"}},
				&cli.Uint64Flag{Name: "size", Value: 4}, &cli.GenericFlag{Name: "wait", Value: &logged{log, "wait", "1m0s"}}, &cli.GenericFlag{Name: "way", Value: &way{logged{log, "way", ""}}}, json,
			}},
			{Name: "list", Flags: []cli.Flag{json}, Subcommands: []*cli.Command{{Name: "adopt", ArgsUsage: "KEY", Flags: []cli.Flag{&cli.BoolFlag{Name: "version"}}}}},
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

// read describes a command line that was read: the command, the options, the arguments.
func read(line string) string {
	var log []string
	p, err := parse(tree(&log), strings.Fields(line))
	if err != nil {
		return err.Error()
	}
	switch p.asked {
	case help:
		return "help of " + p.name()
	case version:
		return "version"
	}
	c, err := p.context(context.Background())
	if err != nil {
		return err.Error()
	}
	out := []string{p.name()}
	for _, command := range p.path {
		for _, f := range command.Flags {
			name := f.Names()[0]
			if !c.IsSet(name) {
				continue
			}
			value := fmt.Sprint(c.Value(name))
			if _, list := f.(*cli.StringSliceFlag); list {
				value = fmt.Sprint(c.StringSlice(name))
			}
			out = append(out, name+"="+value)
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
		if got := read(line); got != want {
			t.Errorf("%s: got %s\nwant %s", line, got, want)
		}
	}
}

func TestValuesAreSetInTheOrderOfTheLine(t *testing.T) {
	var log []string
	p, err := parse(tree(&log), strings.Fields("call --way --wait 3s nms --way=x --wait 5s"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.context(t.Context())
	if want := []string{"way=true", "wait=3s", "way=x", "wait=5s"}; err != nil || !slices.Equal(log, want) {
		t.Fatalf("%v, %q, want %q", err, log, want)
	}
	if c.Duration("wait") != 5*time.Second || c.String("wait") != "5s" || c.Args().First() != "nms" || c.NArg() != 1 {
		t.Errorf("got %v, %q", c.Duration("wait"), c.Args())
	}
}

func TestDefaultsAndTheEnvironment(t *testing.T) {
	var log []string
	check := func(want string, args ...string) {
		t.Helper()
		p, err := parse(tree(&log), append([]string{"call"}, args...))
		if err != nil {
			t.Fatal(err)
		}
		c, err := p.context(t.Context())
		got := fmt.Sprint(err)
		if err == nil {
			got = fmt.Sprintf("%s %v %q %d %d %v %v %q", c.String("socket"), c.IsSet("socket"), c.StringSlice("to"), c.Int("number"), c.Uint64("size"), c.Duration("wait"), c.Bool("json"), c.String("none"))
		}
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	check(`default false ["a" "b"] 3 4 1m0s false ""`)
	t.Setenv("CMDLINE_TEST_SOCKET", "s")
	t.Setenv("CMDLINE_TEST_NUMBER", "8")
	check(`s true ["a" "b"] 8 4 1m0s false ""`)
	check(`x true ["c,d" "e"] 8 4 1m0s true ""`, "--socket", "x", "-j", "--to", "c,d", "--to=e")
	check(`s true ["a" "b"] 5 4 1m0s false ""`, "--number", "5")
	t.Setenv("CMDLINE_TEST_NUMBER", "y")
	check(`could not parse "y" as int value from environment variable "CMDLINE_TEST_NUMBER" for flag number: strconv.ParseInt: parsing "y": invalid syntax`)
}

// A program without commands, as callhome-trigger: after the first argument all is data.
func TestAProgramWithoutCommands(t *testing.T) {
	for line, want := range map[string]string{
		"--opaque x nms 4334 --opaque -- --help": `x ["nms" "4334" "--opaque" "--" "--help"]`,
		"help":                                   "help",
		"help 4334":                              ` ["help" "4334"]`,
		"--help nms":                             "help",
		"--bad nms --help":                       `unknown option "--bad"`,
		"-- --help":                              ` ["--help"]`,
	} {
		p, err := parse(&cli.App{Name: "p", ArgsUsage: "HOST", Flags: []cli.Flag{&cli.StringFlag{Name: "opaque"}}}, strings.Fields(line))
		got := ""
		switch {
		case err != nil:
			got = err.Error()
		case p.asked == help:
			got = "help"
		default:
			c, err := p.context(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got = fmt.Sprintf("%s %q", c.String("opaque"), c.Args().Slice())
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", line, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, line := range []string{"call nms 4334 --json", "--socket s help list adopt", "call --way=x -- -y", "list --bad --help", "--=", "-"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var log []string
		args := strings.Split(line, " ")
		p, err := parse(tree(&log), args)
		if err != nil || p.asked != action {
			return
		}
		if c, err := p.context(t.Context()); err == nil && c.NArg() > len(args) {
			t.Errorf("%q: %q", args, c.Args().Slice())
		}
	})
}
