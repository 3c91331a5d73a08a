package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// small is a fleet that is quick to play.
func small(t *testing.T, args ...string) Fleet {
	t.Helper()
	o, err := parse(append([]string{"-fleet", "300", "-capacity", "20", "-concurrency", "100", "-backlog", "20"}, args...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return o.fleet
}

func sum(c *count) (s second) {
	for _, sec := range c.seconds {
		s.arrivals += sec.arrivals
		s.logins += sec.logins
		s.failures += sec.failures
	}
	return s
}

// Whatever an NMS does, each device logs in once, and each attempt ends once: as
// a failure or as a login.
func TestEachDeviceLogsInOnce(t *testing.T) {
	for _, args := range []string{
		"", "-outage 0s", "-outage 5m", "-silent", "-reset", "-silent -endpoints 3 -max-attempts 2",
		"-concurrency 1 -backlog 1", "-concurrency 1 -backlog 1 -reset", "-no-ssh 2s -grace 10s -concurrency 10 -backlog 300", "-jitter 0",
	} {
		for _, m := range manners[:2] {
			f := small(t, strings.Fields(args)...)
			f.Horizon = 24 * time.Hour
			c := f.play(m)
			s := sum(c)
			if s.logins != f.Devices || len(c.back) != f.Devices {
				t.Errorf("%q, %s: %d logins of %d devices", args, m.name, s.logins, f.Devices)
			}
			if s.failures != c.tcp+c.logins {
				t.Errorf("%q, %s: %d failures, %d by their stage", args, m.name, s.failures, c.tcp+c.logins)
			}
			if attempts := s.logins + s.failures; s.arrivals < attempts || s.arrivals > attempts && !f.NMS.Silent && f.NMS.Reset {
				t.Errorf("%q, %s: %d arrivals of %d attempts", args, m.name, s.arrivals, attempts)
			}
			for sec, s := range c.seconds {
				if s.logins > 0 && sec < int(f.NMS.Outage/time.Second) {
					t.Fatalf("%q, %s: a login %d s after the NMS went", args, m.name, sec)
				}
			}
		}
	}
}

// The power of an NMS is a bound of what it can do.
func TestNoMoreLoginsThanThePowerFor(t *testing.T) {
	f := small(t, "-concurrency", "300")
	c := f.play(manners[0])
	done := 0
	for sec, s := range c.seconds {
		done += s.logins
		since := sec + 1 - int(f.NMS.Outage/time.Second)
		if most := int(f.NMS.Capacity) * since; done > most && done > 0 {
			t.Fatalf("%d logins in %d s", done, since)
		}
	}
}

// A herd keeps an NMS down that works on all logins at once, if it comes back
// at a fixed interval; with our pauses it does not.
func TestGrowingPausesEndAnOverload(t *testing.T) {
	f := small(t, "-concurrency", "300", "-capacity", "3")
	if d, ok := f.play(manners[0]).part(100); !ok {
		t.Error("ours never came back")
	} else if ideal := 100 * time.Second; d < ideal || d > 6*ideal {
		t.Errorf("ours were back after %v", d)
	}
	if d, ok := f.play(manners[1]).part(50); ok {
		t.Errorf("the NMS bears a herd at a fixed interval: half of it back after %v, so this test shows nothing", d)
	}
}

// What the defaults are meant to do for a single device.
func TestASingleDeviceIsBackSoon(t *testing.T) {
	f := small(t)
	took := f.alone(manners[0])
	if d := percentile(took, 50); len(took) != 1000 || d > 2600*time.Millisecond {
		t.Errorf("median of %d: %v", len(took), d)
	}
}

func TestASeedGivesTheSameOutput(t *testing.T) {
	play := func(seed string) string {
		var out bytes.Buffer
		if err := run([]string{"-fleet", "200", "-capacity", "10", "-horizon", "10m", "-seed", seed}, &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	first := play("7")
	if first != play("7") {
		t.Error("the same seed gave another output")
	}
	if first == play("8") {
		t.Error("another seed gave the same output")
	}
	for _, want := range []string{"ours", "fixed 5 s", "doubling", "arrivals/s", "logins/s", "failed attempts/s"} {
		if !strings.Contains(first, want) {
			t.Errorf("there is no %q in\n%s", want, first)
		}
	}
}

func TestThePlotIsDrawn(t *testing.T) {
	name := filepath.Join(t.TempDir(), "plot.svg")
	if err := run([]string{"-fleet", "20", "-charts=false", "-plot", name}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	svg, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(svg, new(struct{})); err != nil {
		t.Errorf("the plot is not XML: %v", err)
	}
	if n := bytes.Count(svg, []byte("<polyline")); n != len(series)*len(manners) {
		t.Errorf("%d curves, want one for each of %d series and %d policies", n, len(series), len(manners))
	}
	if bytes.Contains(svg, []byte("NaN")) {
		t.Error("the plot has a coordinate that is not a number")
	}
	if err := run([]string{"-fleet", "1", "-charts=false", "-plot", filepath.Join(t.TempDir(), "none", "plot.svg")}, io.Discard, io.Discard); err == nil {
		t.Error("a plot that could not be written is no error")
	}
}

func TestChartFillsAColumnByItsValue(t *testing.T) {
	got := strings.Split(chart([]float64{0, 5, 10}), "\n")
	if len(got) != 6 || got[0] != "     10 │  █" || got[4] != "        │ ██" {
		t.Errorf("the chart is\n%s", strings.Join(got, "\n"))
	}
}

func TestFlagsWithoutAMeaningAreRefused(t *testing.T) {
	for _, args := range []string{"-fleet 0", "-capacity 0", "-login 0s", "-backlog 0", "-outage -1s", "-horizon 200h", "-endpoints 0", "-max-wait 1ms", "-initial 1ms", "-initial 2m", "-jitter 100", "word"} {
		if _, err := parse(strings.Fields(args), io.Discard); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	if _, err := parse([]string{"-help"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-help: %v", err)
	}
}

func TestTimersRunInOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var c clock
	var ran []time.Duration
	timers := make([]*timer, 500)
	for i := range timers {
		timers[i] = &timer{run: func() { ran = append(ran, c.now) }}
		c.set(timers[i], time.Duration(r.IntN(1000)))
	}
	for _, t := range timers[:100] {
		c.set(t, time.Duration(r.IntN(1000)))
	}
	for _, t := range timers[100:200] {
		c.timers.take(t)
		c.timers.take(t) // it is not there any more
	}
	c.run(time.Hour, func() bool { return false })
	if len(ran) != 400 || !slices.IsSorted(ran) {
		t.Errorf("%d ran, in order: %v", len(ran), slices.IsSorted(ran))
	}
}

// Of a cluster the devices of one station come back, each once, at the others or there;
// a drain bounds what arrives, and a balancer keeps the stations equal.
func TestAStationOfAClusterRestarts(t *testing.T) {
	for _, drain := range []float64{0, 50} {
		for _, way := range ways {
			f := small(t, "-stations", "5", "-endpoints", "5", "-fleet", "300", "-capacity", "100")
			f.Drain = drain
			way.change(&f)
			all := f.run(manners[0])
			held := 0
			for i, n := range all.nms {
				held += n.held
				if i > 0 {
					held -= f.Devices
				}
			}
			if held != f.Devices || len(all.count.away) != f.Devices {
				t.Errorf("%s, drain %v: %d devices are held and %d were away, of %d", way.name, drain, held, len(all.count.away), f.Devices)
			}
			if peak := all.count.peak(); f.Balanced && drain > 0 && peak > 2*int(drain) {
				t.Errorf("%s, drain %v: %d arrivals in a second", way.name, drain, peak)
			}
			for _, n := range all.nms[2:] {
				if diff := n.held - all.nms[1].held; f.Balanced && (diff < -1 || diff > 1) {
					t.Errorf("%s, drain %v: stations differ by %d devices", way.name, drain, diff)
				}
			}
		}
	}
}
