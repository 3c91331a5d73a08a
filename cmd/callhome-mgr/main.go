// callhome-mgr is the daemon that makes and supervises NETCONF call homes, and the
// commands that call its API. Under the name callhome-trigger it is that program, so that
// a device needs one file for both. This file owns the command table. The daemon's work
// is package manager's, its API package api's.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"callhome/internal/cmdline"
	"callhome/internal/device/api"
	"callhome/internal/device/triggercmd"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// version is set by the linker (Makefile).
var version = "unknown"

func main() {
	if triggercmd.Called(os.Args) {
		os.Exit(triggercmd.Main(version, os.Args))
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args))
}

var program = cmdline.Program{
	Hint: "callhome-mgr COMMAND --help lists the options",
	Nouns: map[string]func(cmdline.Line) []string{
		"SESSION": sessionNumbers, "CLIENT": clientNames, "EVENT": func(cmdline.Line) []string { return proto.Events },
	},
}

func run(ctx context.Context, args []string) int {
	err := program.Run(ctx, newApp(), args)
	if err == nil {
		return sysexits.OK
	}
	fmt.Fprintln(os.Stderr, "callhome-mgr: "+cmdline.OneLine(err))
	return exitCode(err)
}

func newApp() *cli.App {
	return &cli.App{
		Name:    "callhome-mgr",
		Usage:   "make and supervise NETCONF SSH call homes (RFC 8071)",
		Version: version,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "socket", Value: proto.DefaultSocket, EnvVars: []string{"CALLHOME_MANAGER_SOCKET"}, Usage: "connect to the manager at `SOCKET`"},
		},
		Commands: commands(),
	}
}

func commands() []*cli.Command {
	jsonFlag, watchFlag := cmdline.JSONFlag(), cmdline.WatchFlag()
	longFlag := cmdline.LongFlag()
	return []*cli.Command{
		{Name: "run", Usage: "run the daemon", Flags: runFlags(), Action: runDaemon},
		{Name: "call", ArgsUsage: "HOST [PORT] | --client CLIENT", Usage: "make a call home", Action: call, Flags: []cli.Flag{
			&cli.StringFlag{Name: "client", Usage: "call the configured `CLIENT` with its own settings, whether it waits, is not due or was given up"},
			&cli.StringFlag{Name: "opaque", Usage: "pass `DATA` to the log and the session's environment"},
			cmdline.ChoiceFlag("wait", string(proto.WaitTCP), "return when the call home reaches `STAGE` none, tcp, ssh or netconf", "none", "tcp", "ssh", "netconf"),
			jsonFlag,
		}},
		{Name: "sessions", Usage: "list the sessions", Flags: []cli.Flag{jsonFlag, watchFlag, longFlag}, Action: sessions},
		{Name: "session", ArgsUsage: "SESSION", Usage: "show one session", Flags: []cli.Flag{jsonFlag}, Action: oneSession},
		{Name: "kill", ArgsUsage: "SESSION", Usage: "end a session", Flags: []cli.Flag{jsonFlag}, Action: kill},
		{Name: "status", Usage: "show the manager's status", Flags: []cli.Flag{jsonFlag, watchFlag, longFlag}, Action: status},
		{Name: "events", Usage: "print the last events", Action: events, Flags: cmdline.EventFlags()},
		{Name: "reload", Usage: "read the configuration again", Action: simple(proto.MethodReloadConfig)},
		{Name: "restart-call-home", ArgsUsage: "[CLIENT]", Usage: "call waiting and given-up clients now", Flags: []cli.Flag{jsonFlag}, Action: restartCallHome},
		{Name: "reopen-logs", Usage: "reopen the log file", Action: simple(proto.MethodReopenLogs)},
		{Name: "stop", Usage: "stop the manager; sessions stay open", Action: simple(proto.MethodStop)},
		{Name: "check", ArgsUsage: "[FILE]", Usage: "check a configuration or, without FILE, this machine", Action: check},
		{Name: "init", Usage: "write a minimal configuration for this machine", Flags: initFlags(), Action: initialise},
		{Name: "state", Usage: "print the configured clients as RFC 7951 JSON of the YANG module callhome", Action: state},
		{Name: "version", Usage: "print the version", Action: func(*cli.Context) error {
			fmt.Println("callhome-mgr", version)
			return nil
		}},
	}
}

// exitOf are the exit statuses of the manager's errors, the same as the trigger's.
var exitOf = map[proto.Code]int{
	proto.CodeName: sysexits.NoHost, proto.CodeUnavailable: sysexits.Unavailable, proto.CodeHandover: sysexits.Config,
	proto.CodeSSH: sysexits.Unavailable, proto.CodeAuth: sysexits.NoPerm, proto.CodeSubsystem: sysexits.Config,
	proto.CodeNoExists: sysexits.Usage, proto.CodeAccessDenied: sysexits.NoPerm, proto.CodeBadType: sysexits.Usage,
	proto.CodeBadConfig: sysexits.Config, proto.CodeBusy: sysexits.Unavailable, proto.CodeShutdown: sysexits.Unavailable,
}

func exitCode(err error) int {
	var e *proto.Error
	if errors.As(err, &e) && e.Code < 0 {
		return sysexits.Usage // an error of JSON-RPC: unknown method, invalid parameters
	}
	if errors.As(err, &e) && exitOf[e.Code] != 0 {
		return exitOf[e.Code]
	}
	return sysexits.Code(err)
}

// ask connects to the manager and calls f.
func ask(c *cli.Context, f func(*api.Client) error) error {
	client, err := api.Dial(c.String("socket"))
	if err != nil {
		return err
	}
	defer client.Close()
	return f(client)
}

// simple is a command that calls a method without parameters or result.
func simple(method string) cli.ActionFunc {
	return func(c *cli.Context) error {
		return ask(c, func(m *api.Client) error { return m.Call(c.Context, method, nil, nil) })
	}
}
