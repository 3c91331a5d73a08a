// simulate computes how a fleet of devices loads an NMS after an outage, in
// virtual time and with the daemon's own scheduling (internal/device/schedule),
// and compares it with the retry policies of other implementations. `make
// simulate` runs it; it opens no socket and asserts nothing.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"callhome/internal/device/schedule"
)

// options are what the flags say.
type options struct {
	fleet  Fleet
	plot   string
	sweep  bool
	charts bool
}

func parse(args []string, help io.Writer) (*options, error) {
	o := &options{fleet: Fleet{Policy: schedule.Policy{Pause: schedule.DefaultPause}}}
	f := flag.NewFlagSet("simulate", flag.ContinueOnError)
	f.SetOutput(help)
	f.IntVar(&o.fleet.Devices, "fleet", 10000, "devices")
	f.Uint64Var(&o.fleet.Seed, "seed", 1, "seed; the same one gives the same output")
	f.DurationVar(&o.fleet.Notice, "notice", 500*time.Millisecond, "within which all devices notice the outage")
	f.DurationVar(&o.fleet.Horizon, "horizon", 2*time.Hour, "simulated time after the outage")

	n := &o.fleet.NMS
	f.Float64Var(&n.Capacity, "capacity", 100, "logins a second that an NMS completes")
	f.DurationVar(&n.Login, "login", 300*time.Millisecond, "time of a login on an idle NMS")
	f.IntVar(&n.Concurrency, "concurrency", 4096, "concurrent logins on an NMS")
	f.IntVar(&n.Backlog, "backlog", 1024, "connections in its kernel's accept queue")
	f.DurationVar(&n.Grace, "grace", 20*time.Second, "time limit of a login")
	f.DurationVar(&n.Outage, "outage", 20*time.Second, "length of the outage")
	f.BoolVar(&n.Silent, "silent", false, "drop packets during the outage instead of refusing connections")
	f.BoolVar(&n.Reset, "reset", false, "reset connections when the backlog is full instead of ignoring them")

	p := &o.fleet.Policy
	f.IntVar(&p.Endpoints, "endpoints", 1, "endpoints, each an NMS of its own with the same outage")
	f.IntVar(&p.MaxAttempts, "max-attempts", 3, "attempts at an endpoint before the next endpoint is tried")
	f.DurationVar(&o.fleet.MaxWait, "max-wait", 5*time.Second, "timeout of a TCP connection attempt")
	f.DurationVar(&p.NoSSH, "no-ssh", time.Minute, "how long a device keeps a connection without a login")
	f.DurationVar(&p.Pause.Initial, "initial", p.Pause.Initial, "first pause")
	f.DurationVar(&p.Pause.Maximum, "maximum", p.Pause.Maximum, "longest pause, without jitter")
	f.IntVar(&p.Pause.Jitter, "jitter", p.Pause.Jitter, "jitter of the pauses, in percent")

	f.StringVar(&o.plot, "plot", "", "write the charts to this SVG file")
	f.BoolVar(&o.sweep, "sweep", false, "print only a table of our pauses and their effect after outages of 20 s, 5 min and 1 h")
	f.IntVar(&o.fleet.Stations, "stations", 0, "print only a table of a restart of one of so many stations, which hold the fleet in equal parts")
	f.BoolVar(&o.charts, "charts", true, "print charts to the terminal")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q, see -help", f.Arg(0))
	}
	return o, o.fleet.check()
}

// check refuses what has no meaning, or no end.
func (f *Fleet) check() error {
	for _, c := range []struct {
		ok   bool
		what string
	}{
		{f.Devices > 0 && f.Devices <= 1e6, "-fleet is from 1 to 1000000"},
		{f.NMS.Capacity > 0, "-capacity is above 0"},
		{f.NMS.Login > 0 && f.NMS.Grace > 0, "-login and -grace are above 0"},
		{f.NMS.Concurrency > 0 && f.NMS.Backlog > 0, "-concurrency and -backlog are above 0"},
		{f.NMS.Outage >= 0 && f.Notice >= 0, "-outage and -notice are not negative"},
		{f.Horizon > 0 && f.NMS.Outage+f.Horizon <= 7*24*time.Hour, "-horizon is above 0, and with the outage at most a week"},
		{f.Stations == 0 || f.Stations > 1 && f.Devices >= f.Stations, "-stations is 0, or from 2 to -fleet"},
		{f.Policy.Endpoints > 0 && f.Policy.MaxAttempts > 0, "-endpoints and -max-attempts are above 0"},
		{f.MaxWait > farthest && f.Policy.NoSSH > 0, "-max-wait is above a round trip of " + farthest.String() + ", -no-ssh above 0"},
		{f.Policy.Pause.Initial >= 10*time.Millisecond && f.Policy.Pause.Maximum >= f.Policy.Pause.Initial, "-initial is from 10ms to -maximum"},
		{f.Policy.Pause.Jitter >= 0 && f.Policy.Pause.Jitter < 100, "-jitter is from 0 to 99"},
	} {
		if !c.ok {
			return fmt.Errorf("reading the flags: %s", c.what)
		}
	}
	return nil
}

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == flag.ErrHelp:
	case err != nil:
		fmt.Fprintln(os.Stderr, "simulate:", err)
		os.Exit(1)
	}
}

func run(args []string, out, help io.Writer) error {
	o, err := parse(args, help)
	if err != nil {
		return err
	}
	if o.sweep {
		return sweep(out, o.fleet)
	}
	if o.fleet.Stations > 0 {
		return restarts(out, o.fleet)
	}
	var lines []line
	for _, m := range manners {
		lines = append(lines, line{m.name, o.fleet.play(m), o.fleet.alone(m)})
	}
	if o.charts {
		charts(out, lines)
	}
	if err := table(out, o.fleet, lines); err != nil {
		return err
	}
	if o.plot == "" {
		return nil
	}
	return picture(o.plot, o.fleet, lines)
}
