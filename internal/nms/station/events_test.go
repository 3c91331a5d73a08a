package station

import (
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
		const times = 200
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
		time.Sleep(stateLimit.Window)
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

// After the clock is set back, no event is held back for longer than a window.
func TestAClockSetBackHoldsNothingBack(t *testing.T) {
	l := stateLimit
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for range l.Burst {
		l.Allow(now)
	}
	now = now.Add(-365 * 24 * time.Hour)
	if _, ok := l.Allow(now); !ok {
		t.Errorf("an event is held back for %v", l.Wait(now))
	}
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
