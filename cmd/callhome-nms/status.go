package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"callhome/internal/cmdline"
	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/printable"

	"github.com/urfave/cli/v2"
)

func statusCommand() *cli.Command {
	return &cli.Command{Name: "status", Usage: "show the daemon's status", Action: status, Flags: []cli.Flag{
		socketFlag(), cmdline.JSONFlag(),
	}}
}

// stationTable prints the stations of a cluster, if there is one.
func stationTable(w io.Writer, s nmsproto.Status) {
	if s.Station == "" {
		return
	}
	if s.ClusterError != "" {
		fmt.Fprintf(w, "station %s is not part of its cluster now: %s\n", s.Station, printable.Quoted(s.ClusterError))
	}
	t := cmdline.NewTable(cmdline.Column{Title: "STATION"}, cmdline.Column{Title: "STATE", Whole: true}, cmdline.Column{Title: "SEEN", Whole: true},
		cmdline.Column{Title: "DEVICES"}, cmdline.Column{Title: "SESSIONS"}, cmdline.Column{Title: "ADDRESS"}, cmdline.Column{Title: "VERSION", Rank: 1})
	for _, m := range s.Stations {
		name, state, held, sessions := m.Name, "silent", "", ""
		if m.Name == s.Station {
			name += " (this one)"
		}
		if m.Alive {
			state, held, sessions = "alive", strconv.Itoa(m.Connected), strconv.Itoa(m.Sessions)
		}
		t.Row(printable.Quoted(name), state, cmdline.Age(m.Seen)+" ago", held, sessions, printable.Quoted(m.Address), printable.Quoted(m.Version))
	}
	if len(s.Stations) > 0 {
		fmt.Fprintln(w)
		t.Print(w, 0)
	}
}

func status(c *cli.Context) error {
	return ask(c, func(m *control.Client) error {
		var s nmsproto.Status
		if err := within(c.Context, statusTime, func(ctx context.Context) error { return m.Call(ctx, nmsproto.MethodStatus, nil, &s) }); err != nil {
			return err
		}
		return cmdline.Show(c, s, func(w io.Writer) {
			calls := "listening on " + strings.Join(s.Listening, ", ")
			if s.Drain != nil && s.Drain.DownTo == 0 {
				calls = "accepting no call homes"
			}
			fmt.Fprintf(w, "callhome-nms %s, PID %d, running for %s, %s\n", s.Version, s.PID, cmdline.Age(s.Since), calls)
			fmt.Fprintf(w, "%s connected, %d lost, %d never seen; %s\n", cmdline.Count(s.Devices[nmsproto.Connected], "device"), s.Devices[nmsproto.Lost], s.Devices[nmsproto.NeverSeen], cmdline.Count(s.Sessions, "session"))
			fmt.Fprintf(w, "%s, %d unauthenticated, %s\n", cmdline.Count(int(s.Calls), "call"), s.Unauthenticated, cmdline.Count(s.Unknown, "unknown host key"))
			if s.RegistryError != "" {
				fmt.Fprintf(w, "the registry cannot be read, and stays in force as it was: %s\n", printable.Quoted(s.RegistryError))
			}
			stationTable(w, s)
			if s.Drain != nil {
				fmt.Fprintf(w, "draining for %s: %s\n", cmdline.Age(s.Drain.Since), left(s.Drain))
			}
		})
	})
}
