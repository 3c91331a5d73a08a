package station

import (
	"context"
	"fmt"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/pubsub"
)

// backlog is how many events are kept for followers that are behind: a fleet that is
// lost and comes back makes two of each device.
func (s *Station) backlog() int { return pubsub.Backlog + 2*s.config.Registry.Len() }

// maxReplay bounds the events that SubscribeAfter returns at once. The channel has more.
const maxReplay = 1 << 14

// Feed passes the station's events to one follower. If events are missing, it passes
// the states of the devices instead: a resync. One goroutine at a time may use it.
type Feed struct {
	station *Station
	from    *pubsub.Subscription[nmsproto.Event]
	last    uint64 // sequence
	// states are those of a resync that Next has still to return.
	states []nmsproto.Event
}

// Follow returns the events from now on.
func (s *Station) Follow() *Feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Feed{station: s, from: s.events.hub.Follow(), last: s.events.sequence}
}

// FollowAfter returns the events after that sequence. If not all of them are kept, it
// begins with a resync.
func (s *Station) FollowAfter(sequence uint64) *Feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &Feed{station: s, last: sequence}
	p, cause := s.events, ""
	switch {
	case sequence == 0:
		cause = "the follower begins"
	case sequence < p.before:
		cause = "the station was started since that sequence"
	case sequence > p.sequence:
		cause = "no event has that sequence yet"
	}
	var kept bool
	f.from, kept = p.hub.FollowAfter(sequence - p.before) // any number, where there is a cause
	if cause == "" && !kept {
		cause = "the events after that sequence are no longer kept"
	}
	if cause != "" {
		f.resync(cause, 0)
	}
	return f
}

// Next returns the next event, and waits for it until ctx ends. ok is false when no
// event is left and ctx has ended or the station has stopped. No event is missing: what is
// says a resync, or Missed.
func (f *Feed) Next(ctx context.Context) (e nmsproto.Event, missed, ok bool) {
	if len(f.states) > 0 {
		e, f.states = f.states[0], f.states[1:]
		return e, false, true
	}
	e, missed, ok = f.from.Next(ctx)
	switch {
	case !ok:
		return e, false, false
	case missed:
		f.station.mu.Lock()
		more := f.from.Skip()
		f.resync("the follower was too slow", e.Sequence-f.last+more)
		f.station.mu.Unlock()
		return f.Next(ctx)
	}
	e.Missed = e.Sequence - f.last - 1
	f.last = e.Sequence
	return e, false, true
}

// Close ends the feed.
func (f *Feed) Close() { f.from.Close() }

// resync passes over all events, and has Next return the states of the devices. The
// caller holds the station's mu, so none of them changes meanwhile.
func (f *Feed) resync(cause string, missed uint64) {
	s, p := f.station, f.station.events
	f.from.Skip()
	f.last = p.sequence
	now := time.Now().UTC()
	f.states = append(f.states, nmsproto.Event{Time: now, Event: nmsproto.EventResync, Station: p.station, Cause: cause, Missed: missed})
	for id, device := range s.devices {
		d := device.seen
		if d.Since == nil || s.config.Registry.Entry(id) == nil {
			continue
		}
		e := nmsproto.Event{Time: *d.Since, Event: nmsproto.EventUp, Station: p.station, Device: id, Address: d.Address,
			Software: d.Software, HostKey: d.HostKey, Certificate: d.Certificate, Resync: true}
		if d.State == nmsproto.Lost {
			e.Event, e.Cause = nmsproto.EventDown, d.LastError
		}
		f.states = append(f.states, e)
	}
	f.states = append(f.states, nmsproto.Event{Time: now, Event: nmsproto.EventInSync, Station: p.station, Sequence: f.last, Cause: fmt.Sprintf("devices: %d", len(f.states)-1)})
}

// Subscribe returns the last events and a channel of those that follow, as Feed passes
// them. The channel is closed after cancel, or when the station has stopped.
func (s *Station) Subscribe() (last []nmsproto.Event, events <-chan nmsproto.Event, cancel func()) {
	s.mu.Lock()
	last, from := s.events.hub.Latest()
	f := &Feed{station: s, from: from, last: s.events.sequence}
	s.mu.Unlock()
	events, cancel = f.pump()
	return last, events, cancel
}

// SubscribeAfter is Subscribe with the events after that sequence.
func (s *Station) SubscribeAfter(sequence uint64) (last []nmsproto.Event, events <-chan nmsproto.Event, cancel func()) {
	f := s.FollowAfter(sequence)
	now, cancel := context.WithCancel(context.Background())
	cancel()
	last = []nmsproto.Event{}
	for len(last) < maxReplay {
		e, _, ok := f.Next(now)
		if !ok {
			break
		}
		last = append(last, e)
	}
	events, cancel = f.pump()
	return last, events, cancel
}

func (f *Feed) pump() (events <-chan nmsproto.Event, cancel func()) {
	return pubsub.Pump(func(ctx context.Context) (nmsproto.Event, bool) {
		e, _, ok := f.Next(ctx)
		return e, ok
	}, f.Close)
}
