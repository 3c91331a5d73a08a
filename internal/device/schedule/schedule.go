// Package schedule decides when to call one NETCONF client, and at which endpoint:
// persistent and periodic connections, the order of endpoints, the pauses. Step
// is a pure function: it takes a state, an event, the time and a random number,
// and returns the next state and the actions. Package reconnect carries them
// out; test/simulate runs them for a fleet. It never reads a clock or waits.
//
//	      Begin            Connected          LoggedIn
//	Idle ───────▶ Dialing ─────────▶ HandedOver ───────▶ Open
//	               ▲   │ Failed          │ Ended          │ Ended
//	          Tick │   ▼                 ▼                │
//	              Waiting ◀───────────────────────────────┘
//
// An attempt succeeds with the login, and a session when it has lasted goodSession.
// A station that disconnects earlier, in whatever stage, meets growing pauses.
package schedule

import (
	"time"

	"callhome/internal/proto"
)

// StartWith selects the endpoint that a reconnection begins with.
type StartWith int

// The values of ietf-netconf-server's start-with.
const (
	FirstListed StartWith = iota
	LastConnected
	RandomSelection
)

// Policy is the configuration of one client, as far as it decides about time.
type Policy struct {
	Endpoints   int // their number, at least 1
	StartWith   StartWith
	MaxAttempts int // at one endpoint, before the next endpoint; at least 1
	// MaxFailures limits the failed attempts in a row, over all endpoints; then
	// the client is given up. 0 is no limit. It is one more than O-RAN's
	// max-call-home-attempts, which counts the repetitions.
	MaxFailures int
	// NoSSH limits the time of a connection without a login; 0 is no limit
	// (O-RAN's re-call-home-no-ssh-timer).
	NoSSH time.Duration
	Pause Pause
	// Period is 0 for a persistent connection. A periodic one begins at whole
	// multiples of Period from Anchor, in both directions.
	Period time.Duration
	Anchor time.Time
}

// Phase is where the client's connection stands.
type Phase int

// The phases. Dialing, HandedOver and Open have one call home, the others none.
const (
	Idle       Phase = iota // before Begin or Found
	Waiting                 // for At, or for a change of the network
	Dialing                 // the call home has no connection yet
	HandedOver              // sshd has the connection, without a login
	Open                    // the NETCONF client has logged in
	Stopped                 // MaxFailures attempts have failed
)

// State is what one step passes to the next. The zero value is Idle.
type State struct {
	Phase    Phase
	Endpoint int // of the call home; in Waiting, of the next one
	// At is when a Tick is due: in Waiting the next attempt, in HandedOver the
	// login's deadline. Zero: never.
	At time.Time

	Attempts  int // failed in a row at Endpoint
	Exhausted int // endpoints in a row that have failed MaxAttempts times
	Failures  int // attempts in a row without a login
	backoff       // decides how long the next pause is

	Last  int       // endpoint of the last login, plus one; 0 for none
	Began time.Time // start of the call home
	Made  time.Time // start of Slot's first call home, on the monotonic clock
	Since time.Time // the login
	Lost  time.Time // the end of the last session, while there is no new one
	Slot  time.Time // of the last periodic connection, on the wall clock
	// Due reports whether a connection is wanted now: a persistent one always, a
	// periodic one from its slot to its graceful end.
	Due bool
	// NetworkChanged is when an address or a link last came back, since the last
	// login.
	NetworkChanged time.Time
}

// Kind is the kind of an Event.
type Kind int

// The kinds of events.
const (
	Begin     Kind = iota // the configuration is applied
	Tick                  // At has come
	Network               // an address or a link came back
	ClockSet              // the wall clock was set, or the machine slept
	Connected             // sshd has the connection
	LoggedIn
	Failed  // no connection was made; Stage is how far the call home came
	Ended   // the connection ended; Graceful: on purpose
	Found   // a session of an earlier run: its Endpoint, Since and LoggedIn
	Restart // an operator wants the client called without further delay
	Demand  // as Restart, also where a periodic connection is not due
)

// Event is what happened to the client's connection.
type Event struct {
	Kind     Kind
	Stage    proto.Stage
	Graceful bool
	Endpoint int
	Since    time.Time
	LoggedIn bool
}

// Notice is what a step publishes as an event of the API.
type Notice int

// The notices.
const (
	AttemptFailed     Notice = iota
	EndpointExhausted        // it failed MaxAttempts times
	AllExhausted             // all endpoints failed MaxAttempts times, one after another
	GivenUp                  // MaxFailures attempts have failed
	ConnectionLost           // after a login
	Recovered                // a login after ConnectionLost
)

// Do are the actions of a step.
type Do struct {
	Call    bool // call home to Endpoint of the new state
	Drop    bool // end the call home's session; Ended follows
	Publish []Notice
	// Outage, with Recovered, is the time from ConnectionLost to the login.
	Outage time.Duration
}

// transition computes the effect of an event in a phase. chance is from [0,1).
type transition func(p *Policy, s State, e Event, now time.Time, chance float64) (State, Do)

// table is the state machine. An event without a row in the phase has no effect.
var table = map[Phase]map[Kind]transition{
	Idle:       {Begin: begin, Found: found},
	Waiting:    {Tick: call, Network: endPause, ClockSet: clockSet, Restart: begin, Demand: demanded},
	Dialing:    {Connected: connected, Network: networkDuringCall, Failed: failed, Ended: failed},
	HandedOver: {LoggedIn: loggedIn, Network: networkDuringCall, Tick: loginTimeout, Failed: failed, Ended: failed},
	Open:       {Ended: ended},
	Stopped:    {Begin: begin, Network: begin, Restart: begin, Demand: demanded},
}

// Step returns the state after e, and what to do.
func (p *Policy) Step(s State, e Event, now time.Time, chance float64) (State, Do) {
	m, ok := table[s.Phase][e.Kind]
	if !ok {
		return s, Do{}
	}
	return m(p, s, e, now, chance)
}

// begin starts without failures. It keeps the last endpoint, the last slot, when the
// last session was lost, and Due: the due connection was not made, or its graceful
// end was not seen.
func begin(p *Policy, s State, e Event, now time.Time, chance float64) (State, Do) {
	s = State{Last: s.Last, Slot: s.Slot, Made: s.Made, Lost: s.Lost, Due: s.Due, Endpoint: p.first(s, chance)}
	if p.Period > 0 && !s.Due && !p.dueAt(now, s.Slot) {
		return p.awaitSlot(s, now), Do{}
	}
	return call(p, s, e, now, chance)
}

// demanded calls now. A periodic connection keeps its next slot.
func demanded(p *Policy, s State, e Event, now time.Time, chance float64) (State, Do) {
	return call(p, State{Last: s.Last, Slot: s.Slot, Made: s.Made, Lost: s.Lost, Due: true, Endpoint: p.first(s, chance)}, e, now, chance)
}

// found takes over a session of an earlier run of this program.
func found(p *Policy, s State, e Event, now time.Time, _ float64) (State, Do) {
	s = State{Last: s.Last, Slot: s.Slot, Endpoint: e.Endpoint, Due: true, Phase: HandedOver, Began: e.Since, Made: e.Since}
	if e.LoggedIn {
		s.Phase, s.Since, s.Last = Open, e.Since, e.Endpoint+1
		return s, Do{}
	}
	s.At = p.loginDeadline(now)
	return s, Do{}
}

func call(p *Policy, s State, _ Event, now time.Time, _ float64) (State, Do) {
	if p.Period > 0 && !s.Due {
		s.Slot, s.Made = p.slotNear(now), now
	}
	s.Phase, s.At, s.Began, s.Due = Dialing, time.Time{}, now, true
	return s, Do{Call: true}
}

// endPause calls at once, because the network has changed. A periodic connection
// that is not due still waits for its slot.
func endPause(p *Policy, s State, e Event, now time.Time, chance float64) (State, Do) {
	if !s.Due {
		return s, Do{}
	}
	s.backoff, s.NetworkChanged = backoff{}, now
	return call(p, s, e, now, chance)
}

// retransmission is when the kernel sends a SYN again (RFC 6298, section 2); the
// intervals after that double.
const retransmission = time.Second

// networkDuringCall records the change: if the call home fails, the next one does
// not wait. An attempt that has no connection yet is dropped, because its SYN
// retransmissions are seconds apart by now and its source address may be gone.
func networkDuringCall(_ *Policy, s State, _ Event, now time.Time, _ float64) (State, Do) {
	s.NetworkChanged = now
	return s, Do{Drop: s.Phase == Dialing && now.Sub(s.Began) > retransmission}
}

// Just after a link returns, EHOSTUNREACH proves little: the kernel reports it after
// three unanswered neighbour solicitations, 1 s apart (arp(7)), which may have begun
// before, and an address may come later than its link. Pauses are short until then.
const (
	networkSettles = 4 * time.Second
	settlingPause  = 250 * time.Millisecond
)

// shortened returns the pause after a failure: none or a short one where the
// network has just changed, else pause.
func (s *State) shortened(stage proto.Stage, now time.Time, pause time.Duration) time.Duration {
	switch {
	case s.NetworkChanged.IsZero():
		return pause
	case s.NetworkChanged.After(s.Began):
		return 0
	case !connectedAt(stage) && now.Sub(s.NetworkChanged) < networkSettles:
		return min(pause, settlingPause)
	}
	return pause
}

// clockSet computes the next slot from the clock as it is now. A pause is an
// interval on the monotonic clock and does not change, except that it never ends
// later than the longest pause from now.
func clockSet(p *Policy, s State, _ Event, now time.Time, _ float64) (State, Do) {
	if !s.Due {
		return p.awaitSlot(s, now), Do{}
	}
	if most := now.Add(p.Pause.longest()); s.At.After(most) {
		s.At = most
	}
	return s, Do{}
}

func connected(p *Policy, s State, _ Event, now time.Time, _ float64) (State, Do) {
	s.Phase, s.At = HandedOver, p.loginDeadline(now)
	return s, Do{}
}

// loginDeadline is when a connection without a login is dropped; zero: never.
func (p *Policy) loginDeadline(now time.Time) time.Time {
	if p.NoSSH == 0 {
		return time.Time{}
	}
	return now.Add(p.NoSSH)
}

func loginTimeout(_ *Policy, s State, _ Event, _ time.Time, _ float64) (State, Do) {
	s.At = time.Time{}
	return s, Do{Drop: true}
}

func loggedIn(_ *Policy, s State, _ Event, now time.Time, _ float64) (State, Do) {
	var do Do
	if !s.Lost.IsZero() {
		do.Publish, do.Outage = []Notice{Recovered}, now.Sub(s.Lost)
		s.Lost = time.Time{}
	}
	s.Phase, s.At, s.Since, s.Last, s.NetworkChanged = Open, time.Time{}, now, s.Endpoint+1, time.Time{}
	s.Failures, s.Exhausted = 0, 0
	return s, do
}

// failed plans the next attempt after one without a login.
func failed(p *Policy, s State, e Event, now time.Time, chance float64) (State, Do) {
	s.Failures++
	s, do := p.after(s, e.Stage, now.Sub(s.Began), now, chance)
	do.Publish = append([]Notice{AttemptFailed}, do.Publish...)
	if pause := s.At.Sub(now); s.shortened(e.Stage, now, pause) < pause {
		s.backoff, s.At = backoff{}, now.Add(s.shortened(e.Stage, now, pause))
	}
	if p.MaxFailures > 0 && s.Failures >= p.MaxFailures {
		s.Phase, s.At = Stopped, time.Time{}
		do.Publish = append(do.Publish, GivenUp)
	}
	return s, do
}

// after waits for the next attempt, at the same endpoint until MaxAttempts have
// failed there, then at the next one. took is the duration of this attempt, up to
// the login if there was one.
func (p *Policy) after(s State, stage proto.Stage, took time.Duration, now time.Time, chance float64) (State, Do) {
	var do Do
	s.backoff = s.backoff.more(stage)
	round := false // a whole round has failed
	if s.Attempts++; s.Attempts >= p.MaxAttempts {
		s.Attempts, s.Endpoint = 0, (s.Endpoint+1)%p.Endpoints
		do.Publish = append(do.Publish, EndpointExhausted)
		if s.Exhausted++; s.Exhausted >= p.Endpoints {
			s.Exhausted, round = 0, true
			do.Publish = append(do.Publish, AllExhausted)
		}
	}
	pause := p.Pause.next(s.backoff, stage, max(0, took), chance)
	if p.Endpoints > 1 && !round {
		// The next endpoint may work: long pauses are between the rounds only.
		pause = min(pause, p.Pause.next(backoff{}.more(stage), stage, 0, chance))
	}
	s.Phase, s.At = Waiting, now.Add(pause)
	return s, do
}

// goodSession is the duration from which a lost session is followed by a call home
// at once. A station that logs in and disconnects earlier is treated like one
// that does not log in. It is shorter than the idle timeout of stations, 30 s with
// NSO, by more than a proof of the login is late: a session that the station ends for
// that reason is good.
const goodSession = 25 * time.Second

// ended plans the next call home after a session.
func ended(p *Policy, s State, e Event, now time.Time, chance float64) (State, Do) {
	if p.Period > 0 && e.Graceful {
		return p.awaitSlot(State{Last: s.Last, Slot: s.Slot, Made: s.Made, Endpoint: p.first(s, chance)}, now), Do{}
	}
	notices := []Notice{ConnectionLost}
	s.Lost = now
	if now.Sub(s.Since) < goodSession {
		s, do := p.after(s, proto.StageSession, s.Since.Sub(s.Began), now, chance)
		do.Publish = append(notices, do.Publish...)
		return s, do
	}
	s.Attempts, s.Exhausted, s.backoff = 0, 0, backoff{}
	s.Endpoint = p.first(s, chance)
	s, do := call(p, s, e, now, chance)
	do.Publish = append(notices, do.Publish...)
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
