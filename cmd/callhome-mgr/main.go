// callhome-mgr is the daemon that makes and supervises NETCONF call homes, and
// the command line that asks it to. This file owns the command table; what a
// command does is in the file of its name. The daemon's work is package
// manager's, its API package api's.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"

	"callhome/internal/device/api"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// version is set by the linker (Makefile).
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args))
}

func run(ctx context.Context, args []string) int {
	app := &cli.App{
		Name:                 "callhome-mgr",
		Usage:                "make and supervise NETCONF SSH call homes (RFC 8071)",
		Version:              version,
		HideHelpCommand:      true,
		EnableBashCompletion: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "socket", Value: proto.DefaultSocket, EnvVars: []string{"CALLHOME_MANAGER_SOCKET"}, Usage: "the manager's `SOCKET`"},
		},
		Commands:       commands(),
		OnUsageError:   usageError,
		ExitErrHandler: func(*cli.Context, error) {},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usage(fmt.Errorf("there is no command %q", c.Args().First()))
			}
			return usage(errors.New("no command given"))
		},
	}
	err := app.RunContext(ctx, flagsFirst(app.Commands, args))
	if err == nil {
		return sysexits.OK
	}
	fmt.Fprintln(os.Stderr, "callhome-mgr: "+oneLine(err))
	return exitCode(err)
}

// flagsFirst puts a command's flags before its words, as the parser wants them
// and people do not write them. What follows "--" are words.
func flagsFirst(commands []*cli.Command, args []string) []string {
	at := slices.IndexFunc(args, func(a string) bool {
		return slices.ContainsFunc(commands, func(c *cli.Command) bool { return c.Name == a })
	})
	if at < 0 || args[len(args)-1] == "--generate-bash-completion" {
		return args
	}
	command := commands[slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == args[at] })]
	takesValue := func(arg string) bool {
		return slices.ContainsFunc(command.Flags, func(f cli.Flag) bool {
			_, isSwitch := f.(*cli.BoolFlag)
			return !isSwitch && "--"+f.Names()[0] == arg
		})
	}
	var flags, words []string
	rest := args[at+1:]
	for len(rest) > 0 {
		n := 1
		switch {
		case rest[0] == "--":
			return slices.Concat(args[:at+1], flags, rest[:1], words, rest[1:])
		case len(rest[0]) < 2 || rest[0][0] != '-':
			words = append(words, rest[0])
		default:
			if takesValue(rest[0]) {
				n = min(2, len(rest))
			}
			flags = append(flags, rest[:n]...)
		}
		rest = rest[n:]
	}
	return slices.Concat(args[:at+1], flags, words)
}

func commands() []*cli.Command {
	jsonFlag := &cli.BoolFlag{Name: "json", Usage: "print what the manager answered, for programs"}
	watchFlag := &cli.BoolFlag{Name: "watch", Usage: "keep the table current until interrupted"}
	list := []*cli.Command{
		{Name: "run", Usage: "be the daemon", Flags: runFlags(), Action: runDaemon},
		{Name: "call", ArgsUsage: "HOST [PORT]", Usage: "make a call home", Action: call, Flags: []cli.Flag{
			&cli.StringFlag{Name: "opaque", Usage: "`WORD` for the log and the session's environment"},
			&cli.StringFlag{Name: "wait", Value: string(proto.WaitTCP), Usage: "answer after `none, tcp, ssh or netconf`"},
			jsonFlag,
		}},
		{Name: "sessions", Usage: "list the sessions", Flags: []cli.Flag{jsonFlag, watchFlag}, Action: sessions},
		{Name: "session", ArgsUsage: "ID", Usage: "tell all about one session", Flags: []cli.Flag{jsonFlag}, Action: oneSession},
		{Name: "kill", ArgsUsage: "ID", Usage: "end a session", Flags: []cli.Flag{jsonFlag}, Action: kill},
		{Name: "status", Usage: "tell how the manager is", Flags: []cli.Flag{jsonFlag, watchFlag}, Action: status},
		{Name: "events", Usage: "print what happened last", Action: events, Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Usage: "and what happens from then on, until interrupted"}, jsonFlag,
		}},
		{Name: "reload", Usage: "read the configuration again", Action: simple(proto.MethodReloadConfig)},
		{Name: "reopen-logs", Usage: "open the log's file again", Action: simple(proto.MethodReopenLogs)},
		{Name: "stop", Usage: "stop the manager; sessions go on", Action: simple(proto.MethodStop)},
		{Name: "check", ArgsUsage: "[FILE]", Usage: "tell what is wrong with a configuration or, without FILE, with this machine", Action: check},
		{Name: "init", Usage: "make a minimal configuration for this machine", Flags: initFlags(), Action: initialise},
		{Name: "state", Usage: "print the configured clients as RFC 7951 JSON of the YANG module callhome", Action: state},
		{Name: "version", Usage: "print the version", Action: func(*cli.Context) error {
			fmt.Println("callhome-mgr", version)
			return nil
		}},
	}
	for _, c := range list {
		c.OnUsageError = usageError
		if c.ArgsUsage == "" {
			c.Before = noWords
		}
	}
	return list
}

// noWords refuses words after a command that takes none.
func noWords(c *cli.Context) error {
	if c.Args().Present() {
		return usage(fmt.Errorf("%s takes no words, found %q", c.Command.Name, c.Args().First()))
	}
	return nil
}

func usageError(_ *cli.Context, err error, _ bool) error { return usage(err) }

func usage(err error) error {
	return sysexits.New(sysexits.Usage, "callhome-mgr --help lists the commands", err)
}

// oneLine is what a person reads of an error.
func oneLine(err error) string {
	line := err.Error()
	var e *proto.Error
	switch {
	case errors.As(err, &e) && e.Data.Retry:
		line += "; it may succeed later"
	case sysexits.Hint(err) != "":
		line += "; " + sysexits.Hint(err)
	}
	return line
}

// exitOf is the exit status of the manager's errors, the same as the trigger's.
var exitOf = map[proto.Code]int{
	proto.CodeName: sysexits.NoHost, proto.CodeUnavailable: sysexits.Unavailable, proto.CodeHandover: sysexits.Config,
	proto.CodeSSH: sysexits.Unavailable, proto.CodeAuth: sysexits.NoPerm, proto.CodeSubsystem: sysexits.Config,
	proto.CodeNoExists: sysexits.Usage, proto.CodeAccessDenied: sysexits.NoPerm, proto.CodeBadType: sysexits.Usage,
	proto.CodeBadConfig: sysexits.Config, proto.CodeBusy: sysexits.Unavailable, proto.CodeShutdown: sysexits.Unavailable,
}

func exitCode(err error) int {
	var e *proto.Error
	if errors.As(err, &e) && e.Code < 0 {
		return sysexits.Usage // JSON-RPC's own: no such method, wrong parameters
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

// simple is a command that is one method without parameters or result.
func simple(method string) cli.ActionFunc {
	return func(c *cli.Context) error {
		return ask(c, func(m *api.Client) error { return m.Call(c.Context, method, nil, nil) })
	}
}
