package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"callhome/internal/cmdline"
	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"

	"github.com/urfave/cli/v2"
)

func drainCommand() *cli.Command {
	return &cli.Command{Name: "drain", Usage: "accept no more call homes, and end the connections of all devices at a rate", Action: drain, Flags: []cli.Flag{
		socketFlag(), cmdline.JSONFlag(),
		&cli.IntFlag{Name: "down-to", Usage: "end connections until `NUMBER` devices are left, and go on accepting call homes"},
		&cli.IntFlag{Name: "rate", Value: 100, Usage: "end `NUMBER` connections a second"},
		cmdline.DurationFlag("session-time", time.Minute, "end devices with open sessions last, `TIME` after all others at the latest"),
	}}
}

// drainEvery is how often the progress of a drain is printed.
const drainEvery = time.Second

// drain starts a drain and waits for its end. An interrupted command does not end it.
func drain(c *cli.Context) error {
	if c.NArg() != 0 {
		return program.Usage(fmt.Errorf("unexpected argument %q", c.Args().First()))
	}
	p := nmsproto.DrainParams{DownTo: c.Int("down-to"), Rate: c.Int("rate"), SessionTime: c.Duration("session-time")}
	return ask(c, func(m *control.Client) error {
		var d nmsproto.Drain
		if err := m.Call(c.Context, nmsproto.MethodDrain, p, &d); err != nil {
			return err
		}
		for d.Left > p.DownTo {
			if !c.Bool("json") {
				fmt.Println(left(&d))
			}
			select {
			case <-c.Context.Done():
				return errors.New("interrupted, and the drain continues; `callhome-nms status` shows it")
			case <-time.After(drainEvery):
			}
			var s nmsproto.Status
			if err := m.Call(c.Context, nmsproto.MethodStatus, nil, &s); err != nil {
				return err
			}
			switch {
			case s.Drain != nil:
				d = *s.Drain
			case p.DownTo == 0:
				return errors.New("the daemon was started again during the drain")
			default:
				return cmdline.Show(c, d, func(w io.Writer) { fmt.Fprintln(w, "the drain has ended") })
			}
		}
		return cmdline.Show(c, d, func(w io.Writer) { fmt.Fprintln(w, left(&d)) })
	})
}

// left says which devices a drain has not ended.
func left(d *nmsproto.Drain) string {
	if d.Left == 0 {
		return "no device is connected any more"
	}
	return fmt.Sprintf("%s connected still, %d of them with sessions", cmdline.Count(d.Left, "device"), d.Busy)
}
