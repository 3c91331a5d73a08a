package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"callhome/internal/nms/netconf"
)

// Lines is the input of commands: a terminal with history, or a file. Its end is
// io.EOF.
type Lines interface {
	ReadLine(prompt string) (string, error)
}

// Continued is the prompt for a further line of XML.
const Continued = "... "

// Interact runs the requests, and then one command per line, until the input, the
// session or ctx ends. A line that begins with "<" is XML; further lines belong to it
// until its elements are whole, or to an empty line. A command that fails is reported
// with c.Warn, and the session stays open.
func (c *Console) Interact(ctx context.Context, s *netconf.Session, requests []*Request, in Lines, name string) error {
	if _, err := c.doAll(ctx, s, requests); err != nil {
		return err
	}
	for {
		line, err := in.ReadLine(name + "> ")
		line = strings.TrimSpace(line)
		switch {
		case errors.Is(err, io.EOF) && line == "":
			c.close(s)
			return c.writeError()
		case err != nil && !errors.Is(err, io.EOF):
			return fmt.Errorf("reading a command: %w", err)
		}
		closed := false
		if _, builtin := builtins[line]; line != "" && !builtin {
			name, err := c.command(ctx, s, in, line)
			if err != nil {
				c.Warn(err.Error())
			}
			closed = name == "close-session" && err == nil
		}
		switch builtins[line] {
		case "help":
			c.print(c.PrintHelp)
		case "quit":
			c.close(s)
			return c.writeError()
		}
		if closed {
			return c.writeError()
		}
		select {
		case <-s.Ended():
			return broken(s.Err())
		case <-ctx.Done():
			return nil
		default:
		}
		if err := c.writeError(); err != nil {
			return err
		}
	}
}

// builtins are the commands that are not operations, by all their names.
var builtins = map[string]string{"help": "help", "?": "help", "quit": "quit", "exit": "quit"}

// command runs the command of a line and returns the operation's name.
func (c *Console) command(ctx context.Context, s *netconf.Session, in Lines, line string) (string, error) {
	if strings.HasPrefix(line, "<") {
		name, operation, err := document(in, line)
		if err != nil {
			return "", err
		}
		return name, c.send(ctx, s, Printable(name), operation)
	}
	r, err := parseLine(line)
	if err != nil {
		return "", err
	}
	return r.Operation.Name, c.do(ctx, s, r)
}

// document reads lines until the elements are whole; name is that of the operation.
func document(in Lines, text string) (name, content string, err error) {
	for {
		content, _, err := netconf.Content([]byte(text))
		if err == nil || !netconf.Unfinished(err) {
			return netconf.OperationName(content), string(content), err
		}
		line, end := in.ReadLine(Continued)
		if end != nil || line == "" {
			return "", "", err
		}
		text += "\n" + line
	}
}
