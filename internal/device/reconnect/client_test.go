package reconnect

import (
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/settings"
	"callhome/internal/proto"
)

func TestALostConnectionIsMadeAgainAtOnce(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		cs.Apply(clients(conf("nms", "a")), &settings.Call{})
		first := m.last()
		if first.info.Host != "a.example" || first.owner.Client != "nms" || first.owner.Endpoint != "a" {
			t.Errorf("the call is %+v of %+v", first.info, first.owner)
		}
		is(t, cs, proto.ClientDialing)
		first.becomes(proto.StateStarting)
		is(t, cs, proto.ClientHandedOver)
		first.becomes(proto.StateAuthenticated)
		is(t, cs, proto.ClientAuthenticated)
		first.becomes(proto.StateServing)
		is(t, cs, proto.ClientServing)
		if s := status(t, cs); s.Session != 1 || s.User != "netop" || s.Address != "192.0.2.1:4334" || s.Connections != 1 || s.Endpoint != "a" {
			t.Errorf("the client is %+v", s)
		}
		m.publishes()

		time.Sleep(time.Hour)
		first.lost()
		m.publishes(proto.EventLost)
		second := m.last()
		if second == first {
			t.Fatal("it was not called again at once")
		}
		if s := status(t, cs); s.Session != 2 || s.User != "" || s.LastError == nil || s.LastError.End != proto.EndReset || s.LastError.Message != "connection reset" {
			t.Errorf("the client is %+v", s)
		}
		time.Sleep(2 * time.Second)
		second.becomes(proto.StateStarting, proto.StateAuthenticated)
		m.mu.Lock()
		outage := m.events[0].Outage
		m.mu.Unlock()
		if outage != 2*time.Second {
			t.Errorf("the outage was %v", outage)
		}
		m.publishes(proto.EventRecovered)
		if s := status(t, cs); s.Connections != 2 {
			t.Errorf("the client is %+v", s)
		}
	})
}

func TestFailedAttemptsArePublishedAndRepeated(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		cs.Apply(clients(conf("nms", "a", "b")), &settings.Call{})
		for range 3 {
			is(t, cs, proto.ClientDialing)
			m.last().refused()
			is(t, cs, proto.ClientWaiting)
			s := status(t, cs)
			if s.NextAttempt == nil || !s.NextAttempt.After(time.Now()) {
				t.Fatalf("the next attempt is at %v", s.NextAttempt)
			}
			n := m.made()
			time.Sleep(time.Until(*s.NextAttempt) - time.Millisecond)
			synctest.Wait()
			if m.made() != n {
				t.Fatal("called before the time it says")
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if m.made() != n+1 {
				t.Fatal("not called at the time it says")
			}
		}
		if s := status(t, cs); s.Endpoint != "b" || s.Failures != 3 || s.Attempts != 0 || s.AttemptsLeft != 3 || s.LastError.Stage != proto.StageTCP {
			t.Errorf("the client is %+v", s)
		}
		m.publishes(proto.EventAttemptFailed, proto.EventAttemptFailed, proto.EventAttemptFailed, proto.EventEndpointExhausted)
		m.last().refused()
		time.Sleep(time.Minute)
		if s := status(t, cs); s.Attempts != 1 || s.AttemptsLeft != 2 {
			t.Errorf("the client is %+v", s)
		}
		m.last().serves()
		if s := status(t, cs); s.Attempts != 0 || s.AttemptsLeft != 3 || s.Failures != 0 || s.LastError == nil || s.NextAttempt != nil {
			t.Errorf("the client is %+v", s)
		}
	})
}

// An error of the manager, which may be full, counts as a failed attempt.
func TestAnErrorOfTheManagerIsAFailedAttempt(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		m.err = errFull
		cs.Apply(clients(conf("nms", "a")), &settings.Call{})
		is(t, cs, proto.ClientWaiting)
		if s := status(t, cs); s.LastError == nil || !strings.Contains(s.LastError.Message, "4096") || s.LastError.Stage != proto.StageHandover {
			t.Errorf("the client is %+v", s)
		}
		m.publishes(proto.EventAttemptFailed)
		m.mu.Lock()
		m.err = nil
		m.mu.Unlock()
		time.Sleep(time.Minute)
		is(t, cs, proto.ClientDialing)
	})
}

// O-RAN counts repetitions: 0 is one call home, 1 two; without the leaf there is no
// limit. A restart calls a client again that was given up, and those that wait.
func TestRestartsAndRepetitions(t *testing.T) {
	for _, repeats := range []int{0, 1, 3} {
		play(t, Options{}, func(m *fakeManager, cs *Clients) {
			limited, other := conf("nms", "a"), conf("other", "a")
			limited.MaxCallHomeAttempts = &repeats
			cs.Apply(clients(limited), &settings.Call{})
			for range repeats + 1 {
				m.last().refused()
				time.Sleep(10 * time.Minute)
			}
			is(t, cs, proto.ClientStopped)
			if m.made() != repeats+1 {
				t.Errorf("%d repetitions: %d calls", repeats, m.made())
			}
			restart := func(name string, want ...string) {
				t.Helper()
				if got, err := cs.Restart(name); err != nil || !slices.Equal(got, want) {
					t.Errorf("Restart(%q) returned %v, %v, want %v", name, got, err, want)
				}
				synctest.Wait()
			}
			restart("nms", "nms")
			is(t, cs, proto.ClientDialing)
			restart("", []string{}...)
			m.last().serves()
			restart("nms", []string{}...)
			if _, err := cs.Restart("nsm"); err == nil || !strings.Contains(err.Error(), `"nsm"`) {
				t.Errorf("an unknown client: %v", err)
			}
			other.Enabled = false
			cs.Apply(clients(limited, other), &settings.Call{})
			restart("other", []string{}...)
		})
	}
}

func TestANetworkChangeEndsAPause(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		cs.Apply(clients(conf("nms", "a")), &settings.Call{})
		m.last().refused()
		is(t, cs, proto.ClientWaiting)
		cs.Network()
		is(t, cs, proto.ClientDialing)
		if m.made() != 2 {
			t.Errorf("%d calls", m.made())
		}
	})
}

// Changes of the network and the clock leave the status of a client with a NETCONF
// session as it is.
func TestANetworkChangeLeavesAServingClientAlone(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		cs.Apply(clients(conf("nms", "a")), &settings.Call{})
		m.last().serves()
		since := status(t, cs).Since
		time.Sleep(time.Minute)
		cs.Network()
		synctest.Wait()
		cs.ClockSet()
		is(t, cs, proto.ClientServing)
		if s := status(t, cs); s.Since != since || m.made() != 1 {
			t.Errorf("%d calls, and the client is %+v", m.made(), s)
		}
	})
}

// Changes do not accumulate for a disabled client, nor for one that waits for the
// end of a session.
func TestChangesDoNotAccumulate(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		off := conf("off", "a")
		off.Enabled = false
		old := conf("busy", "a")
		stubborn := m.found(old.Endpoints[0], proto.StateServing)
		stubborn.stubborn = true
		cs.Apply(clients(off, conf("busy", "b")), &settings.Call{})
		synctest.Wait()
		before := runtime.NumGoroutine()
		for range 1000 {
			cs.Network()
			cs.ClockSet()
		}
		synctest.Wait()
		if now := runtime.NumGoroutine(); now > before+100 {
			t.Errorf("%d goroutines became %d", before, now)
		}
		stubborn.ends(proto.StageSession, proto.EndKilled, "")
	})
}

func TestADisabledClientIsNotCalledAndItsSessionIsEnded(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		c := conf("nms", "a")
		found := m.found(c.Endpoints[0], proto.StateServing)
		c.Enabled = false
		cs.Apply(clients(c), &settings.Call{})
		cs.Network()
		time.Sleep(time.Hour)
		is(t, cs, proto.ClientDisabled)
		if len(found.endCalls()) != 1 || m.made() != 1 {
			t.Errorf("%d calls, calls of End %v", m.made(), found.endCalls())
		}
	})
}

// A session may end before Await has seen its login; the login counts.
func TestTheLoginOfAShortSessionCounts(t *testing.T) {
	for name, tt := range map[string]struct {
		stage proto.Stage
		want  uint64
	}{"with NETCONF": {proto.StageSession, 1}, "without": {proto.StageSubsystem, 1}, "none": {proto.StageAuth, 0}} {
		t.Run(name, func(t *testing.T) {
			play(t, Options{}, func(m *fakeManager, cs *Clients) {
				cs.Apply(clients(periodic(conf("nms", "a"), config.Periodic{Period: time.Hour})), &settings.Call{})
				m.last().ends(tt.stage, proto.EndDisconnected, "")
				s := status(t, cs)
				if s.Connections != tt.want {
					t.Errorf("%d connections", s.Connections)
				}
				if want := map[bool]proto.ClientState{true: proto.ClientIdle, false: proto.ClientWaiting}[tt.want == 1]; s.State != want {
					t.Errorf("the client is %s, expected %s", s.State, want)
				}
			})
		})
	}
}

func TestAConnectionWithoutALoginIsDropped(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		c := conf("nms", "a")
		c.NoSSHTimer = 20 * time.Second
		cs.Apply(clients(c), &settings.Call{})
		m.last().becomes(proto.StateStarting)
		time.Sleep(20*time.Second - time.Nanosecond)
		first := m.last()
		if len(first.endCalls()) != 0 {
			t.Error("it was ended too early")
		}
		time.Sleep(time.Nanosecond)
		if got := first.endCalls(); len(got) != 1 || got[0] != proto.EndLoginTimeout {
			t.Errorf("End was called with %v", got)
		}
		if s := status(t, cs); s.State == proto.ClientHandedOver {
			t.Errorf("the client is %+v", s)
		}
	})
}

func TestAPeriodicClientIsCalledAtItsSlots(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		begun := time.Now() // midnight, under synctest
		cs.Apply(clients(periodic(conf("nms", "a"), config.Periodic{Period: time.Hour, Anchor: begun.Add(20 * time.Minute)})), &settings.Call{})
		is(t, cs, proto.ClientIdle)
		if s := status(t, cs); !s.Periodic || s.NextAttempt == nil || !s.NextAttempt.Equal(begun.Add(20*time.Minute)) {
			t.Errorf("the client is %+v", s)
		}
		for n := range 3 {
			time.Sleep(time.Until(begun.Add(20*time.Minute + time.Duration(n)*time.Hour)))
			synctest.Wait()
			if m.made() != n+1 {
				t.Fatalf("at time %d there were %d calls", n, m.made())
			}
			m.last().serves()
			time.Sleep(time.Minute)
			m.last().ends(proto.StageSession, proto.EndIdle, "idle")
			is(t, cs, proto.ClientIdle)
		}
		m.publishes()
		// A lost session is followed by a call home at once.
		time.Sleep(time.Hour)
		m.last().serves()
		time.Sleep(time.Minute)
		m.last().lost()
		m.publishes(proto.EventLost)
		is(t, cs, proto.ClientDialing)
	})
}

// Without an anchor-time the slots count from the first start in this boot, and a
// restart of the daemon causes no connection.
func TestSlotsOutliveTheDaemon(t *testing.T) {
	o := Options{Slots: filepath.Join(t.TempDir(), "slots")}
	c := periodic(conf("nms", "a"), config.Periodic{Period: time.Hour})
	var begun time.Time
	play(t, o, func(m *fakeManager, cs *Clients) {
		begun = time.Now().UTC()
		cs.Apply(clients(c), &settings.Call{})
		m.last().serves()
		m.last().ends(proto.StageSession, proto.EndIdle, "idle")
		is(t, cs, proto.ClientIdle)
	})
	play(t, o, func(m *fakeManager, cs *Clients) {
		time.Sleep(10 * time.Minute)
		cs.Apply(clients(c), &settings.Call{})
		is(t, cs, proto.ClientIdle)
		if s := status(t, cs); m.made() != 0 || !s.NextAttempt.Equal(begun.Add(time.Hour)) {
			t.Errorf("%d calls, the next one at %v", m.made(), s.NextAttempt)
		}
	})
}

func TestTheEndpointConnectedToLastOutlivesTheDaemon(t *testing.T) {
	o := Options{Last: filepath.Join(t.TempDir(), "last")}
	c := conf("nms", "a", "b")
	c.Reconnect.StartWith, c.Reconnect.MaxAttempts = config.LastConnected, 1
	play(t, o, func(m *fakeManager, cs *Clients) {
		cs.Apply(clients(c), &settings.Call{})
		m.last().refused()
		time.Sleep(time.Minute)
		m.last().serves()
	})
	play(t, o, func(m *fakeManager, cs *Clients) {
		cs.Apply(clients(c), &settings.Call{})
		if e := m.last().owner.Endpoint; e != "b" {
			t.Errorf("called %s first", e)
		}
	})
}

// A slot whose connection failed stays due after a restart and after a corrected
// document. A slot whose session ended gracefully does not.
func TestADueConnectionOutlivesTheDaemon(t *testing.T) {
	o := Options{Slots: filepath.Join(t.TempDir(), "slots")}
	c := periodic(conf("nms", "wrong"), config.Periodic{Period: 24 * time.Hour})
	play(t, o, func(m *fakeManager, cs *Clients) {
		cs.Apply(clients(c), &settings.Call{})
		m.last().refused()
		is(t, cs, proto.ClientWaiting)
		time.Sleep(10 * time.Second)
		m.last().refused()
		cs.Apply(clients(periodic(conf("nms", "right"), *c.Periodic)), &settings.Call{})
		if e := m.last().owner.Endpoint; e != "right" {
			t.Errorf("called %s", e)
		}
	})
	play(t, o, func(m *fakeManager, cs *Clients) {
		time.Sleep(time.Hour)
		cs.Apply(clients(c), &settings.Call{})
		m.last().serves()
		m.last().ends(proto.StageSession, proto.EndIdle, "idle")
		is(t, cs, proto.ClientIdle)
	})
	play(t, o, func(m *fakeManager, cs *Clients) {
		time.Sleep(2 * time.Hour)
		cs.Apply(clients(c), &settings.Call{})
		is(t, cs, proto.ClientIdle)
	})
}
