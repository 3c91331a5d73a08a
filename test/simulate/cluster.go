package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"callhome/internal/device/schedule"
)

// Cluster are several stations, of which the first restarts while the others go on. The
// fleet is what the first one held.
type Cluster struct {
	Stations int // 0: no cluster; every NMS goes
	// Balanced has a load balancer choose the station that holds the fewest devices, in
	// place of a device's endpoints. It knows which are up.
	Balanced bool
	// Drain is how many devices a second the first station ends before it restarts; 0: all
	// at once, at its restart. It takes no call meanwhile.
	Drain float64
}

// open makes the stations. All but the first have been there for long.
func (f *fleet) open() {
	first := f.NMS
	first.Outage += f.drainTime()
	f.nms = append(f.nms, newNMS(first, &f.clock))
	others := f.NMS
	others.Outage = 0
	for range f.Stations - 1 {
		n := newNMS(others, &f.clock)
		n.open, n.held = true, f.Devices
		f.nms = append(f.nms, n)
	}
}

func (f *fleet) drainTime() time.Duration {
	if f.Drain == 0 {
		return 0
	}
	return time.Duration(float64(f.Devices) / f.Drain * float64(time.Second))
}

// ends is when the first station ends device i.
func (f *fleet) ends(i int) time.Duration {
	if f.Drain == 0 {
		return 0
	}
	return time.Duration(float64(i) / f.Drain * float64(time.Second))
}

// at is where a call to an endpoint arrives.
func (f *fleet) at(endpoint int) *nms {
	if !f.Balanced {
		return f.nms[endpoint]
	}
	best := f.nms[0]
	for _, n := range f.nms {
		if n.open && (!best.open || n.load() < best.load()) {
			best = n
		}
	}
	return best
}

// load is how many connections a balancer has open to it.
func (n *nms) load() int { return n.held + len(n.serving) + len(n.backlog) }

// ways are how devices find another station, and how the first one goes.
var ways = []struct {
	name   string
	change func(*Fleet)
}{
	{"HAProxy, fewest connections", func(f *Fleet) { f.Balanced, f.Policy.Endpoints = true, 1 }},
	{"random-selection", func(f *Fleet) { f.Policy.StartWith = schedule.RandomSelection }},
	{"last-connected", func(f *Fleet) { f.Policy.StartWith = schedule.LastConnected }},
}

// restarts prints a table of a restart of one station: a row for each way, with the pauses
// as given.
func restarts(out io.Writer, f Fleet) error {
	all := f.Devices
	f.Devices = all / f.Stations
	fmt.Fprintf(out, "%d devices on %d stations, of which one restarts: its %d call again\n"+
		"a station does %.4g logins/s, login %v; it is away for %v, %d attempts at an endpoint; pauses %v to %v, jitter %d %%; seed %d\n\n",
		all, f.Stations, f.Devices, f.NMS.Capacity, f.NMS.Login, f.NMS.Outage, f.Policy.MaxAttempts, f.Policy.Pause.Initial, f.Policy.Pause.Maximum, f.Policy.Pause.Jitter, f.Seed)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tpeak arrivals/s\tfailed\tall back\ta device away\t\t\tdevices at the\t")
	fmt.Fprintln(w, "policy\tat one station\tattempts\tafter\tmedian\t99 %\tlongest\tfirst, others\t")
	for _, drain := range []float64{0, 100, 500} {
		for _, way := range ways {
			f := f
			f.Drain, f.Policy.Endpoints = drain, f.Stations
			way.change(&f)
			name := way.name + ", all at once"
			if drain > 0 {
				name = fmt.Sprintf("%s, drain %g/s", way.name, drain)
			}
			if err := f.restart(w, name); err != nil {
				return err
			}
		}
	}
	return w.Flush()
}

// restart prints a row.
func (what Fleet) restart(out io.Writer, name string) error {
	f := what.run(manners[0])
	c := &f.count
	if len(c.away) < f.Devices {
		return fmt.Errorf("%s: only %d of %d devices came back", name, len(c.away), f.Devices)
	}
	peak, least, most := 0, 0, 0
	for i, n := range f.nms {
		peak = max(peak, slices.Max(append(slices.Collect(maps.Values(n.seconds)), 0)))
		if i == 1 {
			least = n.held
		}
		if i > 0 {
			least, most = min(least, n.held), max(most, n.held)
		}
	}
	_, err := fmt.Fprintf(out, "%s\t%d\t%d\t%s\t%s\t%s\t%s\t%d, %d to %d\t\n", name, peak, c.tcp+c.logins, fine([]time.Duration{f.clock.now}, 0),
		fine(c.away, 50), fine(c.away, 99), fine(c.away, 100), f.nms[0].held, least, most)
	return err
}
