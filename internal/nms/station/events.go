package station

import (
	"sync"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/pubsub"
	"callhome/internal/ratelimit"
)

// peerEvents are the events that any unauthenticated peer can cause. They never
// push other events out of the backlog of package pubsub.
var peerEvents = map[string]bool{nmsproto.EventRefused: true, nmsproto.EventUnknown: true, nmsproto.EventDuplicate: true}

// stateEvents are the events that a device causes by connecting and
// disconnecting.
var stateEvents = map[string]bool{nmsproto.EventUp: true, nmsproto.EventDown: true, nmsproto.EventReplaced: true}

// peerLimit bounds each kind of peerEvents: 20 at once, then one in 0.5 s.
var peerLimit = ratelimit.Limit{Burst: 20, Window: 10 * time.Second}

// stateLimit bounds the stateEvents of one device: 10 at once, then one in 30 s. A
// device that connects for a minute each, as often as periodic connections can, is
// reported in full.
var stateLimit = ratelimit.Limit{Burst: 10, Window: 5 * time.Minute}

// publisher publishes the station's events in order and rate-limited. The station
// calls its methods with its mu held.
type publisher struct {
	hub pubsub.Hub[nmsproto.Event]
	// changed passes the id of each device whose state has changed, in full: what
	// follows a device's state must not depend on what is reported of it.
	changed pubsub.Hub[string]
	kinds   map[string]*ratelimit.Limit // of peerEvents
	devices map[string]*deviceEvents    // by device
	mu      sync.Locker                 // the station's, for events that a timer publishes
	// sequence is that of the last event, and before that of the last one of an earlier
	// run. The number of an event in hub is the difference.
	sequence, before uint64
	station          string               // of each event; "" without a cluster
	note             func(nmsproto.Event) // called with each event, also one that is dropped
}

// deviceEvents are the stateEvents of one device. The last one is always
// published, perhaps late: it has the device's present state.
type deviceEvents struct {
	limit ratelimit.Limit
	last  *nmsproto.Event // held back; nil if none is
	later *time.Timer     // publishes last; nil if no event is held back
	// forgotten is set when the device was removed while an event was held back.
	forgotten bool
}

func newPublisher(mu sync.Locker, station string, note func(nmsproto.Event)) *publisher {
	p := &publisher{kinds: make(map[string]*ratelimit.Limit), devices: make(map[string]*deviceEvents), mu: mu, station: station, note: note}
	p.before = uint64(time.Now().UnixMicro()) - 1
	p.sequence = p.before
	p.hub.Spare = func(e nmsproto.Event) bool { return peerEvents[e.Event] }
	return p
}

// publish publishes e at once, holds it back, or drops it, as its rate limit says.
func (p *publisher) publish(e nmsproto.Event) {
	now := time.Now() // UTC would drop its monotonic reading
	e.Time = now.UTC()
	p.note(e)
	switch {
	case peerEvents[e.Event]:
		l := p.kinds[e.Event]
		if l == nil {
			fresh := peerLimit
			l = &fresh
			p.kinds[e.Event] = l
		}
		var ok bool
		if e.Unsaid, ok = l.Allow(now); ok {
			p.send(e)
		}
	case stateEvents[e.Event]:
		p.publishState(e, now)
	default:
		p.send(e)
	}
}

// send publishes e with the next number.
func (p *publisher) send(e nmsproto.Event) {
	p.sequence++
	e.Sequence, e.Station = p.sequence, p.station
	p.hub.Publish(e)
}

// publishState publishes a device's state event at once, or when the rate limit lets
// it, unless a newer one has replaced it.
func (p *publisher) publishState(e nmsproto.Event, now time.Time) {
	p.changed.Publish(e.Device)
	d := p.devices[e.Device]
	if d == nil {
		d = &deviceEvents{limit: stateLimit}
		p.devices[e.Device] = d
	}
	d.forgotten = false
	var ok bool
	if e.Unsaid, ok = d.limit.Allow(now); ok {
		d.last = nil
		p.send(e)
		return
	}
	d.last = &e
	if d.later == nil {
		d.later = time.AfterFunc(d.limit.Wait(now), func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			d.later = nil
			if d.last != nil {
				p.publishLast(d)
			}
			if d.forgotten {
				delete(p.devices, e.Device)
			}
		})
	}
}

// forget drops the rate limit of a device, after the event that is held back.
func (p *publisher) forget(device string) {
	switch d := p.devices[device]; {
	case d == nil:
	case d.later == nil:
		delete(p.devices, device)
	default:
		d.forgotten = true
	}
}

// publishLast publishes the event that is held back.
func (p *publisher) publishLast(d *deviceEvents) {
	dropped, ok := d.limit.Allow(time.Now())
	if !ok {
		dropped = d.limit.Rest() - 1 // less the count of this refusal
	}
	d.last.Unsaid = dropped - 1 // it was counted when it was held back
	p.send(*d.last)
	d.last = nil
}

// close publishes the events that are held back, and ends the subscriptions.
func (p *publisher) close() {
	for _, d := range p.devices {
		if d.later != nil {
			d.later.Stop()
		}
		if d.last != nil {
			p.publishLast(d)
		}
	}
	p.hub.Close()
	p.changed.Close()
}
