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
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		const n = 100
		var list []config.Client
		for _, name := range names(n) {
			list = append(list, conf(name, "a"))
		}
		cs.Apply(clients(list...), &settings.Call{})
		synctest.Wait()
		for _, c := range m.open() {
			c.serves()
		}
		for i := range 50 {
			before := m.open()
			list = slices.Clone(list)
			list[i] = conf(list[i].Name, "a", "b")
			list[i].Endpoints[0].Port++
			cs.Apply(clients(list...), &settings.Call{})
			m.last().serves()
			after := m.open()
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
		// A count of one shows that the client was not restarted.
		for i, s := range cs.Status() {
			want := uint64(1)
			if i < 50 { // changed, and connected again; its count continues
				want = 2
			}
			if s.State != proto.ClientServing || s.Connections != want || (i >= 50 && s.Client != list[i].Name) {
				t.Errorf("the client is %+v", s)
			}
		}
		time.Sleep(time.Hour)
		cs.Apply(clients(list...), &settings.Call{})
		if s := cs.Status()[99]; s.Since.After(time.Now().Add(-time.Hour)) {
			t.Errorf("the same document restarted the client: %+v", s)
		}
	})
}

func TestChangedSettingsOfTheDaemonKeepSessions(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		cs.Apply(clients(conf("nms", "a")), &settings.Call{})
		m.last().serves()
		cs.Apply(clients(conf("nms", "a")), &settings.Call{DeviceID: "edge7"})
		is(t, cs, proto.ClientServing)
		if m.made() != 1 || len(m.last().endCalls()) != 0 {
			t.Errorf("%d calls, calls of End %v", m.made(), m.last().endCalls())
		}
		time.Sleep(time.Hour)
		m.last().lost()
		if id := m.last().with.DeviceID; id != "edge7" {
			t.Errorf("the next call is made with %q", id)
		}
	})
}

func TestASessionWithoutAClientIsEnded(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		cs.Apply(clients(conf("nms", "a"), conf("other", "a")), &settings.Call{})
		synctest.Wait()
		for _, c := range m.open() {
			c.serves()
		}
		cs.Apply(clients(conf("other", "a")), &settings.Call{})
		synctest.Wait()
		if left := m.open(); len(left) != 1 || left[0].owner.Client != "other" {
			t.Errorf("left %v", left)
		}
	})
}

// The old session of a changed endpoint ends before the next call home is made,
// however long that takes and however many reloads come meanwhile.
func TestAClientNeverHasTwoSessions(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		cs.Apply(clients(conf("nms", "a")), &settings.Call{})
		first := m.last()
		first.stubborn = true
		first.serves()
		for _, endpoint := range []string{"b", "c", "d"} {
			cs.Apply(clients(conf("nms", endpoint)), &settings.Call{})
			time.Sleep(time.Minute)
			if n := m.made(); n != 1 {
				t.Fatalf("%d calls while the first session is there", n)
			}
		}
		first.ends(proto.StageSession, proto.EndKilled, "")
		if e := m.last().owner.Endpoint; e != "d" || m.made() != 2 {
			t.Errorf("%d calls, the last one to %s", m.made(), e)
		}
	})
}

func TestSessionsOfAFormerRunGoOn(t *testing.T) {
	for state, want := range map[proto.State]proto.ClientState{
		proto.StateServing: proto.ClientServing, proto.StateAuthenticated: proto.ClientAuthenticated, proto.StateKeyExchange: proto.ClientHandedOver,
	} {
		t.Run(string(state), func(t *testing.T) {
			play(t, Options{}, func(m *fakeManager, cs *Clients) {
				c := conf("nms", "a", "b")
				first := m.found(c.Endpoints[1], state)
				second := m.found(c.Endpoints[1], state)
				gone := m.found(config.Endpoint{Client: "nms", Name: "z"}, state)
				cs.Apply(clients(c), &settings.Call{})
				is(t, cs, want)
				if s := status(t, cs); s.Endpoint != "b" || s.Session != first.info.Session || m.made() != 3 {
					t.Errorf("%d calls, and the client is %+v", m.made(), s)
				}
				if len(first.endCalls()) != 0 || len(second.endCalls()) != 1 || len(gone.endCalls()) != 1 {
					t.Errorf("the calls of End were %v, %v, %v", first.endCalls(), second.endCalls(), gone.endCalls())
				}
				time.Sleep(time.Hour)
				first.lost()
				// Without a login the end of an attempt is followed by a pause.
				time.Sleep(10 * time.Minute)
				if m.made() != 4 {
					t.Errorf("%d calls after its end", m.made())
				}
			})
		})
	}
}

func TestSessionsOutliveClose(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		cs.Apply(clients(conf("nms", "a")), &settings.Call{})
		m.last().serves()
		cs.Close()
		cs.Close() // a second call has no effect
		cs.Network()
		cs.Apply(clients(conf("another", "a")), &settings.Call{})
		if m.made() != 1 || len(m.last().endCalls()) != 0 {
			t.Errorf("%d calls, calls of End %v", m.made(), m.last().endCalls())
		}
	})
}

// Status returns while a configuration is applied, however long that takes.
func TestStatusWaitsForNoReload(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		cs.Apply(clients(conf("nms", "a")), &settings.Call{})
		synctest.Wait()
		m.hold = make(chan struct{})
		go cs.Apply(clients(conf("nms", "b")), &settings.Call{})
		synctest.Wait() // in Kept
		cs.Network()
		if s := status(t, cs); s.Client != "nms" {
			t.Errorf("the client is %+v", s)
		}
		close(m.hold)
		if s := status(t, cs); s.Endpoint != "b" {
			t.Errorf("the client is %+v", s)
		}
	})
}

func TestClientsAreShownInTheConfigurationsOrder(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		want := []string{"c", "a", "b"}
		cs.Apply(clients(conf("c", "x"), conf("a", "x"), conf("b", "x")), &settings.Call{})
		var got []string
		for _, s := range cs.Status() {
			got = append(got, s.Client)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

func TestTheConfigurationsEvents(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		cs.Applied(3, nil)
		cs.Refused("line 1: x")
		cs.Applied(1, []string{"line 2: /a: b", "line 3: /c: d"})
		if len(m.events) != 3 || m.events[0].Text != "clients: 3" || m.events[1].Text != "line 1: x" || m.events[1].Event != proto.EventConfigRefused ||
			m.events[2].Text != "clients: 1; left aside: line 2: /a: b; line 3: /c: d" {
			t.Errorf("published %+v", m.events)
		}
	})
}

// Status, network changes and reloads run concurrently.
func TestStatusDuringReloads(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 200 {
					cs.Network()
					for _, s := range cs.Status() {
						if s.Client == "" {
							t.Error("a client without a name")
						}
					}
				}
			})
		}
		for i := range 100 {
			cs.Apply(clients(conf("nms", names(3)[i%3]), conf("other", "a")), &settings.Call{})
		}
		wg.Wait()
		synctest.Wait()
		if n := len(m.open()); n != 2 {
			t.Errorf("%d sessions of two clients", n)
		}
	})
}
