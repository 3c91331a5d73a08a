// callhome-nms is the management station's side of NETCONF Call Home: it takes
// the calls of devices and gives them to stock ssh, to a console, or to whoever
// asks. This file owns the command table; what a command does is in the file of
// its name, and its work is that of the packages below internal/nms.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"callhome/internal/nms/console"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// version is set by the linker (Makefile).
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), endings(os.Args)...)
	defer stop()
	os.Exit(run(ctx, os.Args))
}

// endings are the signals that end a command; a daemon reads its registry again
// when it is hung up on.
func endings(args []string) []os.Signal {
	if len(args) > 1 && args[1] == "serve" {
		return []os.Signal{unix.SIGINT, unix.SIGTERM}
	}
	return []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP}
}

func run(ctx context.Context, args []string) int {
	app := &cli.App{
		Name:                      "callhome-nms",
		Usage:                     "take NETCONF SSH call homes (RFC 8071)",
		HideHelpCommand:           true,
		HideVersion:               true,
		EnableBashCompletion:      true,
		DisableSliceFlagSeparator: true,
		Commands:                  commands(),
		OnUsageError:              usageError,
		ExitErrHandler:            func(*cli.Context, error) {},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usage(fmt.Errorf("there is no command %q", c.Args().First()))
			}
			return usage(errors.New("no command given"))
		},
	}
	if at := slices.Index(args, "console"); at > 0 {
		args = append(args[:at+1:at+1], console.Join(args[at+1:], "--listen")...)
	}
	err := app.RunContext(ctx, wordLast(args))
	var status exitStatus
	switch {
	case err == nil:
		return sysexits.OK
	case errors.As(err, &status):
		return int(status)
	}
	say(oneLine(err))
	return sysexits.Code(err)
}

// wordLast puts the one word of a command behind its flags, as the parser wants
// it and people do not write it: `devices adopt FINGERPRINT --id ID`.
func wordLast(args []string) []string {
	if len(args) > 0 && args[len(args)-1] == "--generate-bash-completion" {
		return args // it has to stay the last
	}
	for _, command := range [][]string{{"connect"}, {"devices", "adopt"}} {
		at := 1 + len(command)
		if len(args) > at+1 && slices.Equal(args[1:at], command) && !strings.HasPrefix(args[at], "-") {
			return slices.Concat(args[:at], args[at+1:], args[at:at+1])
		}
	}
	return args
}

func commands() []*cli.Command {
	list := []*cli.Command{
		acceptCommand(),
		consoleCommand(),
		serveCommand(),
		devicesCommand(),
		connectCommand(),
		eventsCommand(),
		statusCommand(),
		{Name: "version", Usage: "print the version", Action: func(*cli.Context) error {
			fmt.Println("callhome-nms", version)
			return nil
		}},
	}
	for _, c := range list {
		c.OnUsageError = usageError
	}
	return list
}

func usageError(_ *cli.Context, err error, _ bool) error {
	if sysexits.Code(err) == sysexits.Usage {
		return err
	}
	return usage(err)
}

func usage(err error) error {
	return sysexits.New(sysexits.Usage, "callhome-nms COMMAND --help lists the options", err)
}

// oneLine is what a person reads of an error.
func oneLine(err error) string {
	line := err.Error()
	if hint := sysexits.Hint(err); hint != "" {
		line += "; " + hint
	}
	return line
}

// say writes one line to standard error, whatever words of others are in it.
func say(line string) { fmt.Fprintln(os.Stderr, "callhome-nms: "+console.Printable(line)) }
