package station

import (
	"fmt"
	"slices"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/wire"
	"callhome/internal/proto"
)

// drain is the end of all connections at a rate. The station's mu guards it.
type drain struct {
	nmsproto.DrainParams
	since time.Time
}

// draining is the cause of the end of each connection while the station is drained.
const draining = "the station is being drained"

// drainStep is how often connections are ended during a drain.
const drainStep = 20 * time.Millisecond

// maxDrainRate bounds the rate of a drain.
const maxDrainRate = 100_000

// Drain takes no further call homes, and ends all connections at a rate: first those
// without a session, each of the others when its last session has ended, or when
// SessionTime is over. It returns at once; errors are *proto.Error. A second call changes
// the rate and SessionTime.
func (s *Station) Drain(p nmsproto.DrainParams) (nmsproto.Drain, error) {
	if p.Rate < 1 || p.Rate > maxDrainRate || p.SessionTime < 0 {
		return nmsproto.Drain{}, proto.NewError(proto.CodeBadType, fmt.Sprintf("a rate of %d devices a second and %v for sessions: expected 1 to %d, and no time below 0", p.Rate, p.SessionTime, maxDrainRate))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drain != nil {
		s.drain.DrainParams = p
		return *s.drained(), nil
	}
	s.drain = &drain{p, time.Now().UTC()}
	held := s.dismiss()
	s.events.publish(nmsproto.Event{Event: nmsproto.EventDraining, Cause: fmt.Sprintf("connected devices: %d; ended a second: %d", len(held), p.Rate)})
	if !s.stopping {
		s.wg.Go(func() { s.endAll(held) })
	}
	return *s.drained(), nil
}

func (s *Station) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drain != nil
}

// closing is why the station holds no further connection.
func (s *Station) closing() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return stopping
	}
	return draining
}

// drained returns how far the drain has come; nil without one. The caller holds mu.
func (s *Station) drained() *nmsproto.Drain {
	if s.drain == nil {
		return nil
	}
	out := &nmsproto.Drain{DrainParams: s.drain.DrainParams, Since: s.drain.since}
	for _, d := range s.devices {
		if d.connection == nil {
			continue
		}
		out.Left++
		if d.connection.busy() {
			out.Busy++
		}
	}
	return out
}

// busy reports whether the connection has a session, or one that is being opened.
func (h *connection) busy() bool { return h.sessions.Load()+h.opening.Load() > 0 }

// endAll ends these connections at the drain's rate, and returns when all have ended.
// No other connection can become a device's after Drain.
func (s *Station) endAll(held []*connection) {
	tick := time.NewTicker(drainStep)
	defer tick.Stop()
	var patience time.Time // when the last sessions must end; zero while others are ended
	last, due := time.Now(), 1.0
	for waiting := slices.Clone(held); len(waiting) > 0; {
		s.mu.Lock()
		rate, sessionTime, over := float64(s.drain.Rate), s.drain.SessionTime, s.stopping
		s.mu.Unlock()
		if over {
			return // stop ends the others
		}
		now := time.Now()
		due = min(due+rate*now.Sub(last).Seconds(), max(1, rate))
		last = now
		waiting, due = endSome(waiting, due, !patience.IsZero() && now.Sub(patience) >= sessionTime)
		if patience.IsZero() && due >= 1 { // all the rest have sessions
			patience = now
		}
		<-tick.C
	}
	for _, h := range held {
		<-h.done
	}
	for {
		s.mu.Lock()
		left := s.drained().Left
		if left == 0 || s.stopping {
			s.events.publish(nmsproto.Event{Event: nmsproto.EventDrained, Cause: fmt.Sprintf("ended devices: %d, in %v", len(held)-left, time.Since(s.drain.since).Round(100*time.Millisecond))})
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		<-tick.C
	}
}

// endSome ends up to due connections, those with a session only if all is set. It returns
// the others, and what is left of due.
func endSome(waiting []*connection, due float64, all bool) ([]*connection, float64) {
	rest := waiting[:0]
	for _, h := range waiting {
		switch {
		case h.ended():
		case due >= 1 && (all || !h.busy()):
			h.end(draining, wire.NotAvailable)
			due--
		default:
			rest = append(rest, h)
		}
	}
	return rest, due
}

// ended reports whether the connection has been ended.
func (h *connection) ended() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}
