package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"text/tabwriter"
	"time"
)

// line is what the reports say of a policy.
type line struct {
	name  string
	fleet *count
	alone []time.Duration // from the reopened port to the login, of single devices
}

// alone plays a device that has the NMS for itself, again and again. The outages
// are up to a quarter shorter or longer, so that no policy has luck with the
// length of one.
func (what Fleet) alone(m manner) []time.Duration {
	const times = 1000
	r := rand.New(rand.NewPCG(what.Seed, 1))
	outage := float64(what.NMS.Outage)
	what.Devices = 1
	var took []time.Duration
	for range times {
		what.NMS.Outage = time.Duration(outage * (0.75 + r.Float64()/2))
		what.Seed = r.Uint64()
		took = append(took, what.play(m).back...)
	}
	return took
}

// table prints a row a policy.
func table(out io.Writer, f Fleet, lines []line) error {
	how := "refused"
	if f.NMS.Silent {
		how = "silent"
	}
	fmt.Fprintf(out, "%d devices, %d endpoint(s) of %.4g logins/s, %d at once, %d in the backlog, login %v, grace %v\n"+
		"outage %v, %s; pauses %v to %v, jitter %d %%; seed %d\n\n",
		f.Devices, f.Policy.Endpoints, f.NMS.Capacity, f.NMS.Concurrency, f.NMS.Backlog, f.NMS.Login, f.NMS.Grace,
		f.NMS.Outage, how, f.Policy.Pause.Initial, f.Policy.Pause.Maximum, f.Policy.Pause.Jitter, f.Seed)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tpeak\tfailed\tof them\ta device\toverloaded\tback\t\t\talone\t\t")
	fmt.Fprintln(w, "policy\tarrivals/s\tattempts\tin login\ton average\tuntil\t50 %\t99 %\t100 %\tmedian\tp95\t")
	for _, l := range lines {
		c := l.fleet
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%.1f\t%s\t%s\t%s\t%s\t%s\t%s\t\n", l.name, c.peak(), c.tcp+c.logins, c.logins,
			float64(c.tcp+c.logins)/float64(c.devices), seconds(c.overloaded, c.logins > 0), c.when(50), c.when(99), c.when(100),
			fine(l.alone, 50), fine(l.alone, 95))
	}
	return w.Flush()
}

func seconds(d time.Duration, ok bool) string {
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}

func (c *count) when(percent int) string {
	d, ok := c.part(percent)
	if !ok {
		return "never"
	}
	return seconds(d, true)
}

func fine(times []time.Duration, percent int) string {
	if len(times) == 0 {
		return "never"
	}
	return fmt.Sprintf("%.2f s", percentile(times, percent).Seconds())
}

// series are what is drawn, over time.
var series = []struct {
	name string
	of   func(second) int
}{
	{"arrivals/s", func(s second) int { return s.arrivals }},
	{"logins/s", func(s second) int { return s.logins }},
	{"failed attempts/s", func(s second) int { return s.failures }},
}

// charts draws what ours did, and the others, each series by itself.
func charts(out io.Writer, lines []line) {
	const width = 90
	for _, l := range lines {
		shown := l.fleet.shown(span(lines))
		step := (len(shown) + width - 1) / width
		for _, s := range series {
			var most []float64 // in step seconds; the mean would hide a herd
			for i, sec := range shown {
				if i%step == 0 {
					most = append(most, 0)
				}
				most[i/step] = max(most[i/step], float64(s.of(sec)))
			}
			fmt.Fprintf(out, "%s: %s\n%s\n\n", l.name, s.name, chart(most))
		}
		first := l.fleet.first()
		fmt.Fprintf(out, "%s: from %d s before the NMS answers again to %d s after; a column is the most of %d s\n\n", l.name, int(l.fleet.outage.Seconds())-first, first+len(shown)-int(l.fleet.outage.Seconds()), step)
	}
}

// lead is how much of an outage is shown.
const lead = 30

// first is the first second that is shown.
func (c *count) first() int {
	return min(max(0, int(c.outage/time.Second)-lead), len(c.seconds))
}

// span is how many seconds after the outage are worth to be shown: twice what the
// quickest fleet needed, but no more than half an hour.
func span(lines []line) int {
	most := 30 * time.Minute
	for _, l := range lines {
		if d, ok := l.fleet.part(100); ok {
			most = min(most, 2*d)
		}
	}
	return int(max(most, time.Minute) / time.Second)
}

// shown are the seconds up to span after the outage.
func (c *count) shown(span int) []second {
	return c.seconds[c.first():min(len(c.seconds), int(c.outage/time.Second)+span)]
}
