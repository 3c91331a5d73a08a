package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
)

func devicesCommand() *cli.Command {
	jsonFlag := &cli.BoolFlag{Name: "json", Usage: "print what the daemon answered, for programs"}
	return &cli.Command{
		Name: "devices", Usage: "list the devices and who else called", Action: devices,
		Flags: []cli.Flag{socketFlag(), jsonFlag, &cli.BoolFlag{Name: "watch", Usage: "keep the table current until interrupted"}},
		Subcommands: []*cli.Command{
			{Name: "adopt", Usage: "make a device of somebody who called", ArgsUsage: "FINGERPRINT", Action: adopt, OnUsageError: usageError, Flags: []cli.Flag{
				socketFlag(), jsonFlag,
				&cli.StringFlag{Name: "id", Usage: "the device's `ID`"},
				&cli.StringFlag{Name: "user", Usage: "log in as `USER`"},
				&cli.StringFlag{Name: "key-file", Usage: "with the private key in `FILE`"},
				&cli.StringFlag{Name: "password-file", Usage: "or with the password in `FILE`"},
				&cli.StringSliceFlag{Name: "label", Usage: "`NAME=VALUE`; may be repeated"},
			}},
			{Name: "accounts", Usage: "print the lines of passwd(5) by which sshd knows users such as dev+ID", Action: accounts, OnUsageError: usageError, Flags: []cli.Flag{
				socketFlag(),
				&cli.StringFlag{Name: "prefix", Value: "dev+", Usage: "`WORDS` before the device's id"},
				&cli.StringFlag{Name: "account", Value: "callhome-nms", Usage: "they all are this `USER`, by number"},
			}},
		},
	}
}

func eventsCommand() *cli.Command {
	return &cli.Command{Name: "events", Usage: "print what happened last", Action: events, Flags: []cli.Flag{
		socketFlag(),
		&cli.BoolFlag{Name: "follow", Usage: "and what happens from then on, until interrupted"},
		&cli.BoolFlag{Name: "json", Usage: "as the daemon told it, for programs"},
	}}
}

func statusCommand() *cli.Command {
	return &cli.Command{Name: "status", Usage: "tell how the daemon is", Action: status, Flags: []cli.Flag{
		socketFlag(), &cli.BoolFlag{Name: "json", Usage: "as the daemon told it, for programs"},
	}}
}

// ask connects to the daemon and calls f; what f returns carries its exit
// status.
func ask(c *cli.Context, f func(*control.Client) error) error {
	client, err := control.Dial(c.String("socket"))
	if err != nil {
		return err
	}
	defer client.Close()
	return withExit(f(client))
}

// exits are the exit statuses of the daemon's errors, and what to do.
var exits = map[proto.Code]struct {
	code int
	hint string
}{
	proto.CodeUnavailable: {sysexits.Unavailable, "callhome-nms devices tells when it was seen last"}, proto.CodeSubsystem: {sysexits.Config, ""},
	proto.CodeNoExists: {sysexits.NoHost, "callhome-nms devices lists those that there are"}, proto.CodeAccessDenied: {sysexits.NoPerm, ""},
	proto.CodeBadType: {sysexits.Usage, ""}, proto.CodeBusy: {sysexits.Unavailable, ""}, proto.CodeShutdown: {sysexits.Unavailable, ""},
}

func withExit(err error) error {
	var e *proto.Error
	if !errors.As(err, &e) {
		return err
	}
	if x, ok := exits[e.Code]; ok {
		return sysexits.New(x.code, x.hint, err)
	}
	return err
}

// show prints an answer for people or, with --json, as it came.
func show(c *cli.Context, answer any, print func(io.Writer)) error {
	if c.Bool("json") {
		return json.NewEncoder(os.Stdout).Encode(answer)
	}
	print(os.Stdout)
	return nil
}

func devices(c *cli.Context) error {
	if c.Args().Present() {
		return usage(fmt.Errorf("devices has no command %q", c.Args().First()))
	}
	return ask(c, func(m *control.Client) error {
		for {
			var l nmsproto.DeviceList
			if err := m.Call(c.Context, nmsproto.MethodDevices, nil, &l); errors.Is(err, context.Canceled) {
				return nil
			} else if err != nil {
				return err
			}
			if c.Bool("watch") {
				fmt.Print("\x1b[H\x1b[2J") // home, clear (ECMA-48)
			}
			if err := show(c, l, func(w io.Writer) { deviceTable(w, l) }); err != nil || !c.Bool("watch") {
				return err
			}
			select {
			case <-c.Context.Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	})
}

func deviceTable(w io.Writer, l nmsproto.DeviceList) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(l.Devices) == 0 {
		fmt.Fprintln(t, "no devices")
	} else {
		fmt.Fprintln(t, "DEVICE\tSTATE\tFOR\tADDRESS\tSESSIONS\tSOFTWARE\tHOST KEY\tLABELS\tLAST ERROR")
	}
	for _, d := range l.Devices {
		since, lastError := "", printable(d.LastError)
		if d.Since != nil {
			since = age(*d.Since)
		}
		if d.ErrorTime != nil {
			lastError += " (" + age(*d.ErrorTime) + " ago)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", d.ID, d.State, since, d.Address, d.Sessions, printable(d.Software), d.HostKey, labels(d.Labels), lastError)
	}
	t.Flush()
	if len(l.Unknown) > 0 {
		fmt.Fprintln(w, "\nnot in the registry; `callhome-nms devices adopt HOST-KEY --id ID` makes a device of one:")
		fmt.Fprintln(t, "HOST KEY\tADDRESS\tSOFTWARE\tCALLS\tLAST\tCERTIFICATE")
		for _, u := range l.Unknown {
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s ago\t%s\n", u.HostKey, u.Address, printable(u.Software), u.Calls, age(u.Last), printable(u.Certificate))
		}
		t.Flush()
	}
	if len(l.Problems) > 0 {
		fmt.Fprintln(w, "\nfiles that are not in force:")
		for _, p := range l.Problems {
			fmt.Fprintf(w, "%s: %s\n", printable(p.File), printable(p.Error))
		}
	}
}

func labels(l map[string]string) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(l)) {
		out = append(out, printable(name+"="+l[name]))
	}
	return strings.Join(out, ",")
}

func adopt(c *cli.Context) error {
	if c.NArg() != 1 || c.String("id") == "" {
		return usage(errors.New("expected one FINGERPRINT, as `callhome-nms devices` shows it, and --id"))
	}
	p := nmsproto.AdoptParams{HostKey: c.Args().First(), ID: c.String("id"), User: c.String("user"), KeyFile: c.String("key-file"), PasswordFile: c.String("password-file")}
	for _, l := range c.StringSlice("label") {
		name, value, ok := strings.Cut(l, "=")
		if !ok || name == "" {
			return usage(fmt.Errorf("label %q: expected NAME=VALUE", l))
		}
		if p.Labels == nil {
			p.Labels = make(map[string]string)
		}
		p.Labels[name] = value
	}
	return ask(c, func(m *control.Client) error {
		var d nmsproto.Device
		if err := m.Call(c.Context, nmsproto.MethodAdopt, p, &d); err != nil {
			return err
		}
		return show(c, d, func(w io.Writer) {
			fmt.Fprintf(w, "%s is a device now; its next call gets in. If it has other host keys, add them to its file\n", d.ID)
		})
	})
}

// accounts prints a user for each device. sshd lets nobody in whom the system
// does not know, and tells ForceCommand by the name which device is meant.
func accounts(c *cli.Context) error {
	prefix := c.String("prefix")
	if prefix == "" || strings.ContainsAny(prefix, ":\n") {
		return usage(fmt.Errorf("prefix %q: expected what a user name can begin with", prefix))
	}
	u, err := user.Lookup(c.String("account"))
	if err != nil {
		return sysexits.New(sysexits.NoInput, "make the account, or name another with --account", fmt.Errorf("looking up %q: %w", c.String("account"), err))
	}
	return ask(c, func(m *control.Client) error {
		var l nmsproto.DeviceList
		if err := m.Call(c.Context, nmsproto.MethodDevices, nil, &l); err != nil {
			return err
		}
		for _, d := range l.Devices {
			// "NP": nothing hashes to that, and it is not locked as "!" would be.
			fmt.Printf("%s%s:NP:%s:%s:NETCONF of %s:/:/bin/sh\n", prefix, d.ID, u.Uid, u.Gid, d.ID)
		}
		return nil
	})
}

func events(c *cli.Context) error {
	return ask(c, func(m *control.Client) error {
		var last nmsproto.EventList
		if err := m.Call(c.Context, nmsproto.MethodSubscribe, nil, &last); err != nil {
			return err
		}
		tell := func(e nmsproto.Event) error { return show(c, e, func(w io.Writer) { printEvent(w, e) }) }
		for _, e := range last.Events {
			if err := tell(e); err != nil {
				return err
			}
		}
		for c.Bool("follow") {
			select {
			case <-c.Context.Done():
				return nil
			case e, ok := <-m.Events():
				if !ok {
					return sysexits.New(sysexits.Unavailable, "call again", errors.New("callhome-nms serve ended the stream of events"))
				}
				if err := tell(e); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func printEvent(w io.Writer, e nmsproto.Event) {
	fmt.Fprintf(w, "%s %s", e.Time.Format(time.RFC3339Nano), e.Event)
	for _, words := range []string{e.Device, e.Address, e.Software, e.HostKey, e.Certificate} {
		if words != "" {
			fmt.Fprint(w, " ", printable(words))
		}
	}
	if e.Cause != "" {
		fmt.Fprintf(w, ": %s", printable(e.Cause))
	}
	if e.Unsaid > 0 {
		fmt.Fprintf(w, " (%d more of the kind before)", e.Unsaid)
	}
	fmt.Fprintln(w)
}

func status(c *cli.Context) error {
	return ask(c, func(m *control.Client) error {
		var s nmsproto.Status
		if err := m.Call(c.Context, nmsproto.MethodStatus, nil, &s); err != nil {
			return err
		}
		return show(c, s, func(w io.Writer) {
			fmt.Fprintf(w, "callhome-nms %s, PID %d, running for %s, listening on %s\n", s.Version, s.PID, age(s.Since), strings.Join(s.Listening, ", "))
			fmt.Fprintf(w, "%d devices connected, %d lost, %d never seen; %d sessions\n", s.Devices[nmsproto.Connected], s.Devices[nmsproto.Lost], s.Devices[nmsproto.NeverSeen], s.Sessions)
			fmt.Fprintf(w, "%d calls, %d on their way to a login, %d unknown host keys\n", s.Calls, s.Unauthenticated, s.Unknown)
		})
	})
}

func age(since time.Time) string { return time.Since(since).Round(time.Second).String() }

// printable makes words from outside fit for a terminal and a log.
func printable(s string) string {
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}
