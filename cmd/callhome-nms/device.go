package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"callhome/internal/cmdline"
	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/printable"

	"github.com/urfave/cli/v2"
)

func deviceCommand() *cli.Command {
	return &cli.Command{Name: "device", Usage: "show one device, with its history", ArgsUsage: "DEVICE", Action: oneDevice, Flags: []cli.Flag{
		socketFlag(), cmdline.JSONFlag(), cmdline.LongFlag(),
	}}
}

func oneDevice(c *cli.Context) error {
	if c.NArg() != 1 {
		return program.Usage(errors.New("expected one DEVICE"))
	}
	id, err := checkedID(c.Args().First())
	if err != nil {
		return err
	}
	return ask(c, func(m *control.Client) error {
		var d nmsproto.DeviceDetail
		if err := m.Call(c.Context, nmsproto.MethodDevice, nmsproto.DeviceParams{Device: id}, &d); err != nil {
			return err
		}
		return cmdline.Show(c, d, func(w io.Writer) { deviceText(w, d, cmdline.TableWidth(c)) })
	})
}

// deviceText prints what is known of a device, and then its history, the newest first.
func deviceText(w io.Writer, d nmsproto.DeviceDetail, width int) {
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-15s  %s\n", name, printable.Quoted(value))
		}
	}
	row("device", d.ID)
	state := string(d.State)
	if d.Since != nil {
		state += " for " + cmdline.Age(*d.Since)
	}
	row("state", state)
	row("station", d.Station)
	row("address", d.Address)
	row("software", d.Software)
	row("host key", d.HostKey)
	row("certificate", d.Certificate)
	row("registered keys", strings.Join(d.HostKeys, " "))
	row("registered CAs", strings.Join(d.CAs, " "))
	row("user", d.User)
	if d.RoundTrip > 0 {
		row("round trip", d.RoundTrip.Round(10*time.Microsecond).String())
	}
	row("sessions", fmt.Sprint(d.Sessions))
	row("logins", fmt.Sprint(d.Calls))
	row("labels", labels(d.Labels))
	row("last error", d.LastError)
	row("history lacks", d.HistoryError)
	if len(d.History) > 0 {
		fmt.Fprintln(w)
		t := cmdline.NewTable(cmdline.Column{Title: "TIME", Whole: true}, cmdline.Column{Title: "EVENT", Whole: true}, cmdline.Column{Title: "TIMES", Rank: 3},
			cmdline.Column{Title: "ADDRESS"}, cmdline.Column{Title: "SOFTWARE", Rank: 1}, cmdline.Column{Title: "HOST KEY", Rank: 2}, cmdline.Column{Title: "CAUSE", KeepEnd: true})
		for _, r := range d.History {
			t.Row(cmdline.Time(r.Time), r.Event, r.Times, r.Address, printable.Quoted(r.Software), r.HostKey, printable.Quoted(r.Cause))
		}
		t.Print(w, width)
	}
	if len(d.SessionLog) > 0 {
		fmt.Fprintln(w, "\nlast sessions:")
		t := cmdline.NewTable(cmdline.Column{Title: "BEGIN", Whole: true}, cmdline.Column{Title: "LENGTH"}, cmdline.Column{Title: "SENT"}, cmdline.Column{Title: "RECEIVED"}, cmdline.Column{Title: "ERROR"})
		for _, s := range d.SessionLog {
			t.Row(cmdline.Time(s.Begin), s.End.Sub(s.Begin).Round(time.Second), s.Sent, s.Received, printable.Quoted(s.Error))
		}
		t.Print(w, width)
	}
}
