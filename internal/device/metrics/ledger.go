package metrics

import (
	"time"

	"callhome/internal/proto"
)

// ledger books what sessions did, so that sums over running and ended sessions
// only grow. It is pure: it is told what happened and what was measured.
//
// An entry is opened by an event and closed by the session's last one. What is
// measured counts for open entries alone: a measurement that was taken before
// the session's end and comes after it is not booked twice.
type ledger struct {
	open  map[int]*entry
	moved traffic
}

// traffic is what only grows of what the kernel knows of a connection.
type traffic struct {
	sent, received, retransmits uint64
}

// entry is one session.
type entry struct {
	step int       // of steps, the last one that was seen; -1 for none
	at   time.Time // when
	// called is when the call began, zero for a session of a former daemon's.
	called time.Time
	// booked is how much of the connection's traffic is in the sum. It starts
	// with the first measurement where we know the session from its middle
	// only: the former daemon has counted what was before.
	booked   traffic
	measured bool
}

// steps are the events of a call home that goes well, in their order, and the
// stage that each one ends.
var steps = []struct {
	event string
	stage proto.Stage
}{
	{proto.EventCalling, ""},
	{proto.EventConnected, proto.StageTCP},
	{proto.EventKeyExchange, proto.StageSSH},
	{proto.EventAuthenticated, proto.StageAuth},
	{proto.EventSubsystem, proto.StageSubsystem},
}

func stepOf(event string) int {
	for i := range steps {
		if steps[i].event == event {
			return i
		}
	}
	return -1
}

// observed is what an event makes known.
type observed struct {
	passed proto.Stage // "" for none
	took   time.Duration
	ended  bool
	lasted time.Duration
}

func newLedger() ledger { return ledger{open: make(map[int]*entry)} }

// happened books an event.
func (l *ledger) happened(e proto.Event) (o observed) {
	if e.Client != nil || e.Session.Session == 0 {
		return o // of no session; what it says of one may come after its end
	}
	s := l.entry(e)
	l.book(s, e.Session.Stats)
	if step := stepOf(e.Event); step > s.step {
		// A stage is timed from the step right before it. Of an adopted
		// connection's first stage we saw nothing.
		if s.step >= 0 && step == s.step+1 && !(step == 1 && e.Session.Via == proto.ViaHandover) {
			o.passed, o.took = steps[step].stage, max(0, e.Time.Sub(s.at))
		}
		s.step, s.at = step, e.Time
	}
	if e.Event == proto.EventFailed || e.Event == proto.EventClosed {
		begun := s.called
		if begun.IsZero() {
			begun = e.Session.Since
		}
		o.ended, o.lasted = true, max(0, e.Time.Sub(begun))
		delete(l.open, e.Session.Session)
	}
	return o
}

// entry returns the session's entry. One that is closed or of which nothing
// will follow is not opened (again).
func (l *ledger) entry(e proto.Event) *entry {
	id := e.Session.Session
	if s := l.open[id]; s != nil {
		return s
	}
	s := &entry{step: -1}
	if e.Event == proto.EventCalling {
		s.called, s.measured = e.Time, true
	}
	if e.Session.State != proto.StateClosed {
		l.open[id] = s
	}
	return s
}

// measured books what the kernel knows of the sessions.
func (l *ledger) measured(list []proto.SessionInfo) {
	for _, info := range list {
		if s := l.open[info.Session]; s != nil {
			l.book(s, info.Stats)
		}
	}
}

func (l *ledger) book(s *entry, stats *proto.Stats) {
	if stats == nil {
		return
	}
	now := traffic{stats.BytesSent, stats.BytesReceived, uint64(stats.Retransmits)}
	if !s.measured {
		s.booked, s.measured = now, true
		return
	}
	grow(&l.moved.sent, &s.booked.sent, now.sent)
	grow(&l.moved.received, &s.booked.received, now.received)
	grow(&l.moved.retransmits, &s.booked.retransmits, now.retransmits)
}

// grow adds to sum what is new since booked.
func grow(sum, booked *uint64, now uint64) {
	if now > *booked {
		*sum += now - *booked
		*booked = now
	}
}

// keep forgets the sessions that are not in list: their last events were
// missed.
func (l *ledger) keep(list []proto.SessionInfo) {
	open := make(map[int]*entry, len(list))
	for _, info := range list {
		if s := l.open[info.Session]; s != nil {
			open[info.Session] = s
		}
	}
	l.open = open
}
