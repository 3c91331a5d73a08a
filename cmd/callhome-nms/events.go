package main

import (
	"fmt"
	"io"

	"callhome/internal/cmdline"
	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/printable"

	"github.com/urfave/cli/v2"
)

func eventsCommand() *cli.Command {
	return &cli.Command{Name: "events", Usage: "print the last events", Action: events, Flags: append(cmdline.EventFlags(),
		&cli.Uint64Flag{Name: "after", Usage: "begin after the event with this `SEQUENCE`, or with the state of each device where that is no longer kept", DefaultText: "with the last events"},
		socketFlag())}
}

func events(c *cli.Context) error {
	return ask(c, func(m *control.Client) error {
		var last nmsproto.EventList
		if err := m.Call(c.Context, nmsproto.MethodSubscribe, nmsproto.SubscribeParams{After: c.Uint64("after")}, &last); err != nil {
			return err
		}
		return cmdline.Events(c, "callhome-nms serve", last.Events, m.Events(), printEvent)
	})
}

func printEvent(w io.Writer, e nmsproto.Event) {
	fmt.Fprintf(w, "%s %s", cmdline.Time(e.Time), e.Event)
	for _, text := range []string{e.Station, e.Device, e.Address, e.Software, e.HostKey, e.Certificate} {
		if text != "" {
			fmt.Fprint(w, " ", printable.Quoted(text))
		}
	}
	if e.Cause != "" {
		fmt.Fprintf(w, ": %s", printable.Quoted(e.Cause))
	}
	if e.Unsaid > 0 {
		fmt.Fprintf(w, " (%d more like this before)", e.Unsaid)
	}
	fmt.Fprintln(w)
}
