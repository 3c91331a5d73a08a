package cmdline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
)

// JSONFlag is --json, which Show reads.
func JSONFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print the daemon's answer as JSON"}
}

// WatchFlag is --watch, which Watch reads.
func WatchFlag() cli.Flag {
	return &cli.BoolFlag{Name: "watch", Usage: "refresh the output every second until interrupted"}
}

// Show prints an answer as text or, with --json, as JSON.
func Show(c *cli.Context, answer any, render func(io.Writer)) error {
	if c.Bool("json") {
		return json.NewEncoder(os.Stdout).Encode(answer)
	}
	render(os.Stdout)
	return nil
}

// Watch shows an answer once, or with --watch every second: on a terminal in place of
// the last one.
func Watch(c *cli.Context, fetch func() (answer any, render func(io.Writer), err error)) error {
	for first := true; ; first = false {
		answer, render, err := fetch()
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case c.Bool("watch") && Width(os.Stdout) > 0:
			fmt.Print("\x1b[H\x1b[2J") // home, clear (ECMA-48)
		case !first && !c.Bool("json"):
			fmt.Println()
		}
		if err := Show(c, answer, render); err != nil || !c.Bool("watch") {
			return err
		}
		select {
		case <-c.Context.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// EventFlags are the flags that Events reads.
func EventFlags() []cli.Flag {
	return []cli.Flag{&cli.BoolFlag{Name: "follow", Usage: "print further events until interrupted"}, JSONFlag()}
}

// Events shows the last events and, with --follow, the following ones until the
// command is interrupted or the daemon ends.
func Events[E any](c *cli.Context, daemon string, last []E, next <-chan E, render func(io.Writer, E)) error {
	one := func(e E) error { return Show(c, e, func(w io.Writer) { render(w, e) }) }
	for _, e := range last {
		if err := one(e); err != nil {
			return err
		}
	}
	for c.Bool("follow") {
		select {
		case <-c.Context.Done():
			return nil
		case e, ok := <-next:
			if !ok {
				return sysexits.New(sysexits.Unavailable, "run the command again", fmt.Errorf("%s ended the stream of events", daemon))
			}
			if err := one(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// Time is a time in a line for people: RFC 3339, in whole seconds.
func Time(t time.Time) string { return t.Format(time.RFC3339) }

// Age returns how long ago a time is, in whole seconds.
func Age(since time.Time) string { return time.Since(since).Round(time.Second).String() }

// Count is "1 client", "2 clients".
func Count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
