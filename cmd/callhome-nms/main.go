// callhome-nms is the management station's program for NETCONF Call Home: it
// accepts the call homes of devices, and passes them to ssh, to a console, or to
// API clients at its sockets. This file owns the command table. The file of a
// command's name wires it; the work is done by the packages below internal/nms.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"callhome/internal/cmdline"
	"callhome/internal/nms/console"
	"callhome/internal/nms/nmsproto"
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

// endings are the signals that end a command. On SIGHUP the daemon reads its
// registry again instead.
func endings(args []string) []os.Signal {
	if len(args) > 1 && args[1] == "serve" {
		return []os.Signal{unix.SIGINT, unix.SIGTERM}
	}
	return []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP}
}

var program = cmdline.Program{
	Hint: "callhome-nms COMMAND --help lists the options",
	Nouns: map[string]func(cmdline.Line) []string{
		"DEVICE": deviceIDs, "HOST-KEY": unknownKeys, "DEVICE-OR-KEY": revocable, "REVOKED-KEY": revokedKeys, "DB": func(cmdline.Line) []string { return console.Datastores },
		"EVENT": func(cmdline.Line) []string { return nmsproto.Events },
	},
}

func run(ctx context.Context, args []string) int {
	if len(args) > 1 && args[1] == "console" { // the order of its options counts
		args = append(args[:2:2], console.Join(args[2:], "--listen", "--version", "-v")...)
	}
	err := program.Run(ctx, newApp(), args)
	var status exitStatus
	switch {
	case err == nil:
		return sysexits.OK
	case errors.As(err, &status):
		return int(status)
	}
	report(cmdline.OneLine(err))
	return sysexits.Code(err)
}

func newApp() *cli.App {
	return &cli.App{
		Name:     "callhome-nms",
		Usage:    "accept NETCONF SSH call homes (RFC 8071)",
		Version:  version,
		Commands: commands(),
	}
}

func commands() []*cli.Command {
	return []*cli.Command{
		acceptCommand(),
		consoleCommand(),
		serveCommand(),
		devicesCommand(),
		deviceCommand(),
		connectCommand(),
		eventsCommand(),
		statusCommand(),
		drainCommand(),
		clusterCommand(),
		webCommand(),
		{Name: "version", Usage: "print the version", Action: func(*cli.Context) error {
			fmt.Println("callhome-nms", version)
			return nil
		}},
	}
}

// report writes one printable line to standard error.
func report(line string) { fmt.Fprintln(os.Stderr, "callhome-nms: "+console.Printable(line)) }
