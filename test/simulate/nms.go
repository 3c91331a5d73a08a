package main

import (
	"math"
	"time"
)

// NMS is what a management station can bear.
type NMS struct {
	Capacity    float64       // logins a second that it has the power for
	Login       time.Duration // that a login takes when there is no other
	Concurrency int           // logins that it works on at once
	Backlog     int           // connections that its kernel holds for it meanwhile
	Grace       time.Duration // after which it ends a login that is not done
	Outage      time.Duration // for which it answers no call
	Silent      bool          // in the outage: no answer at all, instead of a refusal
	Reset       bool          // with a full backlog: a reset, instead of no answer
}

// deadWork is the part of a login's work that goes into a connection which the
// device has given up before the NMS came to it: it sends its banner and its
// part of the key exchange before it learns that the device is gone.
const deadWork = 0.1

// conn is a connection that has come to an NMS.
type conn struct {
	device   *device
	finish   float64 // value of the NMS's progress at which the login is done
	deadline time.Duration
	at       int  // in serving
	gone     bool // one end has closed it
}

func (c *conn) before(d *conn) bool { return c.finish < d.finish }
func (c *conn) place() *int         { return &c.at }

// nms works on its logins side by side, as threads or an event loop do: all
// get the same part of its power, none is faster than Login. With too many of
// them none is done before its Grace, and all the work was for nothing: this is
// how a herd keeps an NMS down that is up.
type nms struct {
	NMS
	clock    *clock
	timer    timer
	open     bool
	serving  queue[*conn]
	accepted []*conn // by their deadlines; some are gone
	backlog  []*conn
	// progress is what a login would have got done since the beginning, in
	// logins, had it been there all the time.
	progress float64
	since    time.Duration // when progress was true
	held     int           // devices that have logged in
	seconds  map[int]int   // SYNs in each second
}

func newNMS(what NMS, clock *clock) *nms {
	n := &nms{NMS: what, clock: clock, seconds: make(map[int]int)}
	n.timer.run = n.goOn
	opening := &timer{run: func() { n.open = true }}
	clock.set(opening, n.Outage)
	return n
}

// answer is what a SYN meets.
type answer int

const (
	silence answer = iota
	refusal
	welcome
)

// knock is a SYN from d; the connection is nil unless it is welcome.
func (n *nms) knock(d *device) (answer, *conn) {
	n.seconds[int(n.clock.now/time.Second)]++
	switch {
	case !n.open && n.Silent, n.open && n.full() && !n.Reset:
		return silence, nil
	case !n.open, n.full():
		return refusal, nil
	}
	c := &conn{device: d}
	n.backlog = append(n.backlog, c)
	n.work()
	return welcome, c
}

func (n *nms) full() bool { return len(n.serving) >= n.Concurrency && len(n.backlog) >= n.Backlog }

// drop is the device's end of a connection.
func (n *nms) drop(c *conn) {
	c.gone = true
	n.advance()
	n.serving.take(c)
	n.work()
}

// rate is the progress of each login, in logins a second.
func (n *nms) rate() float64 {
	return min(1/n.Login.Seconds(), n.Capacity/float64(max(len(n.serving), 1)))
}

func (n *nms) advance() {
	n.progress += (n.clock.now - n.since).Seconds() * n.rate()
	n.since = n.clock.now
}

// work accepts what there is room for and sets the timer for what comes next.
func (n *nms) work() {
	n.advance()
	for len(n.backlog) > 0 && len(n.serving) < n.Concurrency {
		c := n.backlog[0]
		n.backlog = n.backlog[1:]
		c.finish, c.deadline = n.progress+1, n.clock.now+n.Grace
		if c.gone {
			c.finish = n.progress + deadWork
		}
		n.serving.put(c)
		n.accepted = append(n.accepted, c)
	}
	for len(n.accepted) > 0 && n.accepted[0].at == 0 {
		n.accepted = n.accepted[1:]
	}
	if len(n.serving) == 0 {
		return
	}
	left := max(0, n.serving[0].finish-n.progress) / n.rate()
	done := n.clock.now + time.Duration(math.Ceil(left*float64(time.Second)))
	n.clock.set(&n.timer, min(done, n.accepted[0].deadline))
}

// goOn finishes the logins that are done and ends those that took too long.
func (n *nms) goOn() {
	n.advance()
	const rounding = 1e-9
	for len(n.serving) > 0 && n.serving[0].finish <= n.progress+rounding {
		c := n.serving[0]
		n.serving.take(c)
		if !c.gone {
			c.device.loggedIn()
		}
	}
	for ; len(n.accepted) > 0 && (n.accepted[0].at == 0 || n.accepted[0].deadline <= n.clock.now); n.accepted = n.accepted[1:] {
		if c := n.accepted[0]; c.at > 0 {
			n.serving.take(c)
			if !c.gone {
				c.gone = true
				c.device.hungUp()
			}
		}
	}
	n.work()
}
