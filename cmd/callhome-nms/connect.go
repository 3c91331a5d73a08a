package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"callhome/internal/nms/console"
	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/printable"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
)

func connectCommand() *cli.Command {
	return &cli.Command{
		Name: "connect", Usage: "open a netconf channel to a device that the daemon holds, on standard input and output", ArgsUsage: "DEVICE", Action: connect,
		Flags: []cli.Flag{
			socketFlag(),
			&cli.StringFlag{Name: "login-prefix", Usage: "take the device from the login name, behind `WORDS`: for sshd's ForceCommand"},
		},
	}
}

// exitStatus ends the program with that status and nothing more to say.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// signalled is the exit status of ssh for a program that a signal ended.
const signalled = 255

// failed is ours for a status that is not 0 and whose low byte, which is all
// that a program can end with, is.
const failed = 255

// connect is for a NETCONF client what `ssh DEVICE -s netconf` is: bytes both
// ways, the end of the input passed on, the subsystem's exit status.
func connect(c *cli.Context) error {
	device, err := deviceOf(c, os.Getenv)
	if err != nil {
		return err
	}
	s, err := control.Open(c.Context, c.String("socket"), device)
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := s.Join(os.Stdin, os.Stdout)
	passOn(os.Stderr, r)
	if err != nil {
		return withExit(err)
	}
	return exitOf(device, r)
}

// passOn prints what the subsystem said on stderr. Those are the device's words,
// and the reader may be a terminal, or a log that a person reads on one later.
func passOn(w io.Writer, r nmsproto.ConnectResult) { fmt.Fprint(w, console.Tame(r.Stderr)) }

// reachHeld reaches a device through the daemon that holds its connection.
func reachHeld(c *cli.Context, device string) (*reached, error) {
	id, err := checkedID(device)
	if err != nil {
		return nil, err
	}
	s, err := control.Open(c.Context, c.String("socket"), id)
	if err != nil {
		return nil, err
	}
	return &reached{&heldStream{s}, id, func() { s.Close() }}, nil
}

// heldStream ends with the reason that the daemon tells.
type heldStream struct{ *control.Stream }

func (s *heldStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if _, why := s.Wait(); why != nil {
		return n, withExit(why)
	}
	return n, err
}

// exitOf is the program's end for a session's.
func exitOf(device string, r nmsproto.ConnectResult) error {
	switch {
	case r.Signal != "":
		return sysexits.New(signalled, "", fmt.Errorf("the netconf subsystem of %s was ended by SIG%s", device, printable.Quoted(r.Signal)))
	case r.ExitStatus != nil && *r.ExitStatus != 0:
		return exitStatus(cmp.Or(*r.ExitStatus&0xff, failed))
	}
	return nil
}

// deviceOf is the device that is meant: a word, or a part of the name that
// somebody logged in with. sshd sets LOGNAME itself, and the part behind the
// prefix becomes an id or nothing.
func deviceOf(c *cli.Context, env func(string) string) (string, error) {
	prefix := c.String("login-prefix")
	if prefix == "" {
		if c.NArg() != 1 {
			return "", program.Usage(errors.New("expected one DEVICE"))
		}
		return checkedID(c.Args().First())
	}
	if c.Args().Present() {
		return "", program.Usage(errors.New("a device and --login-prefix, expected one of them"))
	}
	id, ok := strings.CutPrefix(env("LOGNAME"), prefix)
	if !ok {
		return "", sysexits.New(sysexits.Usage, "log in as "+prefix+"DEVICE", fmt.Errorf("the login name %q does not begin with %q", printable.Quoted(env("LOGNAME")), prefix))
	}
	return checkedID(id)
}

func checkedID(id string) (string, error) {
	if err := registry.CheckID(id); err != nil {
		return "", program.Usage(err)
	}
	return id, nil
}
