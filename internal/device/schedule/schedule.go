// Package schedule decides what to do about one NETCONF client next, and when:
// persistent and periodic connections, the order of endpoints, the pauses. It
// is pure: the time, chance and what happened come in, a new state and what to
// do go out. Package standing does it; test/simulate plays it for a fleet.
//
//	      Begin            Connected          LoggedIn
//	Idle ───────▶ Dialing ───────────▶ Handed ─────────▶ Open
//	               ▲   │ Failed          │ Ended          │ Ended
//	          Tick │   ▼                 ▼                │
//	              Waiting ◀───────────────────────────────┘
//
// An attempt has succeeded when somebody has logged in, not before, and a
// session only when it has lasted: an NMS that hangs up meets growing pauses,
// whenever it does.
package schedule

import (
	"time"

	"callhome/internal/proto"
)

// StartWith is which endpoint a reconnection begins with.
type StartWith int

// The values of ietf-netconf-server's start-with.
const (
	FirstListed StartWith = iota
	LastConnected
	RandomSelection
)

// Policy is what the configuration says of one client.
type Policy struct {
	Endpoints   int // how many; at least 1
	StartWith   StartWith
	MaxAttempts int // at one endpoint, before the next one's turn; at least 1
	// Most is how many attempts in a row may fail, over all endpoints, before no
	// more are made; 0 is no limit (O-RAN's max-call-home-attempts).
	Most int
	// NoSSH is how long a connection may stay without a login; 0 is for ever
	// (O-RAN's re-call-home-no-ssh-timer).
	NoSSH time.Duration
	Pause Pause
	// Period is 0 for a persistent connection. Else connections begin at whole
	// multiples of it from Anchor, in both directions.
	Period time.Duration
	Anchor time.Time
}

// Phase is what is going on.
type Phase int

// The phases. In Dialing, Handed and Open there is one call, in the others none.
const (
	Idle    Phase = iota // nothing was asked for yet
	Waiting              // for At, or for news of the network
	Dialing              // a call has no connection yet
	Handed               // sshd has the connection, nobody has logged in
	Open                 // somebody has logged in
	Stopped              // Most attempts have failed
)

// State is all that is known between two steps. The zero value is Idle.
type State struct {
	Phase    Phase
	Endpoint int // of the call; in Waiting, of the next one
	// At is when a Tick is due: in Waiting the next attempt, in Handed the end
	// of patience. Zero: never.
	At time.Time

	Attempts int // failed in a row at Endpoint
	Spent    int // endpoints in a row that have failed MaxAttempts times
	Failures int // attempts in a row without a login
	pauses       // how long the next one is

	Last  int       // endpoint of the last login, plus one; 0 for none
	Began time.Time // of the call
	Made  time.Time // of Slot's first call; like Slot, but no clock's that is set
	Since time.Time // of the login
	Lost  time.Time // the end of the last session, while there is no new one
	Slot  time.Time // that the last periodic connection was made for
	// Due says that a connection is wanted now: always for a persistent one,
	// for a periodic one from its slot to its graceful end.
	Due bool
	// News is when an address or a link came back last, since the last login.
	News time.Time
}

// Kind is what happened.
type Kind int

// The kinds of events.
const (
	Begin     Kind = iota // the configuration is applied
	Tick                  // At has come
	Network               // an address or a link came back
	ClockSet              // the wall clock was set, or the machine slept
	Connected             // sshd has the connection
	LoggedIn
	Failed // there is no connection; Stage says how far it came
	Ended  // there was one; Graceful says whether on purpose
	Found  // a session is there from before: its Endpoint, Since, and LoggedIn
)

// Event is what happened.
type Event struct {
	Kind     Kind
	Stage    proto.Stage
	Graceful bool
	Endpoint int
	Since    time.Time
	LoggedIn bool
}

// Word is something to tell those who watch.
type Word int

// The words.
const (
	AttemptFailed     Word = iota
	EndpointExhausted      // it failed MaxAttempts times
	AllExhausted           // so did all of them, one after another
	GivenUp                // Most attempts have failed
	ConnectionLost         // after a login
	Recovered              // a login after that
)

// Do is what is to be done now.
type Do struct {
	Call bool // make a call to Endpoint of the new state
	Drop bool // end the call's session; Ended follows
	Tell []Word
	// Outage is how long there was no login, with Recovered.
	Outage time.Duration
}

// move is what an event does in a phase. chance is from [0,1).
type move func(p *Policy, s State, e Event, now time.Time, chance float64) (State, Do)

// table is the state machine. An event without a row in a phase changes nothing
// there.
var table = map[Phase]map[Kind]move{
	Idle:    {Begin: begin, Found: found},
	Waiting: {Tick: call, Network: hurry, ClockSet: reckon},
	Dialing: {Connected: connected, Network: moved, Failed: failed, Ended: failed},
	Handed:  {LoggedIn: loggedIn, Network: moved, Tick: tooLate, Failed: failed, Ended: failed},
	Open:    {Ended: ended},
	Stopped: {Begin: begin, Network: begin},
}

// Step returns what follows from e.
func (p *Policy) Step(s State, e Event, now time.Time, chance float64) (State, Do) {
	m, ok := table[s.Phase][e.Kind]
	if !ok {
		return s, Do{}
	}
	return m(p, s, e, now, chance)
}

// begin starts afresh; what was last stays known, and that a connection is due:
// there was none, or nobody has seen it end gracefully.
func begin(p *Policy, s State, e Event, now time.Time, chance float64) (State, Do) {
	s = State{Last: s.Last, Slot: s.Slot, Due: s.Due, Endpoint: p.first(s, chance)}
	if p.Period > 0 && !s.Due && !p.dueAt(now, s.Slot) {
		return p.awaitSlot(s, now), Do{}
	}
	return call(p, s, e, now, chance)
}

// found takes over a session that an earlier run of this program made.
func found(p *Policy, s State, e Event, now time.Time, _ float64) (State, Do) {
	s = State{Last: s.Last, Slot: s.Slot, Endpoint: e.Endpoint, Due: true, Phase: Handed, Began: e.Since, Made: e.Since}
	if e.LoggedIn {
		s.Phase, s.Since, s.Last = Open, e.Since, e.Endpoint+1
		return s, Do{}
	}
	s.At = p.patience(now)
	return s, Do{}
}

func call(p *Policy, s State, _ Event, now time.Time, _ float64) (State, Do) {
	if p.Period > 0 && !s.Due {
		s.Slot, s.Made = p.slotNear(now), now
	}
	s.Phase, s.At, s.Began, s.Due = Dialing, time.Time{}, now, true
	return s, Do{Call: true}
}

// hurry cuts a pause short that news of the network have made pointless; a
// periodic connection that is not due stays so.
func hurry(p *Policy, s State, e Event, now time.Time, chance float64) (State, Do) {
	if !s.Due {
		return s, Do{}
	}
	s.pauses, s.News = pauses{}, now
	return call(p, s, e, now, chance)
}

// retransmission is when a connection's first packet is sent again (RFC 6298,
// section 2). The pauses after that double.
const retransmission = time.Second

// moved notes that the network is another one than that which the call was
// made in: if the call fails, the next one does not wait. One that has no
// connection yet is given up: its packets are far between by now, and may have
// an address that is no more.
func moved(_ *Policy, s State, _ Event, now time.Time, _ float64) (State, Do) {
	s.News = now
	return s, Do{Drop: s.Phase == Dialing && now.Sub(s.Began) > retransmission}
}

// For some seconds after the news a call that finds nobody says little: the
// kernel gives up after 3 s whom it has asked for in vain before, and an address
// may come later than its link. Meanwhile pauses are short.
const (
	freshNews  = 4 * time.Second
	freshPause = 250 * time.Millisecond
)

// fresh returns the pause after a failure that news of the network make short,
// or else pause.
func (s *State) fresh(stage proto.Stage, now time.Time, pause time.Duration) time.Duration {
	nobody := stage == proto.StageName || stage == proto.StageTCP
	switch {
	case s.News.IsZero():
		return pause
	case s.News.After(s.Began):
		return 0
	case nobody && now.Sub(s.News) < freshNews:
		return min(pause, freshPause)
	}
	return pause
}

// reckon finds the next slot anew, by the clock as it is now. A pause is an
// interval and no business of the clock's, unless its end was told by it.
func reckon(p *Policy, s State, _ Event, now time.Time, _ float64) (State, Do) {
	if !s.Due {
		return p.awaitSlot(s, now), Do{}
	}
	if most := now.Add(p.Pause.longest()); s.At.After(most) {
		s.At = most
	}
	return s, Do{}
}

func connected(p *Policy, s State, _ Event, now time.Time, _ float64) (State, Do) {
	s.Phase, s.At = Handed, p.patience(now)
	return s, Do{}
}

// patience is when a connection without a login has stayed long enough.
func (p *Policy) patience(now time.Time) time.Time {
	if p.NoSSH == 0 {
		return time.Time{}
	}
	return now.Add(p.NoSSH)
}

func tooLate(_ *Policy, s State, _ Event, _ time.Time, _ float64) (State, Do) {
	s.At = time.Time{}
	return s, Do{Drop: true}
}

func loggedIn(_ *Policy, s State, _ Event, now time.Time, _ float64) (State, Do) {
	var do Do
	if !s.Lost.IsZero() {
		do.Tell, do.Outage = []Word{Recovered}, now.Sub(s.Lost)
		s.Lost = time.Time{}
	}
	s.Phase, s.At, s.Since, s.Last, s.News = Open, time.Time{}, now, s.Endpoint+1, time.Time{}
	s.Failures, s.Spent = 0, 0
	return s, do
}

// failed goes on after an attempt without a login.
func failed(p *Policy, s State, e Event, now time.Time, chance float64) (State, Do) {
	s.Failures++
	s, do := p.after(s, e.Stage, now.Sub(s.Began), now, chance)
	do.Tell = append([]Word{AttemptFailed}, do.Tell...)
	if pause := s.At.Sub(now); s.fresh(e.Stage, now, pause) < pause {
		s.pauses, s.At = pauses{}, now.Add(s.fresh(e.Stage, now, pause))
	}
	if p.Most > 0 && s.Failures >= p.Most {
		s.Phase, s.At = Stopped, time.Time{}
		do.Tell = append(do.Tell, GivenUp)
	}
	return s, do
}

// after waits for the next attempt: the same endpoint's until it has had
// MaxAttempts, then the next one's. took is how long this one did, up to the
// login if there was one.
func (p *Policy) after(s State, stage proto.Stage, took time.Duration, now time.Time, chance float64) (State, Do) {
	var do Do
	s.pauses = s.pauses.more(stage)
	round := false // a whole one
	if s.Attempts++; s.Attempts >= p.MaxAttempts {
		s.Attempts, s.Endpoint = 0, (s.Endpoint+1)%p.Endpoints
		do.Tell = append(do.Tell, EndpointExhausted)
		if s.Spent++; s.Spent >= p.Endpoints {
			s.Spent, round = 0, true
			do.Tell = append(do.Tell, AllExhausted)
		}
	}
	pause := p.Pause.next(s.pauses, stage, max(0, took), chance)
	if p.Endpoints > 1 && !round {
		// Another endpoint may be well: long pauses are for between the rounds.
		pause = min(pause, p.Pause.next(pauses{}.more(stage), stage, 0, chance))
	}
	s.Phase, s.At = Waiting, now.Add(pause)
	return s, do
}

// good is how long a session lasts that is answered by another one at once. An
// NMS that logs in and hangs up is no better than one that does not log in.
const good = 30 * time.Second

// ended goes on after a session.
func ended(p *Policy, s State, e Event, now time.Time, chance float64) (State, Do) {
	if p.Period > 0 && e.Graceful {
		return p.awaitSlot(State{Last: s.Last, Slot: s.Slot, Made: s.Made, Endpoint: p.first(s, chance)}, now), Do{}
	}
	tell := []Word{ConnectionLost}
	s.Lost = now
	if now.Sub(s.Since) < good {
		s, do := p.after(s, proto.StageSession, s.Since.Sub(s.Began), now, chance)
		do.Tell = append(tell, do.Tell...)
		return s, do
	}
	s.Attempts, s.Spent, s.pauses = 0, 0, pauses{}
	s.Endpoint = p.first(s, chance)
	s, do := call(p, s, e, now, chance)
	do.Tell = append(tell, do.Tell...)
	return s, do
}

// first is the endpoint that a reconnection begins with.
func (p *Policy) first(s State, chance float64) int {
	switch {
	case p.StartWith == LastConnected && s.Last > 0 && s.Last <= p.Endpoints:
		return s.Last - 1
	case p.StartWith == RandomSelection:
		return int(chance * float64(p.Endpoints))
	}
	return 0
}
