package cmdline

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
)

// sample is a program with all that the package understands.
func sample(action func(*cli.Context)) *cli.App {
	do := func(c *cli.Context) error { action(c); return nil }
	return &cli.App{
		Name: "p", Usage: "be a sample with a text that is longer than one line of a terminal, which is wrapped at its words", Version: "1",
		Flags: []cli.Flag{&cli.StringFlag{Name: "socket", Usage: "call the daemon at `SOCKET`", EnvVars: []string{"P_SOCKET"}, Value: "/run/p/p.sock"}},
		Commands: []*cli.Command{
			{Name: "show", ArgsUsage: "DEVICE [FILE]", Usage: "show a device", Action: do, Flags: []cli.Flag{
				DurationFlag("time", 3*time.Second, "wait for `TIME`"),
				ChoiceFlag("style", "plain", "print in `STYLE` plain or pretty, which is one of the two styles that there are", "plain", "pretty"),
				&cli.BoolFlag{Name: "json", Aliases: []string{"j"}, Usage: "print JSON"},
				&cli.IntFlag{Name: "number", Usage: "show `NUMBER` of them"},
				&cli.StringSliceFlag{Name: "a-very-long-option-with", Usage: "a `VALUE`"},
				&cli.StringFlag{Name: "hidden", Hidden: true},
			}},
			{Name: "list", Usage: "list them", Action: do, Subcommands: []*cli.Command{
				{Name: "adopt", ArgsUsage: "KEY", Usage: "adopt one", Action: do}, {Name: "remove", Usage: "remove one", Action: do},
			}},
			{Name: "stop", Usage: "stop it", Action: do},
		},
	}
}

var p = Program{Hint: "p COMMAND --help lists the options", Nouns: map[string]func(Line) []string{
	"DEVICE": func(l Line) []string { return []string{"edge7", "at:" + l.Option("socket", "default")} },
}}

func runSample(line string, action func(*cli.Context)) (string, error) {
	app := sample(action)
	var out bytes.Buffer
	app.Writer = &out
	err := p.Run(context.Background(), app, strings.Fields("p "+line))
	return out.String(), err
}

func TestErrorsNameTheOptionAsTyped(t *testing.T) {
	for line, want := range map[string]string{
		"":                                  "no command given; p COMMAND --help lists the options",
		"shwo":                              `unknown command "shwo"; did you mean "show"?`,
		"hlep":                              `unknown command "hlep"; did you mean "help"?`,
		"xyz":                               `unknown command "xyz"; p COMMAND --help lists the options`,
		"list adpot":                        `unknown command "adpot" of list; did you mean "adopt"?`,
		"--sokcet x stop":                   `unknown option "--sokcet"; did you mean "--socket"?`,
		"show --stlye=x":                    `unknown option "--stlye"; did you mean "--style"?`,
		"show e -stlye":                     `unknown option "-stlye"; did you mean "--style"?`,
		"show --hiden x":                    `unknown option "--hiden"; p COMMAND --help lists the options`,
		"show e --time":                     "--time needs a value; p COMMAND --help lists the options",
		"show --time soon":                  `--time "soon": expected a time such as 30, 500ms or 1m30s; p COMMAND --help lists the options`,
		"show --time=-1s":                   `--time "-1s": expected a time such as 30, 500ms or 1m30s; p COMMAND --help lists the options`,
		"show -time -3":                     `-time "-3": expected a time such as 30, 500ms or 1m30s; p COMMAND --help lists the options`,
		"show --style prety":                `--style "prety": expected plain or pretty; p COMMAND --help lists the options`,
		"show --number x":                   `--number "x": expected a number; p COMMAND --help lists the options`,
		"show --number 9999999999999999999": `--number "9999999999999999999": the number is out of range; p COMMAND --help lists the options`,
		"show -j=x":                         `-j "x": expected true or false; p COMMAND --help lists the options`,
		"stop now":                          `stop: unexpected argument "now"; p COMMAND --help lists the options`,
		"list remove x":                     `remove: unexpected argument "x"; p COMMAND --help lists the options`,
		"stop help":                         `stop: unexpected argument "help"; p COMMAND --help lists the options`,
	} {
		_, err := runSample(line, func(*cli.Context) { t.Errorf("%s: run", line) })
		if err == nil || OneLine(err) != want || sysexits.Code(err) != sysexits.Usage {
			t.Errorf("%s: %v\nwant %s", line, err, want)
		}
	}
}

func TestANumberIsSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{"30": 30 * time.Second, "1.5": 1500 * time.Millisecond, "0": 0, "500ms": 500 * time.Millisecond, "1m30s": 90 * time.Second} {
		ran := false
		_, err := runSample("show e --time "+text, func(c *cli.Context) {
			ran = true
			if got := c.Duration("time"); got != want {
				t.Errorf("%s is %v", text, got)
			}
		})
		if err != nil || !ran {
			t.Error(text, ran, err)
		}
	}
	_, _ = runSample("show e", func(c *cli.Context) {
		if c.Duration("time") != 3*time.Second || c.String("style") != "plain" || c.IsSet("time") {
			t.Errorf("the defaults are %v and %q", c.Duration("time"), c.String("style"))
		}
	})
}

func TestHelpAndVersionAreEverywhere(t *testing.T) {
	for line, want := range map[string]string{
		"help": "\nCOMMANDS:\n   show  show a device\n", "--help": "\nGLOBAL OPTIONS:\n", "-h": "\nCOMMANDS:\n",
		"help show": "p show [options] DEVICE [FILE]", "show --help": "p show [options]", "show e7 --help": "p show [options]", "show -h e7": "p show [options]",
		"help list adopt": "p list adopt [options] KEY", "list help adopt": "p list adopt [options] KEY", "list help": "p list [options] [COMMAND]",
		"--version": "p version 1\n", "-v": "p version 1\n", "stop --version": "p version 1\n", "show e7 --version": "p version 1\n", "list adopt --version": "p version 1\n",
	} {
		out, err := runSample(line, func(*cli.Context) { t.Errorf("%s: run", line) })
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	for _, line := range []string{"show help", "show h", "show -- --help", "show --socket"} {
		ran := false
		if _, err := runSample(line, func(c *cli.Context) { ran = c.Args().First() != "" }); !ran && err == nil {
			t.Errorf("%s: the argument was not one", line)
		}
	}
}

func TestHelpIsWrapped(t *testing.T) {
	for _, line := range []string{"--help", "show --help", "list --help", "list adopt --help"} {
		out, err := runSample(line, nil)
		if err != nil {
			t.Fatal(err)
		}
		for text := range strings.Lines(out) {
			if n := utf8.RuneCountInString(strings.TrimRight(text, "\n")); n > helpWidth || strings.ContainsAny(text, "`\x1b\t") {
				t.Errorf("%s: a line of %d: %q", line, n, text)
			}
		}
	}
	out, _ := runSample("show --help", nil)
	for _, want := range []string{
		"   --time TIME      wait for TIME (default: 3s)\n",
		"   --style STYLE    print in STYLE plain or pretty, which is one of the two\n                    styles that there are (default: plain)\n",
		"   --json, -j       print JSON\n", "   --a-very-long-option-with VALUE\n                    a VALUE; repeatable\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}

func TestWrapLosesNothing(t *testing.T) {
	text := "a bb ccc /a/path/that/is/longer/than/a/line dddd\neeeee"
	for width := range 12 {
		lines := wrap(text, width)
		if got := strings.Join(strings.Fields(strings.Join(lines, " ")), " "); got != strings.ReplaceAll(text, "\n", " ") {
			t.Errorf("at %d: %q", width, lines)
		}
	}
}

func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"":                         "show list stop help",
		"sh":                       "show list stop help", // the shell selects
		"list ":                    "adopt remove help",
		"show ":                    "edge7 at:default",
		"--socket /s show ":        "edge7 at:/s",
		"--socket=/s show --json ": "edge7 at:/s",
		"show edge7 ":              ":files",
		"show --json edge7 ":       ":files",
		"show edge7 f ":            "",
		"show --style ":            "plain pretty",
		"show --style p":           "plain pretty",
		"show --style=p":           "--style=plain --style=pretty",
		"show --time ":             "",
		"show -":                   "--time --style --json -j --number --a-very-long-option-with --help",
		"show --json -":            "--time --style --json -j --number --a-very-long-option-with --help",
		"--socket ":                ":files",
		"-":                        "--socket --help",
		"stop ":                    "",
		"nonesuch ":                "show list stop help",
	} {
		words := strings.Split(line, " ")
		app := sample(nil)
		got := p.candidates(app, words[:len(words)-1], words[len(words)-1])
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
		var out bytes.Buffer
		if err := p.complete(&out, app, words); err != nil || out.String() != strings.Join(append(slices.Clone(got), ""), "\n") && len(got) > 0 {
			t.Errorf("%q: %v, printed %q", line, err, out.String())
		}
	}
}

func TestATableFitsTheTerminal(t *testing.T) {
	table := NewTable(Column{Title: "ID", Whole: true}, Column{Title: "CLIENT"}, Column{Title: "SENT", Rank: 1}, Column{Title: "KEY", Rank: 2}, Column{Title: "CAUSE"})
	table.Row(7, "192.0.2.1:4334", "1.0 KiB", strings.Repeat("k", 50), strings.Repeat("cause ", 20))
	table.Row(12, "ä", "", "", "")
	for width := range 250 {
		var out bytes.Buffer
		table.Print(&out, width)
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != 3 || !strings.HasPrefix(lines[1], "7 ") || !strings.HasPrefix(lines[2], "12  ä") {
			t.Fatalf("at %d:\n%s", width, out.String())
		}
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); width >= 20 && n > width {
				t.Errorf("at %d a line of %d: %q", width, n, line)
			}
		}
		for title, least := range map[string]int{"KEY": 140, "SENT": 140, "CAUSE": 20, "CLIENT": 20} {
			if width >= 220 && !strings.Contains(lines[0], title) || width >= 20 && width < least && strings.Contains(lines[0], title) || least == 20 && width > 0 && !strings.Contains(lines[0], title) {
				t.Errorf("at %d: %q", width, lines[0])
			}
		}
	}
}

// What a program reads has no escape sequences, and an empty line between two answers.
func TestWatchWritesNoEscapeSequencesToAPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for args, want := range map[string]string{"--watch": "answer\n\nanswer\n", "--watch --json": "7\n7\n", "": "answer\n"} {
			file, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
			if err != nil {
				t.Fatal(err)
			}
			stdout := os.Stdout
			os.Stdout = file
			ctx, cancel := context.WithCancel(t.Context())
			n := 0
			app := &cli.App{Name: "p", Flags: []cli.Flag{JSONFlag(), WatchFlag()}, Action: func(c *cli.Context) error {
				return Watch(c, func() (any, func(io.Writer), error) {
					if n++; n == 2 {
						cancel()
					}
					return 7, func(w io.Writer) { fmt.Fprintln(w, "answer") }, nil
				})
			}}
			err = p.Run(ctx, app, strings.Fields("p "+args))
			os.Stdout = stdout
			cancel()
			text, readErr := os.ReadFile(file.Name())
			if err != nil || readErr != nil || string(text) != want {
				t.Errorf("%q: %v, %v, %q", args, err, readErr, text)
			}
			file.Close()
		}
	})
}

func TestACellIsCutWhereItSaysLeast(t *testing.T) {
	table := NewTable(Column{Title: "CLIENT"}, Column{Title: "CAUSE", KeepEnd: true})
	table.Row("a-long-name-of-a-client", "connecting to 192.0.2.1 port 4334: refused")
	var out bytes.Buffer
	table.Print(&out, 26)
	if want := "CLIENT        CAUSE\na-long-na...  ...: refused\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestOr(t *testing.T) {
	for want, values := range map[string][]string{"": nil, "a": {"a"}, "a or b": {"a", "b"}, "a, b or c": {"a", "b", "c"}} {
		if got := Or(values); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestCountAgrees(t *testing.T) {
	for want, n := range map[string]int{"0 calls": 0, "1 call": 1, "2 calls": 2} {
		if got := Count(n, "call"); got != want {
			t.Error(got)
		}
	}
}
