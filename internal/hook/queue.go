package hook

// Bounds of what one hook costs the machine.
const (
	maxRunning = 4
	maxWaiting = 256
)

// verdict is what happens with an event.
type verdict string

const (
	start verdict = "start"
	wait  verdict = "wait"
	drop  verdict = "drop"
)

// queue decides how many run and what waits, the oldest first. It is pure.
type queue struct {
	running int
	waiting []Event
}

// offer adds an event, of which at most so many may wait. After start the caller runs it, and calls next when the run
// has ended.
func (q *queue) offer(e Event, most int) verdict {
	switch {
	case q.running < maxRunning:
		q.running++
		return start
	case len(q.waiting) < most:
		q.waiting = append(q.waiting, e)
		return wait
	}
	return drop
}

// next records that a run has ended, and returns the event to run next.
func (q *queue) next() (e Event, more bool) {
	if len(q.waiting) == 0 {
		q.running--
		return e, false
	}
	e = q.waiting[0]
	q.waiting[0] = Event{} // so that the array does not keep its text in memory
	q.waiting = q.waiting[1:]
	return e, true
}

// drain drops the events that wait and returns how many there were.
func (q *queue) drain() int {
	n := len(q.waiting)
	q.waiting = nil
	return n
}
