package metrics

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"callhome/internal/proto"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// event returns an event of session 1, that many seconds after noon.
func event(name string, seconds int) proto.Event {
	state := proto.StateServing
	if name == proto.EventFailed || name == proto.EventClosed {
		state = proto.StateClosed
	}
	return proto.Event{
		Time: noon.Add(time.Duration(seconds) * time.Second), Event: name,
		Session: proto.SessionInfo{Session: 1, State: state, Via: "manager", Since: noon.Add(-time.Hour)},
	}
}

// For every pair of steps: a stage is timed only between two consecutive ones.
func TestAStageIsTimedBetweenConsecutiveSteps(t *testing.T) {
	for from := range steps {
		for to := range steps {
			l := newLedger()
			l.happened(event(steps[from].event, 0))
			o := l.happened(event(steps[to].event, 3))
			want := observed{}
			if to == from+1 {
				want = observed{passed: steps[to].stage, took: 3 * time.Second}
			}
			if o != want {
				t.Errorf("%s, then %s: got %+v, want %+v", steps[from].event, steps[to].event, o, want)
			}
		}
	}
}

func TestStagesOfOneSession(t *testing.T) {
	type seen struct {
		stage proto.Stage
		took  time.Duration
	}
	for _, tt := range []struct {
		name   string
		via    proto.Via
		events []string
		want   []seen
	}{
		{"a successful call home", "manager", []string{"calling", "connected", "key-exchange", "authenticated", "subsystem"},
			[]seen{{"tcp", 1}, {"ssh", 1}, {"authentication", 1}, {"subsystem", 1}}},
		{"refused logins belong to the authentication", "manager", []string{"calling", "connected", "key-exchange", "login-refused", "login-refused", "authenticated"},
			[]seen{{"tcp", 1}, {"ssh", 1}, {"authentication", 3}}},
		{"a second subsystem is not the login's", "manager", []string{"calling", "connected", "key-exchange", "authenticated", "subsystem", "log", "subsystem"},
			[]seen{{"tcp", 1}, {"ssh", 1}, {"authentication", 1}, {"subsystem", 1}}},
		{"the first stage of a handed-over connection is not timed", "handover", []string{"calling", "connected", "key-exchange"},
			[]seen{{"ssh", 1}}},
		{"a restored session is timed from its next step on", "manager", []string{"restored", "authenticated", "subsystem"},
			[]seen{{"subsystem", 1}}},
		{"a step counts once", "manager", []string{"calling", "connected", "key-exchange", "connected", "key-exchange"},
			[]seen{{"tcp", 1}, {"ssh", 1}}},
		{"a stage with a missed event is not timed", "manager", []string{"calling", "connected", "authenticated", "subsystem"},
			[]seen{{"tcp", 1}, {"subsystem", 1}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger()
			var got []seen
			for i, name := range tt.events {
				e := event(name, i)
				e.Session.Via = tt.via
				if o := l.happened(e); o.passed != "" {
					got = append(got, seen{o.passed, o.took / time.Second})
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestEnd(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before []string
		want   time.Duration
	}{
		{"from the call", []string{"calling"}, 2 * time.Second},
		{"a restored session, from its own start time", []string{"restored"}, time.Hour + 2*time.Second},
		{"without an earlier event", nil, time.Hour + 2*time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger()
			for _, name := range tt.before {
				l.happened(event(name, 0))
			}
			if o := l.happened(event(proto.EventClosed, 2)); !o.ended || o.lasted != tt.want {
				t.Errorf("got %+v, want an end after %s", o, tt.want)
			}
			l.happened(event(proto.EventClosed, 3)) // a further event after the end
			late := event(proto.EventLog, 3)
			late.Session.State = proto.StateClosed
			l.happened(late)
			if len(l.open) != 0 {
				t.Errorf("%d entries are left", len(l.open))
			}
		})
	}
	t.Run("the clock was set back", func(t *testing.T) {
		l := newLedger()
		if o := l.happened(event(proto.EventClosed, -2*3600)); o.lasted != 0 {
			t.Errorf("lasted %s", o.lasted)
		}
	})
}

func TestTrafficOfARestoredSession(t *testing.T) {
	measured := func(sent uint64) []proto.SessionInfo {
		return []proto.SessionInfo{{Session: 1, State: proto.StateServing, Stats: &proto.Stats{BytesSent: sent}}}
	}
	l := newLedger()
	l.measured(measured(1000)) // the event has not been delivered yet
	l.happened(event(proto.EventRestored, 0))
	l.measured(measured(1000))
	if l.total.sent != 0 {
		t.Fatalf("traffic that the earlier manager counted was counted again: %d", l.total.sent)
	}
	l.measured(measured(1300))
	l.measured(measured(1200)) // a lower figure changes nothing
	if l.total.sent != 300 {
		t.Errorf("got %d bytes before the end, want 300", l.total.sent)
	}
	end := event(proto.EventClosed, 1)
	end.Session.Stats = &proto.Stats{BytesSent: 1500}
	l.happened(end)
	if l.total.sent != 500 {
		t.Errorf("got %d bytes, want 500", l.total.sent)
	}
}

func TestKeep(t *testing.T) {
	l := newLedger()
	for id := range 3 {
		e := event(proto.EventCalling, 0)
		e.Session.Session = id
		l.happened(e)
	}
	l.keep([]proto.SessionInfo{{Session: 1}, {Session: 7}})
	if _, there := l.open[1]; !there || len(l.open) != 1 {
		t.Errorf("got %v, want the entry of session 1 alone", l.open)
	}
}

// simulation is a manager for the ledger: a session ends, its event is delivered,
// and it leaves the list at three different times, with scrapes in between.
type simulation struct {
	rnd    *rand.Rand
	list   []proto.SessionInfo // what Sessions returns
	queue  []proto.Event       // published, not yet handled
	actual traffic             // over all sessions so far
	nextID int
}

func (w *simulation) happen(session *proto.SessionInfo, event string) {
	s := *session
	s.Stats = nil // only the last event carries them
	if s.State == proto.StateClosed {
		final := *session.Stats
		s.Stats = &final
	}
	w.queue = append(w.queue, proto.Event{Time: noon, Event: event, Session: s})
}

func (w *simulation) step() {
	if w.rnd.IntN(4) == 0 || len(w.list) == 0 {
		w.nextID++
		w.list = append(w.list, proto.SessionInfo{Session: w.nextID, State: proto.StateCalling, Stats: &proto.Stats{}})
		w.happen(&w.list[len(w.list)-1], proto.EventCalling)
		return
	}
	i := w.rnd.IntN(len(w.list))
	s := &w.list[i]
	switch {
	case s.State == proto.StateClosed:
		w.list = slices.Delete(w.list, i, i+1)
	case w.rnd.IntN(5) == 0:
		s.State = proto.StateClosed
		w.happen(s, proto.EventClosed)
	default:
		n := uint64(w.rnd.IntN(1000))
		s.Stats = &proto.Stats{BytesSent: s.Stats.BytesSent + n, BytesReceived: s.Stats.BytesReceived + 2*n, Retransmits: s.Stats.Retransmits + 1}
		w.actual = traffic{w.actual.sent + n, w.actual.received + 2*n, w.actual.retransmits + 1}
	}
}

func TestTrafficOnlyGrows(t *testing.T) {
	for seed := range uint64(50) {
		w := &simulation{rnd: rand.New(rand.NewPCG(seed, 0))}
		l := newLedger()
		deliver := func() {
			if len(w.queue) > 0 {
				l.happened(w.queue[0])
				w.queue = w.queue[1:]
			}
		}
		before := l.total
		for range 2000 {
			switch w.rnd.IntN(3) {
			case 0:
				w.step()
			case 1:
				deliver()
			default:
				l.measured(w.list)
				now := l.total
				if now.sent < before.sent || now.received < before.received || now.retransmits < before.retransmits {
					t.Fatalf("seed %d: decreased from %+v to %+v", seed, before, now)
				}
				if now.sent > w.actual.sent || now.received > w.actual.received || now.retransmits > w.actual.retransmits {
					t.Fatalf("seed %d: %+v is more than the real traffic %+v", seed, now, w.actual)
				}
				before = now
			}
		}
		for len(w.queue) > 0 {
			deliver()
		}
		l.measured(w.list)
		if l.total != w.actual {
			t.Fatalf("seed %d: got %+v, want %+v", seed, l.total, w.actual)
		}
	}
}
