package manager

import (
	"sync"

	"callhome/internal/proto"
)

// backlog is how many events a subscriber may be behind before it is dropped.
const backlog = 1024

// remembered is how many events are kept for those who subscribe later.
const remembered = 256

// hub hands each event to all subscribers and waits for none.
type hub struct {
	mu     sync.Mutex // guards the fields that follow
	subs   map[chan proto.Event]bool
	last   []proto.Event // the newest at the end
	closed bool
}

func (h *hub) publish(e proto.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.last) == remembered {
		h.last = append(h.last[:0], h.last[1:]...)
	}
	h.last = append(h.last, e)
	for c := range h.subs {
		select {
		case c <- e:
		default:
			// It would miss events and not know: better it sees the end.
			delete(h.subs, c)
			close(c)
		}
	}
}

// subscribe returns what happened last and a channel of what happens from then
// on, with none lost or twice between the two.
func (h *hub) subscribe() ([]proto.Event, <-chan proto.Event, func()) {
	c := make(chan proto.Event, backlog)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(c)
		return append([]proto.Event{}, h.last...), c, func() {}
	}
	if h.subs == nil {
		h.subs = make(map[chan proto.Event]bool)
	}
	h.subs[c] = true
	return append([]proto.Event{}, h.last...), c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.subs[c] {
			delete(h.subs, c)
			close(c)
		}
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for c := range h.subs {
		delete(h.subs, c)
		close(c)
	}
}
