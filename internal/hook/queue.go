package hook

// Bounds of what one hook costs the machine.
const (
	maxRunning = 4
	maxWaiting = 256
)

// verdict says what becomes of an event.
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

// offer takes an event in. After start the caller runs it, and asks next when
// that has ended.
func (q *queue) offer(e Event) verdict {
	switch {
	case q.running < maxRunning:
		q.running++
		return start
	case len(q.waiting) < maxWaiting:
		q.waiting = append(q.waiting, e)
		return wait
	}
	return drop
}

// next is told that a run has ended, and returns what to run in its place.
func (q *queue) next() (e Event, more bool) {
	if len(q.waiting) == 0 {
		q.running--
		return e, false
	}
	e = q.waiting[0]
	q.waiting[0] = Event{} // its words need not stay until the array is left
	q.waiting = q.waiting[1:]
	return e, true
}

// clear forgets what waits and returns how much that was.
func (q *queue) clear() int {
	n := len(q.waiting)
	q.waiting = nil
	return n
}
