// Package hub hands each event to all who subscribed, in order, and remembers
// the last ones for those who come later. The manager and the management
// station publish into one. It waits for nobody: a subscriber that falls behind
// is let go, and sees the end of its channel rather than a gap.
package hub

import "sync"

// Backlog is how many events a subscriber may be behind before it is dropped.
const Backlog = 1024

// Remembered is how many events are kept for those who subscribe later.
const Remembered = 256

// Hub is ready for use as it is. Its methods may be called by several
// goroutines.
type Hub[E any] struct {
	mu     sync.Mutex // guards the fields that follow
	subs   map[chan E]bool
	last   []E // the newest at the end
	closed bool
}

// Publish hands e to all subscribers.
func (h *Hub[E]) Publish(e E) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.last) == Remembered {
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

// Subscribe returns what happened last and a channel of what happens from then
// on, with none lost or twice between the two. The channel is closed by cancel,
// by Close, or when the subscriber falls too far behind.
func (h *Hub[E]) Subscribe() (last []E, events <-chan E, cancel func()) {
	c := make(chan E, Backlog)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(c)
		return append([]E{}, h.last...), c, func() {}
	}
	if h.subs == nil {
		h.subs = make(map[chan E]bool)
	}
	h.subs[c] = true
	return append([]E{}, h.last...), c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.subs[c] {
			delete(h.subs, c)
			close(c)
		}
	}
}

// Close ends all subscriptions, those to come too.
func (h *Hub[E]) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for c := range h.subs {
		delete(h.subs, c)
		close(c)
	}
}
