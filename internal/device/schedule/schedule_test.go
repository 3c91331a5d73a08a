package schedule

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/internal/proto"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func persistent() *Policy {
	return &Policy{Endpoints: 2, MaxAttempts: 3, NoSSH: time.Minute, Pause: Pause{Initial: time.Second, Maximum: time.Minute}}
}

func hourly() *Policy {
	p := persistent()
	p.Endpoints, p.Period, p.Anchor = 1, time.Hour, noon.Add(-5*24*time.Hour+15*time.Minute)
	return p
}

// story applies events, each some time after the one before. chance is 0.5, where
// jitter has no effect.
type story struct {
	t   *testing.T
	p   *Policy
	s   State
	now time.Time
}

func begun(t *testing.T, p *Policy) *story {
	s := &story{t: t, p: p, now: noon}
	s.does(0, Event{Kind: Begin})
	return s
}

func (s *story) does(after time.Duration, e Event) Do {
	s.t.Helper()
	s.now = s.now.Add(after)
	var do Do
	s.s, do = s.p.Step(s.s, e, s.now, 0.5)
	return do
}

// tick advances the time to At, applies a Tick, and returns how long that took.
func (s *story) tick() (time.Duration, Do) {
	s.t.Helper()
	if s.s.At.IsZero() {
		s.t.Fatalf("nothing is due: %+v", s.s)
	}
	d := max(0, s.s.At.Sub(s.now))
	return d, s.does(d, Event{Kind: Tick})
}

func (s *story) is(phase Phase, endpoint int) {
	s.t.Helper()
	if s.s.Phase != phase || s.s.Endpoint != endpoint {
		s.t.Errorf("phase %d at endpoint %d, expected %d at %d", s.s.Phase, s.s.Endpoint, phase, endpoint)
	}
}

func (s *story) publishes(do Do, want ...Notice) {
	s.t.Helper()
	if !slices.Equal(do.Publish, want) {
		s.t.Errorf("published %v, expected %v", do.Publish, want)
	}
}

var refused = Event{Kind: Failed, Stage: proto.StageTCP}

func TestALostSessionIsFollowedByACallAtOnce(t *testing.T) {
	s := begun(t, persistent())
	s.is(Dialing, 0)
	s.does(time.Millisecond, Event{Kind: Connected})
	s.is(HandedOver, 0)
	s.publishes(s.does(time.Millisecond, Event{Kind: LoggedIn}))
	s.is(Open, 0)
	do := s.does(time.Hour, Event{Kind: Ended})
	s.publishes(do, ConnectionLost)
	if !do.Call {
		t.Error("it was not called again at once")
	}
	s.does(time.Millisecond, Event{Kind: Connected})
	s.publishes(s.does(2*time.Second, Event{Kind: LoggedIn}), Recovered)
}

func TestEndpointsTakeTurns(t *testing.T) {
	s := begun(t, persistent())
	var at []int
	var published []Notice
	for range 7 {
		at = append(at, s.s.Endpoint)
		do := s.does(time.Millisecond, refused)
		published = append(published, do.Publish...)
		s.tick()
	}
	if !slices.Equal(at, []int{0, 0, 0, 1, 1, 1, 0}) {
		t.Errorf("the attempts were at %v", at)
	}
	want := []Notice{AttemptFailed, AttemptFailed, AttemptFailed, EndpointExhausted, AttemptFailed, AttemptFailed, AttemptFailed, EndpointExhausted, AllExhausted, AttemptFailed}
	if !slices.Equal(published, want) {
		t.Errorf("published %v", published)
	}
}

func TestStartWithSelectsTheFirstEndpoint(t *testing.T) {
	for _, tt := range []struct {
		with   StartWith
		chance float64
		want   int
	}{{FirstListed, 0.9, 0}, {LastConnected, 0.1, 1}, {RandomSelection, 0.9, 2}, {RandomSelection, 0, 0}} {
		p := persistent()
		p.Endpoints, p.StartWith = 3, tt.with
		s := State{Phase: Open, Endpoint: 1, Last: 2, Since: noon, Began: noon}
		s, _ = p.Step(s, Event{Kind: Ended}, noon.Add(time.Hour), tt.chance)
		if s.Endpoint != tt.want {
			t.Errorf("start-with %d began at %d, expected %d", tt.with, s.Endpoint, tt.want)
		}
	}
}

// The last endpoint may be missing in a new configuration.
func TestLastConnectedNeedsItsEndpoint(t *testing.T) {
	p := persistent()
	p.StartWith = LastConnected
	s, _ := p.Step(State{Last: 3}, Event{Kind: Begin}, noon, 0.5)
	if s.Endpoint != 0 {
		t.Errorf("it began at endpoint %d of %d", s.Endpoint, p.Endpoints)
	}
}

// A station that disconnects, in whatever stage, gets at most three calls in the
// first ten seconds, with the shortest jitter too, and then fewer.
func TestAStationThatDisconnectsSeesGrowingPauses(t *testing.T) {
	for name, events := range map[string][]Event{
		"before SSH":              {{Kind: Connected}, {Kind: Ended, Stage: proto.StageSSH}},
		"in the login":            {{Kind: Connected}, {Kind: Ended, Stage: proto.StageAuth}},
		"after the login":         {{Kind: Connected}, {Kind: LoggedIn}, {Kind: Ended, Stage: proto.StageSession}},
		"on purpose":              {{Kind: Connected}, {Kind: LoggedIn}, {Kind: Ended, Stage: proto.StageSession, Graceful: true}},
		"before sshd has noticed": {{Kind: Failed, Stage: proto.StageHandover}},
	} {
		p := persistent()
		p.Endpoints, p.Pause = 1, DefaultPause
		st, now := State{}, noon
		st, _ = p.Step(st, Event{Kind: Begin}, now, 0)
		var calls []time.Duration
		for end := noon.Add(time.Hour); now.Before(end); {
			calls = append(calls, now.Sub(noon))
			for _, e := range events {
				st, _ = p.Step(st, e, now, 0)
			}
			if st.Phase != Waiting || !st.At.After(now) {
				t.Fatalf("%s: called again at once: %+v", name, st)
			}
			now = st.At
			st, _ = p.Step(st, Event{Kind: Tick}, now, 0)
		}
		in := func(d time.Duration) int {
			return len(calls) - len(slices.DeleteFunc(slices.Clone(calls), func(c time.Duration) bool { return c < d }))
		}
		if n := in(10 * time.Second); n > 3 {
			t.Errorf("%s: %d calls in 10 s: %v", name, n, calls[:n])
		}
		if n := in(time.Hour); n > 90 {
			t.Errorf("%s: %d calls in an hour", name, n)
		}
	}
}

// The pause is a fraction of the outage and at most the maximum, so that a port
// that opens again is called soon.
func TestThePauseIsAFractionOfTheOutage(t *testing.T) {
	p := persistent()
	p.Endpoints = 1
	s := begun(t, p)
	for s.now.Sub(noon) < time.Hour {
		s.does(time.Millisecond, refused)
		pause, _ := s.tick()
		if out := s.now.Sub(noon); pause > out/5+time.Second || pause > time.Minute {
			t.Fatalf("after %v the pause was %v", out, pause)
		}
	}
}

func TestJitterIsAroundThePause(t *testing.T) {
	p := Pause{Initial: 10 * time.Second, Maximum: time.Minute, Jitter: 25}
	for _, tt := range []struct {
		what   string
		stage  proto.Stage
		took   time.Duration
		chance float64
		want   time.Duration
	}{
		{"the least", proto.StageTCP, 0, 0, 7500 * time.Millisecond},
		{"the middle", proto.StageTCP, 0, 0.5, 10 * time.Second},
		{"the most", proto.StageTCP, 0, 1, 12500 * time.Millisecond},
		{"after a part of it", proto.StageTCP, 5 * time.Second, 0.5, 5 * time.Second},
		{"after all of it, only the jitter", proto.StageTCP, time.Hour, 1, 5 * time.Second},
		{"a login's", proto.StageAuth, 0, 0.5, 40 * time.Second},
		{"a slow login's", proto.StageAuth, 25 * time.Second, 0.5, 50 * time.Second},
		{"a very slow login's", proto.StageSSH, time.Hour, 0, 225 * time.Second},
	} {
		n := backoff{}.more(tt.stage)
		if got := p.next(n, tt.stage, tt.took, tt.chance); got != tt.want {
			t.Errorf("%s: %v, expected %v", tt.what, got, tt.want)
		}
	}
}

// The duration of a short session does not count as that of its login.
func TestAShortSessionIsNoSlowLogin(t *testing.T) {
	s := begun(t, persistent())
	s.does(0, Event{Kind: Connected})
	s.does(time.Second, Event{Kind: LoggedIn})
	s.does(goodSession-time.Second, Event{Kind: Ended})
	if d, _ := s.tick(); d != 4*time.Second {
		t.Errorf("waited %v", d)
	}
}

// A station that ends idle sessions after 30 s, as NSO does, is called again at once,
// also where its timer is early or the login was proven late.
func TestASessionOfAnIdleTimeoutIsGood(t *testing.T) {
	for _, lasted := range []time.Duration{26 * time.Second, 29999 * time.Millisecond, 30 * time.Second} {
		s := begun(t, persistent())
		s.does(0, Event{Kind: Connected})
		s.does(time.Second, Event{Kind: LoggedIn})
		if do := s.does(lasted, Event{Kind: Ended}); !do.Call {
			t.Errorf("after %v: %+v", lasted, do)
		}
	}
}

// A long attempt without a connection needs no pause after it.
func TestAnAttemptWithoutAConnectionIsPartOfItsPause(t *testing.T) {
	s := begun(t, persistent())
	s.does(5*time.Second, Event{Kind: Failed, Stage: proto.StageTCP})
	if d, do := s.tick(); d != 0 || !do.Call {
		t.Errorf("waited %v more", d)
	}
}

func TestAConnectionWithoutALoginIsDroppedAndCounted(t *testing.T) {
	s := begun(t, persistent())
	s.does(time.Millisecond, Event{Kind: Connected})
	d, do := s.tick()
	if d != time.Minute || !do.Drop {
		t.Errorf("after %v: %+v", d, do)
	}
	s.publishes(s.does(0, Event{Kind: Ended, Stage: proto.StageSSH}), AttemptFailed)
	if s.s.Failures != 1 || s.s.Phase != Waiting {
		t.Errorf("%+v", s.s)
	}
}

func TestNoMoreAttemptsThanConfigured(t *testing.T) {
	p := persistent()
	p.MaxFailures = 4
	s := begun(t, p)
	for range 3 {
		s.does(0, refused)
		s.tick()
	}
	s.publishes(s.does(0, refused), AttemptFailed, GivenUp)
	s.is(Stopped, 1)
	if do := s.does(time.Hour, Event{Kind: Tick}); do.Call {
		t.Error("it was called all the same")
	}
	if do := s.does(0, Event{Kind: Network}); !do.Call || s.s.Failures != 0 {
		t.Errorf("a link that came back changed nothing: %+v", s.s)
	}
}

// An operator's restart starts without failures, and leaves alone what is called, or is
// not due.
func TestARestart(t *testing.T) {
	p := persistent()
	p.MaxFailures = 1
	s := begun(t, p)
	s.does(0, refused)
	s.is(Stopped, 0)
	if do := s.does(time.Hour, Event{Kind: Restart}); !do.Call || s.s.Failures != 0 {
		t.Errorf("given up: %+v, %+v", do, s.s)
	}
	if do := s.does(0, Event{Kind: Restart}); do.Call || do.Drop {
		t.Errorf("while it is called: %+v", do)
	}
	s = begun(t, persistent())
	for range 5 {
		s.does(0, refused)
		s.tick()
	}
	s.does(0, refused)
	if do := s.does(0, Event{Kind: Restart}); !do.Call || s.s.Failures != 0 || s.s.Attempts != 0 || s.s.backoff != (backoff{}) {
		t.Errorf("waiting: %+v, %+v", do, s.s)
	}
	p = persistent()
	p.Period, p.Anchor = time.Hour, noon.Add(-time.Minute)
	s = begun(t, p)
	if do := s.does(0, Event{Kind: Restart}); do.Call || s.s.Phase != Waiting {
		t.Errorf("not due: %+v, %+v", do, s.s)
	}
}

// The outage of a client that was given up ends with its next login.
func TestAClientThatWasGivenUpRecovers(t *testing.T) {
	p := persistent()
	p.MaxFailures = 1
	s := begun(t, p)
	s.does(0, Event{Kind: Connected})
	s.does(0, Event{Kind: LoggedIn})
	s.does(time.Hour, Event{Kind: Ended})
	s.does(0, refused)
	s.is(Stopped, 0)
	s.does(time.Hour, Event{Kind: Restart})
	s.does(0, Event{Kind: Connected})
	do := s.does(0, Event{Kind: LoggedIn})
	s.publishes(do, Recovered)
	if do.Outage != time.Hour {
		t.Errorf("the outage took %v", do.Outage)
	}
}

// docs/oran.md has the pauses after re-call-home-no-ssh-timer.
func TestFiguresOfTheTimer(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/oran.md")
	if err != nil {
		t.Fatal(err)
	}
	pause := func(timer time.Duration, n int, chance float64) string {
		p := persistent()
		p.Endpoints, p.Pause, p.NoSSH = 1, DefaultPause, timer
		s, _ := p.Step(State{}, Event{Kind: Begin}, noon, chance)
		now := noon
		for range n {
			s, _ = p.Step(s, Event{Kind: Connected}, now, chance)
			now = now.Add(timer)
			s, _ = p.Step(s, Event{Kind: Ended, Stage: proto.StageSSH}, now, chance)
			if n--; n > 0 {
				now = s.At
				s, _ = p.Step(s, Event{Kind: Tick}, now, chance)
			}
		}
		return fmt.Sprintf("%g s", s.At.Sub(now).Round(100*time.Millisecond).Seconds())
	}
	row := regexp.MustCompile(`(?m)^\| (\d+) s \|(.*) \|$`)
	rows := row.FindAllStringSubmatch(string(doc), -1)
	if len(rows) != 3 {
		t.Fatalf("docs/oran.md has %d rows", len(rows))
	}
	for _, r := range rows {
		timer, err := time.ParseDuration(r[1] + "s")
		if err != nil {
			t.Fatal(err)
		}
		for i, said := range strings.Split(r[2], "|") {
			n := i + 1
			if n == 4 {
				n = 20 // each further one
			}
			if want := pause(timer, n, 0) + " to " + pause(timer, n, 1); !strings.HasSuffix(strings.TrimSpace(said), want) {
				t.Errorf("%v, pause %d: docs/oran.md says %s, it is %s", timer, n, said, want)
			}
		}
	}
}

func TestANetworkChangeEndsAPause(t *testing.T) {
	s := begun(t, persistent())
	for range 20 {
		s.does(0, refused)
		s.tick()
	}
	s.does(0, refused)
	if do := s.does(time.Millisecond, Event{Kind: Network}); !do.Call {
		t.Error("it waited on")
	}
	s.does(0, refused)
	if d, _ := s.tick(); d > 2*time.Second {
		t.Errorf("the pauses did not start again: %v", d)
	}
}

// A network change drops an old attempt, and after a failed one the next call does
// not wait.
func TestANetworkChangeDuringACall(t *testing.T) {
	s := begun(t, persistent())
	for range 20 {
		s.does(0, refused)
		s.tick()
	}
	if do := s.does(retransmission/2, Event{Kind: Network}); do.Drop || do.Call {
		t.Errorf("a young attempt was dropped: %+v", do)
	}
	s.does(time.Second, refused)
	if d, do := s.tick(); d != 0 || !do.Call {
		t.Errorf("after the change the next call waited for %v", d)
	}
	s.does(0, refused)
	if d, _ := s.tick(); d != settlingPause {
		t.Errorf("soon after the change the next call waited for %v", d)
	}
	s.does(networkSettles, refused)
	s.tick()
	s.does(0, refused)
	if d, _ := s.tick(); d <= settlingPause || d > 2*time.Second {
		t.Errorf("the pauses did not start over: %v", d)
	}
	if do := s.does(2*retransmission, Event{Kind: Network}); !do.Drop || do.Call {
		t.Errorf("an old attempt was not dropped: %+v", do)
	}
	s.does(0, refused)
	s.tick()
	s.does(0, Event{Kind: Connected})
	if do := s.does(2*retransmission, Event{Kind: Network}); do.Drop || do.Call {
		t.Errorf("a connection was dropped: %+v", do)
	}
	s.does(time.Second, Event{Kind: Ended, Stage: proto.StageSSH})
	if d, do := s.tick(); d != 0 || !do.Call {
		t.Errorf("after the connection the next call waited for %v", d)
	}
}

func TestANetworkChangeLeavesASessionAlone(t *testing.T) {
	s := begun(t, persistent())
	s.does(0, Event{Kind: Connected})
	s.does(0, Event{Kind: LoggedIn})
	before := s.s
	if do := s.does(time.Second, Event{Kind: Network}); do.Call || do.Drop || s.s != before {
		t.Errorf("%+v", do)
	}
}

func TestPeriodicConnectionsBeginAtTheirSlots(t *testing.T) {
	s := begun(t, hourly()) // at 12:00; slots are at :15
	s.is(Waiting, 0)
	if d, do := s.tick(); d != 15*time.Minute || !do.Call {
		t.Fatalf("the first one after %v", d)
	}
	s.does(0, Event{Kind: Connected})
	s.does(0, Event{Kind: LoggedIn})
	s.publishes(s.does(10*time.Second, Event{Kind: Ended, Graceful: true}))
	if d, do := s.tick(); d != time.Hour-10*time.Second || !do.Call {
		t.Errorf("the next one after %v", d)
	}
	// It stays open over the next slot, and ends before the one after that.
	s.does(0, Event{Kind: Connected})
	s.does(0, Event{Kind: LoggedIn})
	s.does(90*time.Minute, Event{Kind: Ended, Graceful: true})
	if d, _ := s.tick(); d != 30*time.Minute {
		t.Errorf("after a long one %v", d)
	}
}

func TestALostPeriodicConnectionIsMadeAgain(t *testing.T) {
	s := begun(t, hourly())
	s.tick()
	s.does(0, Event{Kind: Connected})
	s.does(0, Event{Kind: LoggedIn})
	if do := s.does(time.Minute, Event{Kind: Ended}); !do.Call {
		t.Error("it was not called again at once")
	}
	s.does(0, refused)
	if d, do := s.tick(); d > 2*time.Second || !do.Call {
		t.Errorf("the second call waited %v", d)
	}
}

// The clock shows 1970 at boot until NTP sets it, and later makes small steps.
// Neither causes a burst, a second connection in a slot, or a gap of more than two
// periods.
func TestAClockStepCausesNoSecondConnection(t *testing.T) {
	p := hourly()
	s := &story{t: t, p: p, now: time.Date(1970, 1, 1, 0, 0, 5, 0, time.UTC)}
	s.does(0, Event{Kind: Begin})
	s.is(Waiting, 0)
	s.now = noon
	s.does(0, Event{Kind: ClockSet})
	if d := s.s.At.Sub(s.now); d != 15*time.Minute {
		t.Fatalf("after NTP the wait was %v", d)
	}
	s.tick()
	s.does(0, Event{Kind: Connected})
	s.does(0, Event{Kind: LoggedIn})
	s.does(time.Second, Event{Kind: Ended, Graceful: true})
	s.now = s.now.Add(-2 * time.Second) // before the slot again
	s.does(0, Event{Kind: ClockSet})
	if d := s.s.At.Sub(s.now); d < p.Period || d > p.Period+2*time.Second {
		t.Errorf("after a step back the wait was %v", d)
	}
}

func TestASlotThatBeginsWithTheConfigurationIsUsedOnce(t *testing.T) {
	p := hourly()
	p.Anchor = noon
	s := begun(t, p)
	s.is(Dialing, 0)
	// A restart a moment later knows the slot and does not call again.
	again, do := p.Step(State{Slot: s.s.Slot}, Event{Kind: Begin}, noon.Add(100*time.Millisecond), 0.5)
	if do.Call || again.At.Sub(noon) != time.Hour {
		t.Errorf("%+v, %+v", again, do)
	}
}

func TestAFoundSessionIsTakenOver(t *testing.T) {
	p := persistent()
	s := &story{t: t, p: p, now: noon}
	s.does(0, Event{Kind: Found, Endpoint: 1, LoggedIn: true, Since: noon.Add(-time.Hour)})
	s.is(Open, 1)
	if do := s.does(0, Event{Kind: Begin}); do.Call {
		t.Error("a second connection")
	}
	if do := s.does(time.Second, Event{Kind: Ended}); !do.Call {
		t.Error("its age was forgotten")
	}
}

// world is a station, a network and a clock with arbitrary events. It checks the
// invariants after each.
type world struct {
	p     *Policy
	s     State
	now   time.Time
	calls int // not ended
	r     *rand.Rand
}

func (w *world) step(t *testing.T, e Event) {
	before := w.s
	next, do := w.p.Step(w.s, e, w.now, w.r.Float64())
	if e.Kind == Failed || e.Kind == Ended {
		w.calls--
	}
	if do.Call {
		w.calls++
	}
	w.s = next
	busy := next.Phase == Dialing || next.Phase == HandedOver || next.Phase == Open
	switch {
	case w.calls < 0 || w.calls > 1 || busy != (w.calls == 1):
		t.Fatalf("%d calls in phase %d, after %+v in %+v", w.calls, next.Phase, e, before)
	case next.Phase == Waiting && next.At.IsZero(), next.Phase == Waiting && w.p.Period == 0 && next.At.Sub(w.now) > w.p.Pause.longest(),
		next.Phase == Waiting && w.p.Period > 0 && next.At.Sub(w.now) > 2*w.p.Period+w.p.Pause.longest():
		t.Fatalf("no next attempt, or one too late, after %+v in %+v: %+v", e, before, next)
	case next.Phase == Stopped && w.p.MaxFailures == 0:
		t.Fatalf("stopped without a limit after %+v in %+v", e, before)
	case next.Endpoint < 0 || next.Endpoint >= w.p.Endpoints:
		t.Fatalf("endpoint %d of %d after %+v in %+v", next.Endpoint, w.p.Endpoints, e, before)
	}
}

// No sequence of events makes two connections to a client, or leaves it without a
// next attempt.
func TestEveryStateHasOneCallOrANextAttempt(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := persistent()
		p.Endpoints, p.MaxAttempts, p.StartWith = 1+r.IntN(3), 1+r.IntN(4), StartWith(r.IntN(3))
		p.Pause.Jitter = r.IntN(90)
		if r.IntN(3) == 0 {
			p.MaxFailures = 1 + r.IntN(20)
		}
		if r.IntN(2) == 0 {
			p.Period, p.Anchor = time.Duration(1+r.IntN(500))*time.Minute, noon.Add(time.Duration(r.Int64N(1e17)-5e16))
		}
		w := &world{p: p, now: noon, r: r}
		w.step(t, Event{Kind: Begin})
		stages := proto.Stages
		for range 400 {
			w.now = w.now.Add(time.Duration(r.ExpFloat64() * float64(10*time.Second)))
			if r.IntN(20) == 0 {
				w.now = w.now.Add(time.Duration(r.NormFloat64() * float64(48*time.Hour)))
				w.step(t, Event{Kind: ClockSet})
			}
			e := Event{Kind: []Kind{Begin, Network, Tick, ClockSet}[r.IntN(4)], Stage: stages[r.IntN(len(stages))], Graceful: r.IntN(2) == 0}
			if w.calls == 1 && r.IntN(2) == 0 { // what a call can bring
				e.Kind = map[Phase][]Kind{Dialing: {Connected, Failed, Ended}, HandedOver: {LoggedIn, Ended, Failed}, Open: {Ended}}[w.s.Phase][r.IntN(map[Phase]int{Dialing: 3, HandedOver: 3, Open: 1}[w.s.Phase])]
			} else if w.s.Phase == Waiting && r.IntN(2) == 0 {
				w.now = w.s.At
				e.Kind = Tick
			}
			w.step(t, e)
		}
	}
}

// A connection that comes late in its slot does not replace the next slot's.
func TestALateConnectionKeepsTheNextSlot(t *testing.T) {
	s := begun(t, hourly())
	if d, do := s.tick(); d != 15*time.Minute || !do.Call {
		t.Fatalf("the first call came after %v", d)
	}
	for s.now.Before(noon.Add(65 * time.Minute)) {
		s.does(time.Millisecond, refused)
		s.tick()
	}
	s.does(time.Millisecond, Event{Kind: Connected})
	s.does(time.Millisecond, Event{Kind: LoggedIn})
	s.does(time.Minute, Event{Kind: Ended, Graceful: true})
	if want := noon.Add(75 * time.Minute); !s.s.At.Equal(want) {
		t.Errorf("the next one is at %v, expected %v", s.s.At, want)
	}
}

// A connection that is due when the daemon ends is due when it starts again.
func TestADueConnectionStaysDue(t *testing.T) {
	p := hourly()
	for _, due := range []bool{true, false} {
		s, do := p.Step(State{Slot: noon.Add(-45 * time.Minute), Due: due}, Event{Kind: Begin}, noon, 0.5)
		if do.Call != due || s.Due != due {
			t.Errorf("due %v: call %v, and %+v", due, do.Call, s)
		}
		if !s.Slot.Equal(noon.Add(-45 * time.Minute)) {
			t.Errorf("due %v: the slot became %v", due, s.Slot)
		}
	}
}

// An endpoint that accepts and stays silent does not delay the next one: pauses are
// long only between rounds.
func TestTheNextEndpointIsCalledSoon(t *testing.T) {
	s := begun(t, persistent())
	for s.s.Endpoint == 0 {
		s.does(0, Event{Kind: Connected})
		s.does(time.Minute, Event{Kind: Tick})
		s.does(0, Event{Kind: Ended, Stage: proto.StageSSH})
		s.tick()
	}
	if d := s.now.Sub(noon); d > 3*time.Minute+20*time.Second {
		t.Errorf("the second endpoint was called after %v", d)
	}
	// After a long outage of both, the one that returns is called within a round.
	for s.now.Sub(noon) < 2*time.Hour || s.s.Endpoint != 0 || s.s.Attempts != 0 {
		s.does(time.Millisecond, refused)
		s.tick()
	}
	begin := s.now
	for s.s.Endpoint == 0 {
		s.does(time.Millisecond, refused)
		s.tick()
	}
	if d := s.now.Sub(begin); d > 5*time.Second {
		t.Errorf("from one endpoint to the next it took %v", d)
	}
}

// An anchor-time of any year is the origin of the slots: the next one is less than a
// period away, and a multiple of the period from the anchor.
func TestAFarAnchorTime(t *testing.T) {
	for _, anchor := range []int{1, 1700, 1969, 2024, 2400, 9999} {
		for _, year := range []int{1970, 2026, 2500} {
			for _, period := range []time.Duration{time.Minute, 7 * time.Minute, 65535 * time.Minute} {
				p := hourly()
				p.Period, p.Anchor = period, time.Date(anchor, 1, 31, 0, 15, 0, 0, time.UTC)
				now := time.Date(year, 11, 29, 12, 0, 30, 0, time.UTC)
				s, do := p.Step(State{}, Event{Kind: Begin}, now, 0.5)
				if d := s.At.Sub(now); do.Call || s.Phase != Waiting || d <= 0 || d > period {
					t.Errorf("anchor %d, year %d, %v: %+v, the slot is in %v", anchor, year, period, do, d)
					continue
				}
				if off := (s.At.Unix() - p.Anchor.Unix()) % int64(period/time.Second); off != 0 {
					t.Errorf("anchor %d, year %d, %v: the slot is %d s off", anchor, year, period, off)
				}
				for range 3 { // and it does not call without pause
					s, do = p.Step(s, Event{Kind: Tick}, s.At, 0.5)
					at := s.Slot
					if !do.Call {
						t.Fatalf("anchor %d, year %d, %v: no call in %+v", anchor, year, period, s)
					}
					s, _ = p.Step(s, Event{Kind: Connected}, at, 0.5)
					s, _ = p.Step(s, Event{Kind: LoggedIn}, at, 0.5)
					if s, do = p.Step(s, Event{Kind: Ended, Graceful: true}, at.Add(time.Second), 0.5); do.Call || s.At.Sub(at) != period {
						t.Errorf("anchor %d, year %d, %v: after the slot %v the next is %v, %+v", anchor, year, period, at, s.At, do)
					}
				}
			}
		}
	}
}
