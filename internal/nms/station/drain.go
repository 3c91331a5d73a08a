package station

import (
	"fmt"
	"slices"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/wire"
	"callhome/internal/proto"
)

// drain is the end of connections at a rate. The station's mu guards it.
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

// Drain ends connections at a rate: first those without a session, each of the others when
// its last session has ended, or when SessionTime is over. With DownTo it ends when no more
// devices are connected, or each of those of the beginning was ended, and devices may call
// meanwhile. Otherwise the station takes no further call homes. It returns at once; errors
// are *proto.Error. A second call changes what the first one said.
func (s *Station) Drain(p nmsproto.DrainParams) (nmsproto.Drain, error) {
	if p.Rate < 1 || p.Rate > maxDrainRate || p.SessionTime < 0 || p.DownTo < 0 {
		return nmsproto.Drain{}, proto.NewError(proto.CodeBadType, fmt.Sprintf("a rate of %d devices a second, %v for sessions and %d devices left: expected 1 to %d, and nothing below 0", p.Rate, p.SessionTime, p.DownTo, maxDrainRate))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drain != nil {
		if (s.drain.DownTo == 0) != (p.DownTo == 0) {
			return nmsproto.Drain{}, proto.NewError(proto.CodeBusy, "draining the station: another drain is under way, of all devices or down to a number; that of all ends with a restart")
		}
		s.drain.DrainParams = p
		return *s.drained(), nil
	}
	d := &drain{p, time.Now().UTC()}
	if left := s.left(d); p.DownTo > 0 && left.Left <= p.DownTo {
		return *left, nil
	}
	s.drain = d
	held := s.held()
	if p.DownTo == 0 {
		s.dismiss()
	}
	s.events.publish(nmsproto.Event{Event: nmsproto.EventDraining, Cause: fmt.Sprintf("connected devices: %d; to be left: %d; ended a second: %d", len(held), p.DownTo, p.Rate)})
	if !s.stopping {
		s.wg.Go(func() { s.endAll(held) })
	}
	return *s.drained(), nil
}

func (s *Station) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drainsAll()
}

// drainsAll reports whether the station takes no further call homes. The caller holds mu.
func (s *Station) drainsAll() bool { return s.drain != nil && s.drain.DownTo == 0 }

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
	return s.left(s.drain)
}

func (s *Station) left(d *drain) *nmsproto.Drain {
	out := &nmsproto.Drain{DrainParams: d.DrainParams, Since: d.since}
	for _, one := range s.devices {
		h := one.connection
		// One that was ended closes up to a second later: no other is to be ended for it.
		if h == nil || d.DownTo > 0 && h.ended() {
			continue
		}
		out.Left++
		if h.busy() {
			out.Busy++
		}
	}
	return out
}

// busy reports whether the connection has a session, or one that is being opened.
func (h *connection) busy() bool { return h.sessions.Load()+h.opening.Load() > 0 }

// endAll ends these connections at the drain's rate, and returns when the drain is over.
func (s *Station) endAll(held []*connection) {
	tick := time.NewTicker(drainStep)
	defer tick.Stop()
	var patience time.Time // when the last sessions must end; zero while others are ended
	last, due := time.Now(), 1.0
	for waiting := slices.Clone(held); ; <-tick.C {
		waiting = slices.DeleteFunc(waiting, (*connection).ended)
		s.mu.Lock()
		d := s.drained()
		over := s.stopping // stop ends the others
		switch {
		case over:
		case d.DownTo == 0:
			over = d.Left == 0 // the end of a connection may not have been noticed yet
		default:
			over = d.Left <= d.DownTo || len(waiting) == 0
		}
		if over {
			s.endDrain(len(held) - len(waiting))
		}
		s.mu.Unlock()
		if over {
			return
		}
		rate, now := float64(d.Rate), time.Now()
		due = min(due+rate*now.Sub(last).Seconds(), max(1, rate))
		last = now
		may := due
		if d.DownTo > 0 {
			may = min(due, float64(d.Left-d.DownTo))
		}
		var left float64
		waiting, left = endSome(waiting, may, !patience.IsZero() && now.Sub(patience) >= d.SessionTime)
		due -= may - left
		if patience.IsZero() && left >= 1 { // all the rest have sessions
			patience = now
		}
	}
}

// endDrain publishes the end of a drain. The caller holds mu.
func (s *Station) endDrain(ended int) {
	if s.stopping {
		return
	}
	s.events.publish(nmsproto.Event{Event: nmsproto.EventDrained, Cause: fmt.Sprintf("ended devices: %d, in %v", ended, time.Since(s.drain.since).Round(100*time.Millisecond))})
	if s.drain.DownTo > 0 {
		s.drain = nil
	}
}

// endSome ends up to due connections, those with a session only if all is set. It returns
// the others, and what is left of due.
func endSome(waiting []*connection, due float64, all bool) ([]*connection, float64) {
	rest := waiting[:0]
	for _, h := range waiting {
		switch {
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
