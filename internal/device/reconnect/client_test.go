package reconnect

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/settings"
	"callhome/internal/proto"
)

func TestAClientIsCalledAtOnceAndAgainWhenItIsLost(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		k.Apply(clients(conf("nms", "a")), &settings.Call{})
		first := w.last()
		if first.info.Host != "a.example" || first.owner.Client != "nms" || first.owner.Endpoint != "a" {
			t.Errorf("the call is %+v of %+v", first.info, first.owner)
		}
		is(t, k, proto.ClientDialing)
		first.becomes(proto.StateStarting)
		is(t, k, proto.ClientHandedOver)
		first.becomes(proto.StateAuthenticated)
		is(t, k, proto.ClientAuthenticated)
		first.becomes(proto.StateServing)
		is(t, k, proto.ClientServing)
		if s := status(t, k); s.Session != 1 || s.User != "netop" || s.Address != "192.0.2.1:4334" || s.Connections != 1 || s.Endpoint != "a" {
			t.Errorf("the client is %+v", s)
		}
		w.tells()

		time.Sleep(time.Hour)
		first.lost()
		w.tells(proto.EventLost)
		second := w.last()
		if second == first {
			t.Fatal("it was not called again at once")
		}
		if s := status(t, k); s.Session != 2 || s.User != "" || s.LastError == nil || s.LastError.End != proto.EndReset || s.LastError.Message != "connection reset" {
			t.Errorf("the client is %+v", s)
		}
		time.Sleep(2 * time.Second)
		second.becomes(proto.StateStarting, proto.StateAuthenticated)
		w.mu.Lock()
		outage := w.events[0].Outage
		w.mu.Unlock()
		if outage != 2*time.Second {
			t.Errorf("the outage was %v", outage)
		}
		w.tells(proto.EventRecovered)
		if s := status(t, k); s.Connections != 2 {
			t.Errorf("the client is %+v", s)
		}
	})
}

func TestAttemptsThatFailAreToldAndGoOn(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		k.Apply(clients(conf("nms", "a", "b")), &settings.Call{})
		for range 3 {
			is(t, k, proto.ClientDialing)
			w.last().refused()
			is(t, k, proto.ClientWaiting)
			s := status(t, k)
			if s.NextAttempt == nil || !s.NextAttempt.After(time.Now()) {
				t.Fatalf("the next attempt is at %v", s.NextAttempt)
			}
			n := w.made()
			time.Sleep(time.Until(*s.NextAttempt) - time.Millisecond)
			synctest.Wait()
			if w.made() != n {
				t.Fatal("called before the time it says")
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if w.made() != n+1 {
				t.Fatal("not called at the time it says")
			}
		}
		if s := status(t, k); s.Endpoint != "b" || s.Failures != 3 || s.Attempts != 0 || s.AttemptsLeft != 3 || s.LastError.Stage != proto.StageTCP {
			t.Errorf("the client is %+v", s)
		}
		w.tells(proto.EventAttemptFailed, proto.EventAttemptFailed, proto.EventAttemptFailed, proto.EventEndpointExhausted)
		w.last().refused()
		time.Sleep(time.Minute)
		if s := status(t, k); s.Attempts != 1 || s.AttemptsLeft != 2 {
			t.Errorf("the client is %+v", s)
		}
		w.last().serves()
		if s := status(t, k); s.Attempts != 0 || s.AttemptsLeft != 3 || s.Failures != 0 || s.LastError == nil || s.NextAttempt != nil {
			t.Errorf("the client is %+v", s)
		}
	})
}

// A manager that takes no more calls is an attempt that failed.
func TestACallThatIsNotTakenIsAnAttemptThatFailed(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		w.err = errFull
		k.Apply(clients(conf("nms", "a")), &settings.Call{})
		is(t, k, proto.ClientWaiting)
		if s := status(t, k); s.LastError == nil || !strings.Contains(s.LastError.Message, "4096") || s.LastError.Stage != proto.StageHandover {
			t.Errorf("the client is %+v", s)
		}
		w.tells(proto.EventAttemptFailed)
		w.mu.Lock()
		w.err = nil
		w.mu.Unlock()
		time.Sleep(time.Minute)
		is(t, k, proto.ClientDialing)
	})
}

func TestNewsOfTheNetworkCutAPauseShort(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		k.Apply(clients(conf("nms", "a")), &settings.Call{})
		w.last().refused()
		is(t, k, proto.ClientWaiting)
		k.Network()
		is(t, k, proto.ClientDialing)
		if w.made() != 2 {
			t.Errorf("%d calls", w.made())
		}
	})
}

// Neither the network nor the clock changes what is shown of a client that
// speaks NETCONF.
func TestAClientThatIsServedStaysSo(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		k.Apply(clients(conf("nms", "a")), &settings.Call{})
		w.last().serves()
		since := status(t, k).Since
		time.Sleep(time.Minute)
		k.Network()
		synctest.Wait()
		k.ClockSet()
		is(t, k, proto.ClientServing)
		if s := status(t, k); s.Since != since || w.made() != 1 {
			t.Errorf("%d calls, and the client is %+v", w.made(), s)
		}
	})
}

// News that nobody takes do not pile up: of a client that is disabled, and of
// one that waits for the end of a session.
func TestNewsDoNotPileUp(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		off := conf("off", "a")
		off.Enabled = false
		old := conf("busy", "a")
		stubborn := w.found(old.Endpoints[0], proto.StateServing)
		stubborn.stubborn = true
		k.Apply(clients(off, conf("busy", "b")), &settings.Call{})
		synctest.Wait()
		before := runtime.NumGoroutine()
		for range 1000 {
			k.Network()
			k.ClockSet()
		}
		synctest.Wait()
		if now := runtime.NumGoroutine(); now > before+100 {
			t.Errorf("%d goroutines became %d", before, now)
		}
		stubborn.ends(proto.StageSession, proto.EndKilled, "")
	})
}

func TestADisabledClientIsNotCalledAndItsSessionIsEnded(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		c := conf("nms", "a")
		found := w.found(c.Endpoints[0], proto.StateServing)
		c.Enabled = false
		k.Apply(clients(c), &settings.Call{})
		k.Network()
		time.Sleep(time.Hour)
		is(t, k, proto.ClientDisabled)
		if len(found.orders()) != 1 || w.made() != 1 {
			t.Errorf("%d calls, orders %v", w.made(), found.orders())
		}
	})
}

// A session may be over before anybody has looked: its login counts.
func TestALoginThatWasShortCounts(t *testing.T) {
	for name, tt := range map[string]struct {
		stage proto.Stage
		want  uint64
	}{"with NETCONF": {proto.StageSession, 1}, "without": {proto.StageSubsystem, 1}, "none": {proto.StageAuth, 0}} {
		t.Run(name, func(t *testing.T) {
			play(t, Options{}, func(w *world, k *Keeper) {
				k.Apply(clients(periodic(conf("nms", "a"), config.Periodic{Period: time.Hour})), &settings.Call{})
				w.last().ends(tt.stage, proto.EndDisconnected, "")
				s := status(t, k)
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
	play(t, Options{}, func(w *world, k *Keeper) {
		c := conf("nms", "a")
		c.NoSSHTimer = 20 * time.Second
		k.Apply(clients(c), &settings.Call{})
		w.last().becomes(proto.StateStarting)
		time.Sleep(20*time.Second - time.Nanosecond)
		first := w.last()
		if len(first.orders()) != 0 {
			t.Error("it was ended too early")
		}
		time.Sleep(time.Nanosecond)
		if got := first.orders(); len(got) != 1 || got[0] != proto.EndLoginTimeout {
			t.Errorf("it was told %v", got)
		}
		if s := status(t, k); s.State == proto.ClientHandedOver {
			t.Errorf("the client is %+v", s)
		}
	})
}

func TestAPeriodicClientIsCalledAtItsTimes(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		begun := time.Now() // midnight, in a bubble
		k.Apply(clients(periodic(conf("nms", "a"), config.Periodic{Period: time.Hour, Anchor: begun.Add(20 * time.Minute)})), &settings.Call{})
		is(t, k, proto.ClientIdle)
		if s := status(t, k); !s.Periodic || s.NextAttempt == nil || !s.NextAttempt.Equal(begun.Add(20*time.Minute)) {
			t.Errorf("the client is %+v", s)
		}
		for n := range 3 {
			time.Sleep(time.Until(begun.Add(20*time.Minute + time.Duration(n)*time.Hour)))
			synctest.Wait()
			if w.made() != n+1 {
				t.Fatalf("at time %d there were %d calls", n, w.made())
			}
			w.last().serves()
			time.Sleep(time.Minute)
			w.last().ends(proto.StageSession, proto.EndIdle, "idle")
			is(t, k, proto.ClientIdle)
		}
		w.tells()
		// Not on purpose: again at once.
		time.Sleep(time.Hour)
		w.last().serves()
		time.Sleep(time.Minute)
		w.last().lost()
		w.tells(proto.EventLost)
		is(t, k, proto.ClientDialing)
	})
}

// Without an anchor-time the times are counted from the first start in this
// boot, and the daemon's restarts make no connection of their own.
func TestTimesOutliveTheDaemon(t *testing.T) {
	o := Options{Slots: filepath.Join(t.TempDir(), "slots")}
	c := periodic(conf("nms", "a"), config.Periodic{Period: time.Hour})
	var begun time.Time
	play(t, o, func(w *world, k *Keeper) {
		begun = time.Now().UTC()
		k.Apply(clients(c), &settings.Call{})
		w.last().serves()
		w.last().ends(proto.StageSession, proto.EndIdle, "idle")
		is(t, k, proto.ClientIdle)
	})
	play(t, o, func(w *world, k *Keeper) {
		time.Sleep(10 * time.Minute)
		k.Apply(clients(c), &settings.Call{})
		is(t, k, proto.ClientIdle)
		if s := status(t, k); w.made() != 0 || !s.NextAttempt.Equal(begun.Add(time.Hour)) {
			t.Errorf("%d calls, the next one at %v", w.made(), s.NextAttempt)
		}
	})
}

func TestTheEndpointConnectedToLastOutlivesTheDaemon(t *testing.T) {
	o := Options{Last: filepath.Join(t.TempDir(), "last")}
	c := conf("nms", "a", "b")
	c.Reconnect.StartWith, c.Reconnect.MaxAttempts = config.LastConnected, 1
	play(t, o, func(w *world, k *Keeper) {
		k.Apply(clients(c), &settings.Call{})
		w.last().refused()
		time.Sleep(time.Minute)
		w.last().serves()
	})
	play(t, o, func(w *world, k *Keeper) {
		k.Apply(clients(c), &settings.Call{})
		if e := w.last().owner.Endpoint; e != "b" {
			t.Errorf("called %s first", e)
		}
	})
}

// A time whose connection could not be made is not over because of a restart, or
// because somebody has mended the document; one whose session ended gracefully
// is.
func TestWhatIsDueOutlivesTheDaemon(t *testing.T) {
	o := Options{Slots: filepath.Join(t.TempDir(), "slots")}
	c := periodic(conf("nms", "wrong"), config.Periodic{Period: 24 * time.Hour})
	play(t, o, func(w *world, k *Keeper) {
		k.Apply(clients(c), &settings.Call{})
		w.last().refused()
		is(t, k, proto.ClientWaiting)
		time.Sleep(10 * time.Second)
		w.last().refused()
		k.Apply(clients(periodic(conf("nms", "right"), *c.Periodic)), &settings.Call{})
		if e := w.last().owner.Endpoint; e != "right" {
			t.Errorf("called %s", e)
		}
	})
	play(t, o, func(w *world, k *Keeper) {
		time.Sleep(time.Hour)
		k.Apply(clients(c), &settings.Call{})
		w.last().serves()
		w.last().ends(proto.StageSession, proto.EndIdle, "idle")
		is(t, k, proto.ClientIdle)
	})
	play(t, o, func(w *world, k *Keeper) {
		time.Sleep(2 * time.Hour)
		k.Apply(clients(c), &settings.Call{})
		is(t, k, proto.ClientIdle)
	})
}
