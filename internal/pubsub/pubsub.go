// Package pubsub hands each event to all who subscribed, in order, and remembers
// the last ones for those who come later. The manager and the management
// station publish into one. It waits for nobody: a subscriber that falls behind
// is let go, and sees the end of its channel rather than a gap. Events that can
// be spared are left out before that.
package pubsub

import (
	"slices"
	"sync"
)

// Backlog is how many events a subscriber may be behind before it is dropped.
const Backlog = 1024

// Remembered is how many events are kept for those who subscribe later.
const Remembered = 256

// Bounds of events that can be spared, so that who can cause any number of them
// neither cuts a subscriber off nor makes the others forgotten.
const (
	spareBacklog    = Backlog / 2    // a subscriber that is so far behind does not get them
	spareRemembered = Remembered / 4 // how many of them are kept
)

// Hub is ready for use as it is. Its methods may be called by several
// goroutines.
type Hub[E any] struct {
	// Spare says which events can be spared; nil for none. It is set before
	// anything else is done.
	Spare func(E) bool

	mu     sync.Mutex // guards the fields that follow
	subs   map[chan E]bool
	last   []E // the newest at the end
	spares int // of last, those that can be spared
	closed bool
}

// Publish hands e to all subscribers; one that can be spared only to those who
// are not far behind.
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
			// It would miss events and not know: better it sees the end.
			delete(h.subs, c)
			close(c)
		}
	}
}

func (h *Hub[E]) spare(e E) bool { return h.Spare != nil && h.Spare(e) }

// remember keeps e in the place of the oldest: of its kind, or of all.
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
