// Package pubsub passes each event to all subscribers, in order, and keeps the last
// ones for later subscribers. The manager and the management station publish with
// it. It never waits for a subscriber: one that falls behind first misses the
// events that can be spared, then its channel is closed, so that no gap stays
// unseen.
package pubsub

import (
	"slices"
	"sync"
)

// Backlog is how many events a subscriber may be behind before its channel is
// closed.
const Backlog = 1024

// Remembered is how many events are kept for those who subscribe later.
const Remembered = 256

// Limits on events that can be spared. Unauthenticated peers can cause any number
// of them, and must neither end a subscription nor push out the other events.
const (
	spareBacklog    = Backlog / 2    // a subscriber that is further behind does not get them
	spareRemembered = Remembered / 4 // how many of them are kept
)

// Hub passes events of type E on. Its zero value is ready for use. Its methods may
// be called by several goroutines.
type Hub[E any] struct {
	// Spare reports whether an event can be spared; nil where none can. It is
	// set before the first call.
	Spare func(E) bool

	mu     sync.Mutex // guards the fields that follow
	subs   map[chan E]bool
	last   []E // the newest at the end
	spares int // of last, those that can be spared
	closed bool
}

// Publish passes e to all subscribers, an event that can be spared only to those
// that are less than spareBacklog behind.
func (h *Hub[E]) Publish(e E) {
	h.mu.Lock()
	defer h.mu.Unlock()
	spare := h.spare(e)
	h.remember(e, spare)
	for c := range h.subs {
		if spare && len(c) >= spareBacklog {
			continue
		}
		select {
		case c <- e:
		default:
			// The end of the channel shows the subscriber that events are missing.
			delete(h.subs, c)
			close(c)
		}
	}
}

func (h *Hub[E]) spare(e E) bool { return h.Spare != nil && h.Spare(e) }

// remember keeps e in place of the oldest: of those that can be spared, or of all.
func (h *Hub[E]) remember(e E, spare bool) {
	if spare {
		if h.spares == spareRemembered {
			h.forget(slices.IndexFunc(h.last, h.spare))
		}
		h.spares++
	}
	if len(h.last) == Remembered {
		h.forget(0)
	}
	h.last = append(h.last, e)
}

func (h *Hub[E]) forget(i int) {
	if h.spare(h.last[i]) {
		h.spares--
	}
	h.last = slices.Delete(h.last, i, i+1)
}

// Subscribe returns the last events and a channel of the following ones; no event
// is missing or in both. The channel is closed by cancel, by Close, or when the
// subscriber falls too far behind.
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

// Close ends all subscriptions; later ones get a closed channel.
func (h *Hub[E]) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for c := range h.subs {
		delete(h.subs, c)
		close(c)
	}
}
