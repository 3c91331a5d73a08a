package metrics

import (
	"time"

	"callhome/internal/proto"
)

// ledger adds up the sessions' traffic and durations, so that sums over open and
// ended sessions only grow. It is pure: events and measurements are its only input.
//
// A session's first event opens an entry, its last one closes it. Measurements
// count only for open entries: one that was taken before the session's end and
// arrives after it is not counted twice.
type ledger struct {
	open  map[int]*entry
	total traffic
}

// traffic is the kernel's monotonic counters of a connection.
type traffic struct {
	sent, received, retransmits uint64
}

// entry is one session.
type entry struct {
	step int       // index in steps of the last event; -1 before the first
	at   time.Time // of that event
	// called is when the call began, zero for a restored session.
	called time.Time
	// counted is the connection's traffic that is in the total already. For a
	// restored session it starts with the first measurement: the earlier manager
	// has counted the traffic before.
	counted  traffic
	measured bool
}

// steps are the events of a successful call home, in their order, and the stage
// that each one ends.
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

// observed is the measurements that follow from an event.
type observed struct {
	passed proto.Stage // the stage that ended, or ""
	took   time.Duration
	ended  bool
	lasted time.Duration
}

func newLedger() ledger { return ledger{open: make(map[int]*entry)} }

// happened processes an event.
func (l *ledger) happened(e proto.Event) (o observed) {
	if e.Client != nil || e.Session.Session == 0 {
		return o // not of a session; a client's event can follow its session's end
	}
	s := l.entry(e)
	l.count(s, e.Session.Stats)
	if step := stepOf(e.Event); step > s.step {
		// A stage is timed from the step right before it. The first stage of a
		// handed-over connection was in another program.
		if s.step >= 0 && step == s.step+1 && !(step == 1 && e.Session.Via == proto.ViaHandover) {
			o.passed, o.took = steps[step].stage, max(0, e.Time.Sub(s.at))
		}
		s.step, s.at = step, e.Time
	}
	if e.Event == proto.EventFailed || e.Event == proto.EventClosed {
		began := s.called
		if began.IsZero() {
			began = e.Session.Since
		}
		o.ended, o.lasted = true, max(0, e.Time.Sub(began))
		delete(l.open, e.Session.Session)
	}
	return o
}

// entry returns the session's entry. It does not keep one for a closed session,
// whose last event has come.
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

// measured counts the traffic in the sessions' figures.
func (l *ledger) measured(list []proto.SessionInfo) {
	for _, info := range list {
		if s := l.open[info.Session]; s != nil {
			l.count(s, info.Stats)
		}
	}
}

// count adds the traffic since the last count to the total.
func (l *ledger) count(s *entry, stats *proto.Stats) {
	if stats == nil {
		return
	}
	now := traffic{stats.BytesSent, stats.BytesReceived, uint64(stats.Retransmits)}
	if !s.measured {
		s.counted, s.measured = now, true
		return
	}
	grow(&l.total.sent, &s.counted.sent, now.sent)
	grow(&l.total.received, &s.counted.received, now.received)
	grow(&l.total.retransmits, &s.counted.retransmits, now.retransmits)
}

// grow adds the growth since counted to sum.
func grow(sum, counted *uint64, now uint64) {
	if now > *counted {
		*sum += now - *counted
		*counted = now
	}
}

// keep drops the entries of sessions that are not in list: their last events were
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
