package station

import (
	"time"

	"callhome/internal/nms/nmsproto"
)

// anybodys are the events that anybody can cause who can reach the port. They
// never push others out of what is remembered (package hub).
var anybodys = map[string]bool{nmsproto.EventRefused: true, nmsproto.EventUnknown: true, nmsproto.EventDuplicate: true}

// comings are the events that a device can cause by coming and going.
var comings = map[string]bool{nmsproto.EventUp: true, nmsproto.EventDown: true, nmsproto.EventReplaced: true}

// Of one kind of anybody's events this many are told in a window; the rest is counted and
// told with the next one. Anybody can cause them.
const (
	quietWindow = 10 * time.Second
	quietMost   = 20
)

// quiet decides which events to tell. It is pure.
type quiet struct {
	begun  time.Time
	told   int
	unsaid int
}

// tell reports whether to tell an event now, and how many were not.
func (q *quiet) tell(now time.Time) (unsaid int, ok bool) {
	// A clock that was set back must not make the window last until it is there
	// again.
	if now.Sub(q.begun) >= quietWindow || now.Before(q.begun) {
		q.begun, q.told = now, 0
	}
	if q.told >= quietMost {
		q.unsaid++
		return 0, false
	}
	q.told++
	unsaid, q.unsaid = q.unsaid, 0
	return unsaid, true
}

// Of one device's comings and goings this many are told as they happen, and
// from then on one in this time. A device that calls for a minute each, as often
// as periodic connections can, is told of whole.
const (
	comingMost  = 10
	comingEvery = 30 * time.Second
)

// coming decides which comings and goings of one device to tell. The last one is
// told in any case, if late: it says how the device stands. It is pure.
type coming struct {
	spent  int // of comingMost
	since  time.Time
	last   *nmsproto.Event // waits for its turn
	unsaid int             // before last
}

// tell returns e, if it is to be told now, with how many were not. Otherwise e
// is the last one, whose turn comes after wait.
func (c *coming) tell(e nmsproto.Event, now time.Time) (told *nmsproto.Event, wait time.Duration) {
	if c.last != nil {
		c.last = nil
		c.unsaid++
	}
	back := int(now.Sub(c.since) / comingEvery)
	c.spent = max(0, c.spent-max(0, back))
	c.since = c.since.Add(time.Duration(back) * comingEvery)
	if c.spent == 0 || now.Before(c.since) {
		c.since = now
	}
	if c.spent == comingMost {
		c.last = &e
		return nil, c.since.Add(comingEvery).Sub(now)
	}
	c.spent++
	e.Unsaid, c.unsaid = c.unsaid, 0
	return &e, 0
}

// takeLast returns the event that waits, nil if there is none.
func (c *coming) takeLast() *nmsproto.Event {
	last := c.last
	c.last = nil
	return last
}
