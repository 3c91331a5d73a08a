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
		Name: "connect", Usage: "connect standard input and output to the netconf subsystem of a connected device", ArgsUsage: "DEVICE", Action: connect,
		Flags: []cli.Flag{
			socketFlag(),
			&cli.StringFlag{Name: "login-prefix", Usage: "take the device from the login name after `PREFIX`, which may be empty, for sshd's ForceCommand"},
		},
	}
}

// exitStatus ends the program with that status and without a message.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// signalled is the exit status for a subsystem that a signal ended, as ssh's.
const signalled = 255

// failed is the exit status where the low byte of the subsystem's is 0 and the rest
// is not: a program's exit status has 8 bits.
const failed = 255

// connect does for a NETCONF client what `ssh DEVICE -s netconf` does: it copies
// bytes both ways, passes the end of the input on, and ends with the subsystem's
// exit status.
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

// passOn prints the subsystem's stderr without control characters: it is text of
// the device, and the reader may be a terminal.
func passOn(w io.Writer, r nmsproto.ConnectResult) { fmt.Fprint(w, console.Tame(r.Stderr)) }

// reachHeld opens a channel to a device whose connection the daemon holds.
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

// heldStream returns the daemon's reason at its end.
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

// exitOf returns the exit status for the end of a session.
func exitOf(device string, r nmsproto.ConnectResult) error {
	switch {
	case r.Signal != "":
		return sysexits.New(signalled, "", fmt.Errorf("the netconf subsystem of %s was ended by SIG%s", device, printable.Quoted(r.Signal)))
	case r.ExitStatus != nil && *r.ExitStatus != 0:
		return exitStatus(cmp.Or(*r.ExitStatus&0xff, failed))
	}
	return nil
}

// deviceOf returns the device: the argument, or the part of the login name after
// the prefix. sshd sets LOGNAME; the part is checked as an id.
func deviceOf(c *cli.Context, env func(string) string) (string, error) {
	prefix := c.String("login-prefix")
	if !c.IsSet("login-prefix") {
		if c.NArg() != 1 {
			return "", program.Usage(errors.New("expected one DEVICE"))
		}
		return checkedID(c.Args().First())
	}
	if c.Args().Present() {
		return "", program.Usage(errors.New("expected DEVICE or --login-prefix, got both"))
	}
	id, ok := strings.CutPrefix(env("LOGNAME"), prefix)
	if !ok {
		return "", sysexits.New(sysexits.Usage, "log in as "+prefix+"DEVICE", fmt.Errorf("the login name %q does not begin with %q", env("LOGNAME"), prefix))
	}
	return checkedID(id)
}

func checkedID(id string) (string, error) {
	if err := registry.CheckID(id); err != nil {
		return "", program.Usage(err)
	}
	return id, nil
}
