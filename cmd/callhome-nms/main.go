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

	"callhome/internal/nms/console"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// version is set by the linker (Makefile).
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Args))
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
	err := app.RunContext(ctx, args)
	if err == nil {
		return sysexits.OK
	}
	say(oneLine(err))
	return sysexits.Code(err)
}

func commands() []*cli.Command {
	list := []*cli.Command{
		acceptCommand(),
		consoleCommand(),
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
