// Package triggercmd owns the command line of callhome-trigger and its exit status. The
// call itself is package trigger's. Two mains use it: callhome-trigger, and callhome-mgr
// where it is installed under both names. It never prints more than one line of a failure.
package triggercmd

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"callhome/internal/cmdline"
	"callhome/internal/device/preflight"
	"callhome/internal/device/settings"
	"callhome/internal/device/subsystem"
	"callhome/internal/device/trigger"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// Name is the program's.
const Name = "callhome-trigger"

// Called reports whether a program was started under the name of this one; args are its
// own. A NETCONF server may set args[0] to anything; then the kernel's name of the process
// counts, which is the file's, cut short (PR_GET_NAME in prctl(2)).
func Called(args []string) bool {
	if len(args) > 0 && filepath.Base(args[0]) == Name {
		return true
	}
	var name [16]byte
	err := unix.Prctl(unix.PR_GET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
	return err == nil && unix.ByteSliceToString(name[:]) == Name[:len(name)-1]
}

// Main runs the program of that version and returns its exit status; args[0] is its
// name. It does not return where sshd takes its place.
func Main(version string, args []string) int {
	words := args[min(1, len(args)):]
	if len(words) > 0 && words[0] == subsystem.Flag {
		// As callhome-mgr's sessions start it, before the subsystem.
		return reportSubsystem(words[1:])
	}
	if len(words) > 0 && !slices.ContainsFunc(words, isOption) && !cmdline.Asks(words) {
		// As a NETCONF server starts it. Without options the option parser is
		// skipped: it takes longer than the call home (make bench).
		return callHome(nil, words)
	}
	return run(version, args)
}

// reportSubsystem reports to callhome-mgr and becomes the subsystem's command.
func reportSubsystem(args []string) int {
	err := subsystem.Run(args) // it returns only with an error
	fmt.Fprintln(os.Stderr, "callhome-trigger:", err)
	return sysexits.OSErr
}

func isOption(arg string) bool { return strings.HasPrefix(arg, "-") }

// callHome makes the call home and returns the exit status, unless it executes
// sshd in this process.
func callHome(flags settings.Given, args []string) int {
	s, _, err := settings.Load(flags, args, os.LookupEnv)
	if err == nil {
		err = s.NeedTarget()
	}
	if err != nil {
		return report(s, err)
	}
	log, err := newLogger(s)
	if err != nil {
		return report(s, err)
	}
	return report(s, trigger.Run(s, log))
}

var program = cmdline.Program{
	Hint:  "callhome-trigger --help lists the options",
	Nouns: map[string]func(cmdline.Line) []string{"INTERFACE": interfaces},
}

// interfaces are the values of --interface that completion lists.
func interfaces(cmdline.Line) []string {
	all, _ := net.Interfaces() // a completion has no place for an error
	var out []string
	for _, i := range all {
		out = append(out, i.Name)
	}
	return out
}

func run(version string, args []string) int {
	status := sysexits.OK
	app := &cli.App{
		Name:      Name,
		Usage:     "open a NETCONF SSH call-home connection (RFC 8071) and hand it to sshd -i",
		UsageText: "callhome-trigger [options] HOST [PORT [OPAQUE]]",
		ArgsUsage: "HOST [PORT [OPAQUE]]",
		Description: "Every option is also an environment variable and a key of " + settings.DefaultsFile + ": " +
			"--local-address is CALLHOME_LOCAL_ADDRESS, and so on. An option has precedence over the environment, " +
			"the environment over the file. Separate several values in one variable with " + settings.Separator + ". " +
			"Options must come before HOST; later arguments are data.",
		Version: version,
		Flags:   flags(),
		Action: func(c *cli.Context) (err error) {
			status, err = act(c)
			return err
		},
	}
	if err := program.Run(context.Background(), app, args); err != nil {
		return report(nil, err)
	}
	return status
}

// optionFlag has the values that completion lists. Package settings checks them: they
// may come from the environment, too.
type optionFlag struct {
	*cli.StringFlag
	values []string
}

// Choices returns them.
func (f optionFlag) Choices() []string { return f.values }

// flags returns the options of the settings table.
func flags() []cli.Flag {
	out := []cli.Flag{
		&cli.BoolFlag{Name: "check", Usage: "check this machine for what a call home needs, without making one"},
		&cli.BoolFlag{Name: "show-config", Usage: "print each option with its variable, its value and the source of the value"},
	}
	for _, o := range settings.Options() {
		usage := o.Usage
		if o.Arg != "" {
			usage = "`" + o.Arg + "`: " + usage
		}
		switch {
		case o.Arg == "":
			out = append(out, &cli.BoolFlag{Name: o.Name, Usage: usage})
		case o.Repeat:
			out = append(out, &cli.StringSliceFlag{Name: o.Name, Usage: usage})
		default:
			out = append(out, optionFlag{&cli.StringFlag{Name: o.Name, DefaultText: o.Default, Usage: usage}, o.Values})
		}
	}
	return out
}

// given returns the options that the command line sets.
func given(c *cli.Context) settings.Given {
	g := settings.Given{}
	for _, o := range settings.Options() {
		switch {
		case !c.IsSet(o.Name):
		case o.Arg == "":
			g[o.Name] = []string{fmt.Sprint(c.Bool(o.Name))}
		case o.Repeat:
			g[o.Name] = c.StringSlice(o.Name)
		default:
			g[o.Name] = []string{c.String(o.Name)}
		}
	}
	return g
}

// act makes the call home, or what --check or --show-config asks for, and returns
// the exit status.
func act(c *cli.Context) (int, error) {
	flags, args := given(c), c.Args().Slice()
	if !c.Bool("check") && !c.Bool("show-config") {
		return callHome(flags, args), nil
	}
	s, effective, err := settings.Load(flags, args, os.LookupEnv)
	if err != nil {
		return 0, err
	}
	if c.Bool("show-config") {
		showConfig(effective)
		return sysexits.OK, nil
	}
	return preflight.Run(os.Stdout, s, false), nil
}

func showConfig(effective []settings.Effective) {
	for i, o := range settings.Options() { // effective has the table's order
		e := effective[i]
		fmt.Printf("%-20s %-29s %-40q %s\n", e.Name, o.Env(), e.Value, e.Source)
	}
}
