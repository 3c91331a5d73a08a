package station

import (
	"container/list"
	"runtime"
	"sync"

	"callhome/internal/nms/admission"
)

// turns bounds how many logins compute at the same time. The next turn goes to the
// login of the highest priority that has waited longest: otherwise a device would wait
// for each peer that has begun a key exchange before it.
type turns struct {
	mu      sync.Mutex // guards the fields that follow
	free    int
	waiting [admission.Suspect + 1]list.List // of chan struct{}, which is closed with the turn
}

// newTurns returns turns for three quarters of the processors, at least one turn. The
// rest is for held connections and their sessions.
func newTurns() *turns { return &turns{free: turnsOf(runtime.GOMAXPROCS(0))} }

func turnsOf(processors int) int { return max(1, processors-max(1, processors/4)) }

// take waits for a turn, which the caller must give back. It returns false, without a
// turn, when done is closed first.
func (t *turns) take(p admission.Priority, done <-chan struct{}) bool {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return true
	}
	turn := make(chan struct{})
	e := t.waiting[p].PushBack(turn)
	t.mu.Unlock()
	select {
	case <-turn:
		return true
	case <-done:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-turn: // it came together with done
		t.pass()
	default:
		t.waiting[p].Remove(e)
	}
	return false
}

// give gives a turn back.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pass()
}

// pass passes a turn on. The caller holds mu.
func (t *turns) pass() {
	for i := range t.waiting {
		if e := t.waiting[i].Front(); e != nil {
			close(t.waiting[i].Remove(e).(chan struct{}))
			return
		}
	}
	t.free++
}
