package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"callhome/internal/nms/console"
	"callhome/internal/nms/netconf"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

func consoleCommand() *cli.Command {
	script := &console.Script{}
	where := &words{}
	flags := append(reachFlags(where), sessionFlags()...)
	for _, f := range script.Flags() {
		flags = append(flags, scriptFlag{&cli.GenericFlag{Name: f.Name, Value: f, Category: "operations, in their order, each with its options behind it"},
			strings.TrimSpace("--"+f.Name+" "+f.Word) + "\t" + f.Usage})
	}
	return &cli.Command{
		Name:   "console",
		Usage:  "be a NETCONF client, on a call home or on a connection of its own",
		Flags:  flags,
		Action: func(c *cli.Context) error { return runConsole(c, script, where) },
	}
}

// scriptFlag has words of its own in --help: the library would have a value
// follow each.
type scriptFlag struct {
	*cli.GenericFlag
	help string
}

func (f scriptFlag) String() string { return f.help }

func sessionFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "read operations from the terminal, or from standard input"},
		&cli.StringFlag{Name: "outputStyle", Aliases: []string{"s"}, Value: string(console.Pretty), Usage: "`STYLE` of XML: pretty, plain (as it came), raw (with the hello)"},
		&cli.StringFlag{Name: "version", Aliases: []string{"v"}, Usage: "offer this base `VERSION` alone: 1.0 or 1.1"},
		&cli.DurationFlag{Name: "timeout", Usage: "how `long` to wait for the call, for each reply, and for notifications; 0 for ever"},
	}
}

// words is a flag that can stand alone, and with a word several times.
type words struct {
	given bool
	list  []string
}

func (w *words) Set(s string) error {
	w.given = true
	if s != "true" {
		w.list = append(w.list, s)
	}
	return nil
}

func (w *words) String() string { return "" }

func (w *words) IsBoolFlag() bool { return true }

func runConsole(c *cli.Context, script *console.Script, where *words) error {
	if c.Args().Present() {
		return program.Usage(fmt.Errorf("unexpected argument %q", c.Args().First()))
	}
	requests, err := script.Requests()
	if err == nil && len(requests) == 0 && !c.Bool("interactive") {
		err = program.Usage(errors.New("no operation given, and no --interactive"))
	}
	if err != nil {
		return err
	}
	options := netconf.Options{}
	switch v := netconf.Framing(c.String("version")); v {
	case "":
	case netconf.EndOfMessage, netconf.Chunked:
		options.Versions = []netconf.Framing{v}
	default:
		return program.Usage(fmt.Errorf("there is no base version %q", v))
	}
	style, err := console.ParseStyle(c.String("outputStyle"))
	if err != nil {
		return err
	}
	con := console.New(os.Stdout, style)
	con.IsTerminal = term.IsTerminal(int(os.Stdout.Fd()))
	con.Timeout = c.Duration("timeout")
	con.Warn = say
	var lines console.Lines
	if c.Bool("interactive") {
		lines = input(con)
	}
	options.Notification = con.Notification

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
		return sysexits.New(sysexits.Protocol, "the netconf subsystem may not be there, or wait for a server that is not", errors.New("exchanging hellos: the device did not answer in time"))
	case errors.Is(err, context.Canceled):
		return sysexits.New(sysexits.Unavailable, "", errors.New("exchanging hellos: interrupted"))
	}
	return sysexits.New(sysexits.Protocol, "the device's netconf subsystem may be none, or not let this user in", err)
}

// input reads commands from the terminal, with editing and history, or from
// standard input where that is none.
func input(con *console.Console) console.Lines {
	in, out := int(os.Stdin.Fd()), int(os.Stdout.Fd())
	if !term.IsTerminal(in) || !term.IsTerminal(out) {
		return &plainLines{bufio.NewReader(os.Stdin)}
	}
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{os.Stdin, os.Stdout}, "")
	con.Out = t // so that a notification does not break into the line being typed
	return &editedLines{t, in}
}

// editedLines is a terminal. It is in raw mode only while a line is read, so
// that at other times the interrupt key interrupts.
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
	return e.terminal.ReadLine()
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
