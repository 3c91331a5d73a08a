package reconnect

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/settings"
	"callhome/internal/proto"
)

func TestAReloadTouchesOnlyWhatChanged(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		const n = 100
		var list []config.Client
		for _, name := range names(n) {
			list = append(list, conf(name, "a"))
		}
		k.Apply(clients(list...), &settings.Call{})
		synctest.Wait()
		for _, c := range w.open() {
			c.serves()
		}
		for i := range 50 {
			before := w.open()
			list = slices.Clone(list)
			list[i] = conf(list[i].Name, "a", "b")
			list[i].Endpoints[0].Port++
			k.Apply(clients(list...), &settings.Call{})
			w.last().serves()
			after := w.open()
			same := 0
			for _, c := range before {
				if slices.Contains(after, c) {
					same++
				}
			}
			if same != n-1 || len(after) != n {
				t.Fatalf("reload %d: %d sessions, %d of them from before", i, len(after), same)
			}
		}
		// Connections are counted by the client, so it is still the same one.
		for i, s := range k.Status() {
			want := uint64(1)
			if i < 50 { // changed, and connected to anew; what was counted stays
				want = 2
			}
			if s.State != proto.ClientServing || s.Connections != want || (i >= 50 && s.Client != list[i].Name) {
				t.Errorf("the client is %+v", s)
			}
		}
		time.Sleep(time.Hour)
		k.Apply(clients(list...), &settings.Call{})
		if s := k.Status()[99]; s.Since.After(time.Now().Add(-time.Hour)) {
			t.Errorf("the same document began the client anew: %+v", s)
		}
	})
}

func TestOtherSettingsOfTheDaemonTouchNoSession(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		k.Apply(clients(conf("nms", "a")), &settings.Call{})
		w.last().serves()
		k.Apply(clients(conf("nms", "a")), &settings.Call{DeviceID: "edge7"})
		is(t, k, proto.ClientServing)
		if w.made() != 1 || len(w.last().orders()) != 0 {
			t.Errorf("%d calls, orders %v", w.made(), w.last().orders())
		}
		time.Sleep(time.Hour)
		w.last().lost()
		if id := w.last().with.DeviceID; id != "edge7" {
			t.Errorf("the next call is made with %q", id)
		}
	})
}

func TestASessionWithoutAClientIsEnded(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		k.Apply(clients(conf("nms", "a"), conf("other", "a")), &settings.Call{})
		synctest.Wait()
		for _, c := range w.open() {
			c.serves()
		}
		k.Apply(clients(conf("other", "a")), &settings.Call{})
		synctest.Wait()
		if left := w.open(); len(left) != 1 || left[0].owner.Client != "other" {
			t.Errorf("left %v", left)
		}
	})
}

// Of a changed endpoint the old session is gone before the new call is made,
// however long that takes, and whatever is reloaded meanwhile.
func TestAClientNeverHasTwoSessions(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		k.Apply(clients(conf("nms", "a")), &settings.Call{})
		first := w.last()
		first.stubborn = true
		first.serves()
		for _, endpoint := range []string{"b", "c", "d"} {
			k.Apply(clients(conf("nms", endpoint)), &settings.Call{})
			time.Sleep(time.Minute)
			if n := w.made(); n != 1 {
				t.Fatalf("%d calls while the first session is there", n)
			}
		}
		first.ends(proto.StageSession, proto.EndKilled, "")
		if e := w.last().owner.Endpoint; e != "d" || w.made() != 2 {
			t.Errorf("%d calls, the last one to %s", w.made(), e)
		}
	})
}

func TestSessionsOfAFormerRunGoOn(t *testing.T) {
	for state, want := range map[proto.State]proto.ClientState{
		proto.StateServing: proto.ClientServing, proto.StateAuthenticated: proto.ClientAuthenticated, proto.StateKeyExchange: proto.ClientHandedOver,
	} {
		t.Run(string(state), func(t *testing.T) {
			play(t, Options{}, func(w *world, k *Keeper) {
				c := conf("nms", "a", "b")
				first := w.found(c.Endpoints[1], state)
				second := w.found(c.Endpoints[1], state)
				gone := w.found(config.Endpoint{Client: "nms", Name: "z"}, state)
				k.Apply(clients(c), &settings.Call{})
				is(t, k, want)
				if s := status(t, k); s.Endpoint != "b" || s.Session != first.info.Session || w.made() != 3 {
					t.Errorf("%d calls, and the client is %+v", w.made(), s)
				}
				if len(first.orders()) != 0 || len(second.orders()) != 1 || len(gone.orders()) != 1 {
					t.Errorf("the orders were %v, %v, %v", first.orders(), second.orders(), gone.orders())
				}
				time.Sleep(time.Hour)
				first.lost()
				// Without a login the end of an attempt is followed by a pause.
				time.Sleep(10 * time.Minute)
				if w.made() != 4 {
					t.Errorf("%d calls after its end", w.made())
				}
			})
		})
	}
}

func TestSessionsOutliveTheKeeper(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		k.Apply(clients(conf("nms", "a")), &settings.Call{})
		w.last().serves()
		k.Close()
		k.Close() // once more is no fault
		k.Network()
		k.Apply(clients(conf("another", "a")), &settings.Call{})
		if w.made() != 1 || len(w.last().orders()) != 0 {
			t.Errorf("%d calls, orders %v", w.made(), w.last().orders())
		}
	})
}

// Who asks is answered while a configuration is applied, however long it takes.
func TestStatusWaitsForNoReload(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		k.Apply(clients(conf("nms", "a")), &settings.Call{})
		synctest.Wait()
		w.hold = make(chan struct{})
		go k.Apply(clients(conf("nms", "b")), &settings.Call{})
		synctest.Wait() // in Kept
		k.Network()
		if s := status(t, k); s.Client != "nms" {
			t.Errorf("the client is %+v", s)
		}
		close(w.hold)
		if s := status(t, k); s.Endpoint != "b" {
			t.Errorf("the client is %+v", s)
		}
	})
}

func TestClientsAreShownInTheConfigurationsOrder(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		want := []string{"c", "a", "b"}
		k.Apply(clients(conf("c", "x"), conf("a", "x"), conf("b", "x")), &settings.Call{})
		var got []string
		for _, s := range k.Status() {
			got = append(got, s.Client)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

func TestTheConfigurationsEvents(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		k.Applied(3)
		k.Refused("line 1: x")
		if len(w.events) != 2 || w.events[0].Text != "3 clients" || w.events[1].Text != "line 1: x" || w.events[1].Event != proto.EventConfigRefused {
			t.Errorf("told %+v", w.events)
		}
	})
}

// Many ask, the network comes and goes, and configurations follow each other.
func TestManyAskWhileOneReloads(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 200 {
					k.Network()
					for _, s := range k.Status() {
						if s.Client == "" {
							t.Error("a client without a name")
						}
					}
				}
			})
		}
		for i := range 100 {
			k.Apply(clients(conf("nms", names(3)[i%3]), conf("other", "a")), &settings.Call{})
		}
		wg.Wait()
		synctest.Wait()
		if n := len(w.open()); n != 2 {
			t.Errorf("%d sessions of two clients", n)
		}
	})
}
