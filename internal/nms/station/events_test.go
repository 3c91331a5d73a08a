package station

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/nmsproto"
)

// remembers counts the events of a device that a new subscriber gets, and returns
// the last one.
func (s *site) remembers(id string) (n int, last nmsproto.Event) {
	events, _, cancel := s.Subscribe()
	cancel()
	for _, e := range events {
		if e.Device == id {
			n++
			last = e
		}
	}
	return n, last
}

// The events of a device that connects and disconnects as fast as it can are
// rate-limited, and the last event has its present state.
func TestAFlappingDeviceIsRateLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, steady, flaps := newSite(t, nil), newStandIn(t), newStandIn(t)
		s.know("edge8", steady, "")
		s.know("edge7", flaps, "")
		s.call("192.0.2.1:1", steady.serve)
		s.await(nmsproto.EventUp)
		times := allowances[logins].limit.Burst - 1 // as often as it may
		for range times {
			c := s.call("192.0.2.2:1", flaps.serve)
			synctest.Wait()
			s.mustBeIn("edge7", nmsproto.Connected)
			c.Close()
			synctest.Wait()
			s.mustBeIn("edge7", nmsproto.Lost)
		}
		s.call("192.0.2.2:2", flaps.serve)
		synctest.Wait()
		if n, _ := s.remembers("edge7"); n != stateLimit.Burst {
			t.Errorf("%d events", n)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		n, last := s.remembers("edge7")
		if n != stateLimit.Burst+1 || last.Event != nmsproto.EventUp || last.Address != "192.0.2.2:2" || last.Unsaid != 2*times-stateLimit.Burst {
			t.Errorf("%d events, the last is %+v", n, last)
		}
		if n, _ := s.remembers("edge8"); n != 1 {
			t.Errorf("of the other one %d events are left", n)
		}
	})
}

func (s *site) mustBeIn(id string, state nmsproto.State) {
	s.t.Helper()
	if d, _ := s.Device(id); d.State != state {
		s.t.Fatalf("%s is %s, want %s", id, d.State, state)
	}
}

// The station publishes an event that is held back before it stops.
func TestTheLastEventIsPublishedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		s.know("edge7", d, "")
		for range stateLimit.Burst/2 + 1 {
			c := s.call("192.0.2.2:1", d.serve)
			synctest.Wait()
			c.Close()
			synctest.Wait()
		}
		s.stop()
		if n, last := s.remembers("edge7"); n != stateLimit.Burst+1 || last.Event != nmsproto.EventDown || last.Unsaid != 1 {
			t.Errorf("%d events, the last is %+v", n, last)
		}
	})
}

// Of 100 events of a device each is published, counted with a later one, or is the
// one that is held back; the last one published is the last that happened.
func TestEachStateEventIsPublishedOrCounted(t *testing.T) {
	const every = 30 * time.Second
	for _, tt := range []struct {
		name     string
		distance time.Duration
		want     int // published, with the last one
	}{{"now and then", every, 100}, {"at once", 0, 11}, {"twice as often", every / 2, 60}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				p := newPublisher(&mu, "", func(nmsproto.Event) {})
				changed, events := p.changed.Follow(), p.hub.Follow()
				for i := range 100 {
					mu.Lock()
					p.publish(nmsproto.Event{Event: nmsproto.EventUp, Device: "edge7", Address: strconv.Itoa(i)})
					mu.Unlock()
					time.Sleep(tt.distance)
					synctest.Wait()
				}
				time.Sleep(every)
				synctest.Wait()
				published, dropped, last := 0, 0, ""
				now, cancel := context.WithCancel(t.Context())
				cancel()
				for {
					e, _, ok := events.Next(now)
					if !ok {
						break
					}
					published++
					dropped += e.Unsaid
					if n, _ := strconv.Atoi(e.Address); last != "" && n <= mustAtoi(t, last) {
						t.Errorf("event %s is published after %s", e.Address, last)
					}
					last = e.Address
				}
				if published != tt.want || published+dropped != 100 || last != "99" {
					t.Errorf("%d published, want %d; %d counted; the last is %s", published, tt.want, dropped, last)
				}
				if n := changed.Skip(); n != 100 {
					t.Errorf("%d changes were passed on, want all", n)
				}
				mu.Lock()
				p.close()
				mu.Unlock()
			})
		})
	}
}

func mustAtoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Events of calls without a login do not push a device's events out of the backlog.
func TestFailedCallsPushNoEventOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		s.know("edge7", d, "")
		s.call("192.0.2.1:1", d.serve)
		s.await(nmsproto.EventUp)
		for range 20 {
			for range peerLimit.Burst {
				s.call("192.0.2.9:1", sends("x\r\n"+"SSH-1.0-x\r\n"))
			}
			time.Sleep(peerLimit.Window)
			synctest.Wait()
		}
		if n, _ := s.remembers("edge7"); n != 1 {
			t.Errorf("%d events of the device are left", n)
		}
	})
}
