package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"callhome/internal/cmdline"
	"callhome/internal/nms/console"
	"callhome/internal/nms/netconf"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

func consoleCommand() *cli.Command {
	script := &console.Script{}
	where := &addresses{}
	flags := append(reachFlags(where), sessionFlags()...)
	for _, f := range script.Flags() {
		flags = append(flags, &cli.GenericFlag{Name: f.Name, Value: f, Usage: f.Help(), Hidden: f.Hidden, Category: "operations, run in their order; the options of each follow it"})
	}
	return &cli.Command{
		Name:      "console",
		ArgsUsage: "[FILE]",
		Usage:     "run NETCONF operations on a device that calls home, or that it connects to; FILE has whole <rpc> messages",
		Flags:     flags,
		Action:    func(c *cli.Context) error { return runConsole(c, script, where) },
	}
}

func sessionFlags() []cli.Flag {
	style := cmdline.ChoiceFlag("outputStyle", string(console.Pretty), "print XML in `STYLE` pretty, plain (as received) or raw (with the hello)",
		string(console.Pretty), string(console.Plain), string(console.Raw), "all")
	style.Aliases = []string{"s"}
	return []cli.Flag{
		&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "read operations from the terminal, or from standard input"},
		style,
		&cli.GenericFlag{Name: "version", Aliases: []string{"v"}, Value: &baseVersion{}, Usage: "offer base `[VERSION]` 1.0 or 1.1 only; without VERSION, print the version of callhome-nms"},
		&cli.IntFlag{Name: "iter", Value: 1, Usage: "send the operations `COUNT` times"},
		&cli.BoolFlag{Name: "debug", Aliases: []string{"d"}, Usage: "print each message that is sent or received on standard error, on one line"},
		cmdline.DurationFlag("timeout", 0, "give up after `TIME` without a call home, a reply or a notification; 0 for no limit"),
	}
}

// baseVersion is --version: with a version of the base protocol as netconf-console's,
// without one as every program's.
type baseVersion struct {
	asked   bool
	offered []netconf.Framing
}

func (v *baseVersion) Set(s string) error {
	switch {
	case s == "true":
		v.asked = true
	case slices.Contains(v.Choices(), s):
		v.offered = []netconf.Framing{netconf.Framing(s)}
	default:
		return fmt.Errorf("expected %s", cmdline.Or(v.Choices()))
	}
	return nil
}

func (v *baseVersion) String() string { return "" }

func (v *baseVersion) IsBoolFlag() bool { return true }

// Choices returns the values that completion lists.
func (v *baseVersion) Choices() []string {
	return []string{string(netconf.EndOfMessage), string(netconf.Chunked)}
}

// addresses is a flag that may come without a value, or several times with one.
type addresses struct {
	given bool
	list  []string
}

func (w *addresses) Set(s string) error {
	w.given = true
	if s != "true" {
		w.list = append(w.list, s)
	}
	return nil
}

func (w *addresses) String() string { return "" }

func (w *addresses) IsBoolFlag() bool { return true }

func runConsole(c *cli.Context, script *console.Script, where *addresses) error {
	if c.Generic("version").(*baseVersion).asked {
		return cmdline.PrintVersion(c)
	}
	if c.NArg() > 1 {
		return program.Usage(fmt.Errorf("unexpected argument %q", c.Args().Get(1)))
	}
	if c.Int("iter") < 1 {
		return program.Usage(fmt.Errorf("--iter %d: expected a number above 0", c.Int("iter")))
	}
	script.File = c.Args().First()
	requests, err := script.Requests()
	if err == nil && len(requests) == 0 && !c.Bool("interactive") {
		err = program.Usage(errors.New("no operation given; expected one, or --interactive"))
	}
	if err != nil {
		return err
	}
	options := netconf.Options{Versions: c.Generic("version").(*baseVersion).offered}
	style, err := console.ParseStyle(c.String("outputStyle"))
	if err != nil {
		return err
	}
	// A device chooses the length of a reply. With Go's default of 100 the memory for one
	// is up to 5.5 times its length, with 10 below 4 times.
	debug.SetGCPercent(10)
	con := console.New(os.Stdout, style)
	con.IsTerminal = term.IsTerminal(int(os.Stdout.Fd()))
	con.Timeout, con.Iterations = c.Duration("timeout"), c.Int("iter")
	con.Warn, con.PrintHelp = report, func(w io.Writer) { cmdline.PrintList(w, console.Help()) }
	var lines console.Lines
	if c.Bool("interactive") {
		lines = input(con)
	}
	options.Notification = con.Notification
	if c.Bool("debug") {
		options.Trace = func(direction string, message []byte) {
			report(fmt.Sprintf("%s %d bytes: %s", direction, len(message), console.Printable(string(message))))
		}
	}

	r, err := reach(c, where)
	if err != nil {
		return err
	}
	defer r.close()
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("login-timeout"))
	defer cancel()
	session, err := netconf.Open(ctx, r.stream, options)
	if err != nil {
		return helloFailed(err)
	}
	defer session.Close()
	if lines != nil {
		return con.Interact(c.Context, session, requests, lines, r.name)
	}
	return con.Run(c.Context, session, requests)
}

func helloFailed(err error) error {
	var daemon *proto.Error
	switch {
	case errors.As(err, &daemon):
		return withExit(daemon)
	case errors.Is(err, context.DeadlineExceeded):
		return sysexits.New(sysexits.Protocol, "check on the device that its netconf subsystem starts and its NETCONF server runs", errors.New("exchanging hellos: the device did not answer in time"))
	case errors.Is(err, context.Canceled):
		return sysexits.New(sysexits.Unavailable, "", errors.New("exchanging hellos: interrupted"))
	}
	return sysexits.New(sysexits.Protocol, "check on the device that its netconf subsystem is a NETCONF server and permits this user", err)
}

// input reads commands from the terminal, with editing and history, or from a
// standard input that is not a terminal.
func input(con *console.Console) console.Lines {
	in, out := int(os.Stdin.Fd()), int(os.Stdout.Fd())
	if !term.IsTerminal(in) || !term.IsTerminal(out) {
		return &plainLines{bufio.NewReader(os.Stdin)}
	}
	e := &editedLines{newTerminal(os.Stdin, os.Stdout), in}
	con.Out = e.terminal // so that a notification does not overwrite the line being typed
	return e
}

func newTerminal(in io.Reader, out io.Writer) *term.Terminal {
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{&keys{in}, out}, "")
	t.History = &history{t.History}
	return t
}

// editedLines reads from a terminal. The terminal is in raw mode only while a line
// is read: at other times the interrupt key sends SIGINT.
type editedLines struct {
	terminal *term.Terminal
	fd       int
}

func (e *editedLines) ReadLine(prompt string) (string, error) {
	state, err := term.MakeRaw(e.fd)
	if err != nil {
		return "", err
	}
	defer func() { _ = term.Restore(e.fd, state) }()
	if width, height, err := term.GetSize(e.fd); err == nil && width > 0 {
		_ = e.terminal.SetSize(width, height)
	}
	e.terminal.SetPrompt(prompt)
	e.terminal.AutoCompleteCallback = e.key
	if prompt == console.Continued {
		e.terminal.AutoCompleteCallback = clearLine // a tab indents XML
	}
	return e.terminal.ReadLine()
}

// clearKey is the key that clears the line, ^\, which keys puts in place of ^C: for
// the library ^C is the end of the input.
const (
	clearKey     = 0x1c
	interruptKey = 3
)

type keys struct{ in io.Reader }

func (k *keys) Read(p []byte) (int, error) {
	n, err := k.in.Read(p)
	for i, b := range p[:n] {
		if b == interruptKey {
			p[i] = clearKey
		}
	}
	return n, err
}

// history has no empty lines.
type history struct{ term.History }

func (h *history) Add(line string) {
	if line != "" {
		h.History.Add(line)
	}
}

func clearLine(_ string, _ int, key rune) (string, int, bool) { return "", 0, key == clearKey }

// key handles the keys that the library does not know: TAB completes the word before
// the cursor, or lists what it may be.
func (e *editedLines) key(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' {
		return clearLine(line, pos, key)
	}
	begin, words := console.Complete(line[:pos])
	if len(words) == 0 {
		return line, pos, true
	}
	word := common(words)
	switch {
	case len(words) == 1 && !strings.HasSuffix(word, "/"):
		word += " "
	case word == line[begin:pos]:
		fmt.Fprintln(e.terminal, console.Tame(strings.Join(words, "  ")))
	}
	return line[:begin] + word + line[pos:], begin + len(word), true
}

// common returns the longest beginning of all words.
func common(words []string) string {
	first := words[0]
	for _, w := range words[1:] {
		n := 0
		for n < min(len(first), len(w)) && first[n] == w[n] {
			n++
		}
		first = first[:n]
	}
	return strings.ToValidUTF8(first, "")
}

type plainLines struct{ *bufio.Reader }

func (p *plainLines) ReadLine(string) (string, error) {
	line, err := p.ReadString('\n')
	if err == io.EOF && line != "" {
		err = nil
	}
	return trimEnd(line), err
}

func trimEnd(line string) string {
	for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
		line = line[:len(line)-1]
	}
	return line
}
