// Package pubsub passes each event to all subscribers, in order, and keeps the last
// ones for those that are behind, and for later ones. The manager and the management
// station publish with it. It never waits for a subscriber. One that is behind by more
// events than are kept learns how many it misses, so that no gap stays unseen.
package pubsub

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"callhome/internal/wake"
)

// Backlog is how many events are kept, unless the Hub says otherwise.
const Backlog = 1024

// Remembered is how many of them a later subscriber gets first.
const Remembered = 256

// Limits on events that can be spared, as a part of all. Unauthenticated peers can
// cause any number of them, and must not push out the other events.
const sparePart = 4

// Hub passes events of type E on. Its zero value is ready for use. Its methods may
// be called by several goroutines.
type Hub[E any] struct {
	// Spare reports whether an event can be spared; nil where none can. It is
	// set before the first call.
	Spare func(E) bool
	// Backlog returns how many events are kept; nil for Backlog. It is set before
	// the first call, and must not call the Hub.
	Backlog func() int

	mu     sync.Mutex // guards the fields that follow
	newest uint64     // number of the newest event; the first has 1
	kept   queue[E]   // events that cannot be spared
	spare  queue[E]
	subs   map[*Subscription[E]]bool
	closed bool
}

// Publish passes e to all subscribers.
func (h *Hub[E]) Publish(e E) {
	limit := Backlog
	if h.Backlog != nil {
		limit = h.Backlog()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.newest++
	n := numbered[E]{h.newest, e}
	if h.Spare != nil && h.Spare(e) {
		h.spare.push(n, max(1, limit/sparePart))
	} else {
		h.kept.push(n, max(1, limit))
	}
	h.wake()
}

// wake wakes all subscribers. The caller holds mu.
func (h *Hub[E]) wake() {
	for s := range h.subs {
		wake.Up(s.more)
	}
}

// Close ends all subscriptions, after the events that are kept.
func (h *Hub[E]) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.wake()
}

// Follow returns a subscription to the events from now on.
func (h *Hub[E]) Follow() *Subscription[E] {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.follow(h.newest)
}

// FollowAfter returns a subscription to the events after that number; ok is false
// where not all of those are kept that cannot be spared, or the number is none yet.
func (h *Hub[E]) FollowAfter(number uint64) (s *Subscription[E], ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.follow(number), number >= h.kept.lost && number <= h.newest
}

func (h *Hub[E]) follow(number uint64) *Subscription[E] {
	s := &Subscription[E]{hub: h, at: number, more: wake.New()}
	if h.subs == nil {
		h.subs = make(map[*Subscription[E]]bool)
	}
	h.subs[s] = true
	return s
}

// Latest returns the last events, at most Remembered, and a subscription to those that
// follow. Of the former, at most a part can be spared.
func (h *Hub[E]) Latest() ([]E, *Subscription[E]) {
	h.mu.Lock()
	defer h.mu.Unlock()
	spare := h.spare.last(Remembered / sparePart)
	all := slices.Concat(h.kept.last(Remembered-len(spare)), spare)
	slices.SortFunc(all, func(a, b numbered[E]) int { return cmp.Compare(a.number, b.number) })
	out := make([]E, len(all))
	for i, n := range all {
		out[i] = n.event
	}
	return out, h.follow(h.newest)
}

// Subscribe returns the last events and a channel of the following ones; no event
// is missing or in both. The channel is closed by cancel, after Close, or when events
// are missing that cannot be spared. Without cancel, a goroutine waits for the reader.
func (h *Hub[E]) Subscribe() (last []E, events <-chan E, cancel func()) {
	last, s := h.Latest()
	events, cancel = Pump(func(ctx context.Context) (E, bool) {
		e, missed, ok := s.Next(ctx)
		return e, ok && !missed
	}, s.Close)
	return last, events, cancel
}

// Pump sends what next returns to a channel, which is closed after cancel, or when next
// has no more. Then it calls done.
func Pump[E any](next func(context.Context) (E, bool), done func()) (events <-chan E, cancel func()) {
	ctx, cancel := context.WithCancel(context.Background())
	c := make(chan E, 16)
	go func() {
		defer done()
		defer close(c)
		for {
			e, ok := next(ctx)
			if !ok || ctx.Err() != nil {
				return
			}
			select {
			case c <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	return c, cancel
}

// Subscription is a place in the events of a Hub. One goroutine at a time may use it.
type Subscription[E any] struct {
	hub  *Hub[E]
	at   uint64 // number of the last event that it has returned, or that was before it
	more chan struct{}
}

// Next returns the next event, and waits for it until ctx ends. ok is false when no
// event is left and ctx has ended or the Hub is closed. missed reports that events before it
// are no longer kept that cannot be spared.
func (s *Subscription[E]) Next(ctx context.Context) (e E, missed, ok bool) {
	for {
		e, missed, found, open := s.take()
		if found || !open || ctx.Err() != nil {
			return e, missed, found
		}
		select {
		case <-s.more:
		case <-ctx.Done():
		}
	}
}

// take returns the next event if there is one, and whether the Hub is open.
func (s *Subscription[E]) take() (e E, missed, found, open bool) {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	kept, isKept := h.kept.after(s.at)
	spare, isSpare := h.spare.after(s.at)
	next := kept
	if isSpare && (!isKept || spare.number < kept.number) {
		next = spare
	}
	if !isKept && !isSpare {
		return e, false, false, !h.closed
	}
	missed = s.at < h.kept.lost
	s.at = next.number
	return next.event, missed, true, true
}

// Skip passes over all events that there are. It returns how many.
func (s *Subscription[E]) Skip() uint64 {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	n := s.hub.newest - s.at
	s.at = s.hub.newest
	return n
}

// Close ends the subscription.
func (s *Subscription[E]) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.hub.subs, s)
}
