package station

import "time"

// Of one kind of event this many are told in a window; the rest is counted and
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
