package main

import (
	"slices"
	"time"
)

// second is what an NMS saw in one.
type second struct{ arrivals, logins, failures int }

// count is what came of a fleet.
type count struct {
	devices int
	outage  time.Duration
	seconds []second // since the NMS went
	back    []time.Duration
	away    []time.Duration // of each device, from the end of its session to the next
	tcp     int             // attempts that failed without a connection
	logins  int             // and with one
	// overloaded is the time after the outage at which the last login failed.
	overloaded time.Duration
}

func (c *count) open(f Fleet) { c.devices, c.outage = f.Devices, f.NMS.Outage }

func (c *count) at(now time.Duration) *second {
	for len(c.seconds) <= int(now/time.Second) {
		c.seconds = append(c.seconds, second{})
	}
	return &c.seconds[now/time.Second]
}

func (c *count) arrived(now time.Duration) { c.at(now).arrivals++ }

func (c *count) failed(now time.Duration, connected bool) {
	c.at(now).failures++
	if !connected {
		c.tcp++
		return
	}
	c.logins++
	c.overloaded = now - c.outage
}

func (c *count) loggedIn(now, gone time.Duration) {
	c.away = append(c.away, now-gone)
	c.at(now).logins++
	c.back = append(c.back, now-c.outage)
}

// peak is the most arrivals in a second after the outage.
func (c *count) peak() int {
	most := 0
	for _, s := range c.seconds[min(int(c.outage/time.Second), len(c.seconds)):] {
		most = max(most, s.arrivals)
	}
	return most
}

// part is the time after the outage at which so many percent of the devices
// were back; false if they never were.
func (c *count) part(percent int) (time.Duration, bool) {
	n := (c.devices*percent + 99) / 100
	if len(c.back) < n {
		return 0, false
	}
	return c.back[max(n, 1)-1], true
}

// percentile is the time at which so many percent of times are over.
func percentile(times []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}
