package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"callhome/internal/cmdline"
	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/printable"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
)

func devicesCommand() *cli.Command {
	jsonFlag := cmdline.JSONFlag()
	return &cli.Command{
		Name: "devices", Usage: "list the devices and the unknown devices that called", Action: devices,
		Flags: []cli.Flag{socketFlag(), jsonFlag, cmdline.WatchFlag(), cmdline.LongFlag()},
		Subcommands: append([]*cli.Command{
			{Name: "adopt", Usage: "register an unknown device that called", ArgsUsage: "HOST-KEY", Action: adopt, Flags: []cli.Flag{
				socketFlag(), jsonFlag,
				&cli.StringFlag{Name: "id", Usage: "register the device as `ID`"},
				&cli.StringFlag{Name: "user", Usage: "log in as `USER`"},
				&cli.StringFlag{Name: "key-file", Usage: "log in with the private key in `FILE`"},
				&cli.StringFlag{Name: "password-file", Usage: "log in with the password in `FILE`"},
				&cli.StringSliceFlag{Name: "label", Usage: "give the device the label `NAME=VALUE`; repeatable"},
			}},
			{Name: "remove", Usage: "remove a device from the registry", ArgsUsage: "DEVICE", Action: remove, Flags: []cli.Flag{socketFlag()}},
			{Name: "revoke", Usage: "revoke a host key, or those of a device", ArgsUsage: "DEVICE-OR-KEY", Action: revoke, Flags: []cli.Flag{socketFlag(), jsonFlag}},
			{Name: "unrevoke", Usage: "undo the revocation of a host key", ArgsUsage: "REVOKED-KEY", Action: unrevoke, Flags: []cli.Flag{socketFlag(), jsonFlag}},
			{Name: "forget", Usage: "remove an unknown device from the list", ArgsUsage: "HOST-KEY", Action: forget, Flags: []cli.Flag{socketFlag()}},
			{Name: "accounts", Usage: "print passwd(5) lines with a user for each device, for sshd", Action: accounts, Flags: []cli.Flag{
				socketFlag(),
				&cli.StringFlag{Name: "prefix", Usage: "begin each user name with `PREFIX`, before the device's id"},
				&cli.StringFlag{Name: "account", Usage: "give all users the uid and gid of `USER` (default: those of this command)"},
				&cli.StringFlag{Name: "output", Usage: "write them to `FILE`, which is replaced whole or, after an error, left as it was"},
			}},
		}, transferCommands()...),
	}
}

// ask connects to the daemon and calls f. Its error carries an exit status.
func ask(c *cli.Context, f func(*control.Client) error) error {
	client, err := control.Dial(c.String("socket"))
	if err != nil {
		return err
	}
	defer client.Close()
	return withExit(f(client))
}

// How long the daemon may take to answer: it may be overloaded, or have no descriptor left
// for the connection.
const (
	statusTime  = 10 * time.Second
	devicesTime = time.Minute // of the list, which has MiB
)

// within bounds a call of the daemon.
func within(ctx context.Context, limit time.Duration, call func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := call(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return sysexits.New(sysexits.Unavailable, "journalctl -u callhome-nms shows its log", fmt.Errorf("callhome-nms serve has not answered within %v", limit))
	}
	return err
}

// exits are the exit statuses and hints of the daemon's errors.
var exits = map[proto.Code]struct {
	code int
	hint string
}{
	proto.CodeUnavailable: {sysexits.Unavailable, ""}, proto.CodeSubsystem: {sysexits.Config, ""},
	proto.CodeNoExists: {sysexits.NoHost, "callhome-nms devices lists the devices"}, proto.CodeAccessDenied: {sysexits.NoPerm, ""},
	proto.CodeBadType: {sysexits.Usage, ""}, proto.CodeBusy: {sysexits.Unavailable, ""}, proto.CodeShutdown: {sysexits.Unavailable, ""},
}

// withExit returns the daemon's error with its exit status and hint, unless it has them.
func withExit(err error) error {
	var e *proto.Error
	var done *sysexits.Error
	if errors.As(err, &done) || !errors.As(err, &e) {
		return err
	}
	x, ok := exits[e.Code]
	if !ok {
		return err
	}
	if e.Data.Stage == proto.StageSession { // other things than a device are unavailable, too
		x.hint = "callhome-nms devices shows when it was last connected"
	}
	return sysexits.New(x.code, x.hint, err)
}

func devices(c *cli.Context) error {
	return ask(c, func(m *control.Client) error {
		return cmdline.Watch(c, func() (any, func(io.Writer), error) {
			var l nmsproto.DeviceList
			err := within(c.Context, devicesTime, func(ctx context.Context) error { return m.Call(ctx, nmsproto.MethodDevices, nil, &l) })
			return l, func(w io.Writer) { deviceTable(w, l, cmdline.TableWidth(c)) }, err
		})
	})
}

func deviceTable(w io.Writer, l nmsproto.DeviceList, width int) {
	t := cmdline.NewTable(cmdline.Column{Title: "DEVICE"}, cmdline.Column{Title: "STATE", Whole: true}, cmdline.Column{Title: "FOR", Whole: true},
		cmdline.Column{Title: "ADDRESS"}, cmdline.Column{Title: "STATION", Optional: true}, cmdline.Column{Title: "SESSIONS", Rank: 1}, cmdline.Column{Title: "SOFTWARE", Rank: 3},
		cmdline.Column{Title: "HOST KEY", Rank: 4}, cmdline.Column{Title: "LABELS", Rank: 2}, cmdline.Column{Title: "LAST ERROR", KeepEnd: true})
	for _, d := range l.Devices {
		since, lastError := "", printable.Quoted(d.LastError)
		if d.Since != nil {
			since = cmdline.Age(*d.Since)
		}
		if d.ErrorTime != nil {
			lastError += " (" + cmdline.Age(*d.ErrorTime) + " ago)"
		}
		t.Row(d.ID, d.State, since, d.Address, d.Station, d.Sessions, printable.Quoted(d.Software), d.HostKey, labels(d.Labels), lastError)
	}
	if len(l.Devices) == 0 {
		fmt.Fprintln(w, "no devices")
	} else {
		t.Print(w, width)
	}
	if len(l.Unknown) > 0 {
		fmt.Fprintln(w, "\nunknown devices; `callhome-nms devices adopt HOST-KEY --id ID` registers one:")
		t := cmdline.NewTable(cmdline.Column{Title: "HOST KEY", Whole: true}, cmdline.Column{Title: "ADDRESS"}, cmdline.Column{Title: "STATION", Optional: true}, cmdline.Column{Title: "SOFTWARE", Rank: 3},
			cmdline.Column{Title: "CALLS", Rank: 2}, cmdline.Column{Title: "LAST", Rank: 1}, cmdline.Column{Title: "CERTIFICATE", Rank: 4})
		for _, u := range l.Unknown {
			t.Row(u.HostKey, u.Address, u.Station, printable.Quoted(u.Software), u.Calls, cmdline.Age(u.Last)+" ago", printable.Quoted(u.Certificate))
		}
		t.Print(w, width)
	}
	if len(l.Problems) > 0 {
		fmt.Fprintln(w, "\nfiles not in force:")
		for _, p := range l.Problems {
			fmt.Fprintf(w, "%s: %s\n", printable.Quoted(p.File), printable.Quoted(p.Error))
		}
	}
}

// deviceIDs and unknownKeys are values that completion lists.
func deviceIDs(line cmdline.Line) []string {
	var out []string
	for _, d := range listed(line).Devices {
		out = append(out, d.ID)
	}
	return out
}

func unknownKeys(line cmdline.Line) []string {
	var out []string
	for _, u := range listed(line).Unknown {
		out = append(out, u.HostKey)
	}
	return out
}

// revocable are the devices and the unknown keys.
func revocable(line cmdline.Line) []string {
	var out []string
	l := listed(line)
	for _, d := range l.Devices {
		out = append(out, d.ID)
	}
	for _, u := range l.Unknown {
		out = append(out, u.HostKey)
	}
	return out
}

// revokedKeys come with the first part of the registry.
func revokedKeys(line cmdline.Line) []string {
	var part nmsproto.Exported
	answer(line, nmsproto.MethodExport, nmsproto.ExportParams{}, &part)
	return part.Revoked
}

// listed asks the daemon of an incomplete line for its devices.
func listed(line cmdline.Line) (l nmsproto.DeviceList) {
	answer(line, nmsproto.MethodDevices, nil, &l)
	return l
}

// answer gets what the daemon of an incomplete line answers; a completion has no place for
// an error.
func answer(line cmdline.Line, method string, params, result any) {
	client, err := control.Dial(line.Option("socket", cmp.Or(os.Getenv("CALLHOME_NMS_SOCKET"), nmsproto.DefaultSocket)))
	if err != nil {
		return
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), cmdline.CompletionTime)
	defer cancel()
	_ = client.Call(ctx, method, params, result)
}

func labels(l map[string]string) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(l)) {
		out = append(out, printable.Quoted(name+"="+l[name]))
	}
	return strings.Join(out, ",")
}

func adopt(c *cli.Context) error {
	if c.NArg() != 1 || c.String("id") == "" {
		return program.Usage(errors.New("expected one HOST-KEY, as `callhome-nms devices` shows it, and --id"))
	}
	p := nmsproto.AdoptParams{HostKey: c.Args().First(), ID: c.String("id"), User: c.String("user"), KeyFile: c.String("key-file"), PasswordFile: c.String("password-file")}
	for _, l := range c.StringSlice("label") {
		name, value, ok := strings.Cut(l, "=")
		if !ok || name == "" {
			return program.Usage(fmt.Errorf("--label %q: expected NAME=VALUE", l))
		}
		if p.Labels == nil {
			p.Labels = make(map[string]string)
		}
		p.Labels[name] = value
	}
	return ask(c, func(m *control.Client) error {
		var d nmsproto.Adopted
		if err := m.Call(c.Context, nmsproto.MethodAdopt, p, &d); err != nil {
			return err
		}
		return cmdline.Show(c, d, func(w io.Writer) {
			fmt.Fprintf(w, "registered %q, its next call home is accepted; if it has further host keys, add them to its %s\n", d.ID, entryOf(d))
			fmt.Fprintln(w, whenBack(d.Called, time.Now()))
		})
	})
}

// entryOf is where a device's entry is changed: an edited copy of a cluster's is replaced.
func entryOf(d nmsproto.Adopted) string {
	if d.Called.Station == "" {
		return "file"
	}
	return "entry: export it, edit the file, import it"
}

// whenBack says when a device that was registered will call home again, as far as its
// calls show it. A device that was refused makes longer pauses each time: callhome-mgr
// doubles them up to 5 minutes, each shorter or longer by up to a half.
func whenBack(u nmsproto.Unknown, now time.Time) string {
	const atOnce = "`callhome-mgr call --client CLIENT` on the device makes the call now"
	last := max(0, now.Sub(u.Last)).Round(time.Second)
	switch {
	case u.Pause == 0 && u.Calls > 1:
		return fmt.Sprintf("it called %d times, station %s once and %v ago, so its next call cannot be foreseen; %s", u.Calls, printable.Line(u.Station), last, atOnce)
	case u.Pause == 0:
		return fmt.Sprintf("it called once, %v ago, so its next call cannot be foreseen; %s", last, atOnce)
	}
	of := ""
	if u.Station != "" {
		of = " of station " + printable.Line(u.Station)
	}
	pause := min(2*u.Pause, max(5*time.Minute, u.Pause)).Round(time.Second)
	next := "is due"
	if left := pause - last; left > 0 {
		next = fmt.Sprintf("comes in about %v", left)
	}
	return fmt.Sprintf("its last two calls%s were %v apart, the last one %v ago: the next one %s, if it doubles its pauses up to 5m as callhome-mgr does; %s",
		of, u.Pause.Round(time.Second), last, next, atOnce)
}

func remove(c *cli.Context) error {
	if c.NArg() != 1 {
		return program.Usage(errors.New("expected one DEVICE, as `callhome-nms devices` shows it"))
	}
	device := c.Args().First()
	return ask(c, func(m *control.Client) error {
		if err := m.Call(c.Context, nmsproto.MethodRemove, nmsproto.RemoveParams{Device: device}, nil); err != nil {
			return err
		}
		fmt.Printf("removed %q; when it calls again it is unknown, and its key can be revoked with `callhome-nms devices revoke`\n", device)
		return nil
	})
}

func revoke(c *cli.Context) error {
	key := strings.Join(c.Args().Slice(), " ") // the parts of a public key without quotes
	if key == "" {
		return program.Usage(errors.New("expected one device or key: an id, a fingerprint as SHA256:..., or a public key"))
	}
	return ask(c, func(m *control.Client) error {
		var r nmsproto.Revoked
		if err := m.Call(c.Context, nmsproto.MethodRevoke, nmsproto.RevokeParams{Key: key}, &r); err != nil {
			return err
		}
		return cmdline.Show(c, r, func(w io.Writer) {
			for _, k := range r.HostKeys {
				fmt.Fprintf(w, "revoked %s\n", k)
			}
			for _, id := range r.Devices {
				fmt.Fprintf(w, "closed the connection of %q\n", id)
			}
		})
	})
}

func unrevoke(c *cli.Context) error {
	key := strings.Join(c.Args().Slice(), " ") // the parts of a public key without quotes
	if key == "" {
		return program.Usage(errors.New("expected one key: a fingerprint as SHA256:..., or a public key"))
	}
	return ask(c, func(m *control.Client) error {
		var u nmsproto.Unrevoked
		err := m.Call(c.Context, nmsproto.MethodUnrevoke, nmsproto.UnrevokeParams{Key: key}, &u)
		var e *proto.Error
		switch {
		case errors.As(err, &e) && e.Code == proto.CodeNoExists:
			return sysexits.New(sysexits.NoHost, "callhome-nms devices export writes the list revoked_keys", err)
		case err != nil:
			return err
		}
		return cmdline.Show(c, u, func(w io.Writer) { fmt.Fprintf(w, "%s is not revoked any more\n", u.HostKey) })
	})
}

func forget(c *cli.Context) error {
	if c.NArg() != 1 {
		return program.Usage(errors.New("expected one HOST-KEY, as `callhome-nms devices` shows it"))
	}
	return ask(c, func(m *control.Client) error {
		return m.Call(c.Context, nmsproto.MethodForget, nmsproto.ForgetParams{HostKey: c.Args().First()}, nil)
	})
}
