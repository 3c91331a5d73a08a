package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// outages and capacities are what a choice of pauses has to bear.
var (
	outages    = []time.Duration{20 * time.Second, 5 * time.Minute, time.Hour}
	capacities = []float64{100, 500}
)

// choices change one thing each.
var choices = []struct {
	name   string
	change func(*Fleet)
}{
	{"as given", func(*Fleet) {}},
	{"initial 500ms", func(f *Fleet) { f.Policy.Pause.Initial = 500 * time.Millisecond }},
	{"initial 2s", func(f *Fleet) { f.Policy.Pause.Initial = 2 * time.Second }},
	{"maximum 30s", func(f *Fleet) { f.Policy.Pause.Maximum = 30 * time.Second }},
	{"maximum 2m", func(f *Fleet) { f.Policy.Pause.Maximum = 2 * time.Minute }},
	{"maximum 5m", func(f *Fleet) { f.Policy.Pause.Maximum = 5 * time.Minute }},
	{"jitter 0", func(f *Fleet) { f.Policy.Pause.Jitter = 0 }},
	{"jitter 10", func(f *Fleet) { f.Policy.Pause.Jitter = 10 }},
	{"jitter 25", func(f *Fleet) { f.Policy.Pause.Jitter = 25 }},
	{"jitter 75", func(f *Fleet) { f.Policy.Pause.Jitter = 75 }},
}

// sweep prints tables of ours, with a row for each choice of pauses.
func sweep(out io.Writer, f Fleet) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, outage := range outages {
		fmt.Fprintf(w, "after %v\talone\t\t", outage)
		for _, capacity := range capacities {
			fmt.Fprintf(w, "peak at %g/s\tin login\toverl.\t99 %%\t", capacity)
		}
		fmt.Fprintln(w)
		for _, choice := range choices {
			f := f
			f.NMS.Outage = outage
			choice.change(&f)
			took := f.alone(manners[0])
			fmt.Fprintf(w, "%s\t%s\t%s\t", choice.name, fine(took, 50), fine(took, 95))
			for _, f.NMS.Capacity = range capacities {
				c := f.play(manners[0])
				fmt.Fprintf(w, "%d\t%d\t%s\t%s\t", c.peak(), c.logins, seconds(c.overloaded, c.logins > 0), c.when(99))
			}
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}
