package station

import (
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/nmsproto"
)

// remembers counts what somebody who subscribes now is told of a device, and
// returns the last of it.
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

// A device that comes and goes as fast as it can is told of in measure, and in
// the end as it stands.
func TestAFlappingDeviceDrownsNobody(t *testing.T) {
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
		if n, _ := s.remembers("edge7"); n != comingMost {
			t.Errorf("told %d times", n)
		}
		time.Sleep(comingEvery)
		synctest.Wait()
		n, last := s.remembers("edge7")
		if n != comingMost+1 || last.Event != nmsproto.EventUp || last.Address != "192.0.2.2:2" || last.Unsaid != 2*times-comingMost {
			t.Errorf("told %d times, at last %+v", n, last)
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

// What waits for its turn when the station stops is told before the end.
func TestTheLastGoingIsToldAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		s.know("edge7", d, "")
		for range comingMost/2 + 1 {
			c := s.call("192.0.2.2:1", d.serve)
			synctest.Wait()
			c.Close()
			synctest.Wait()
		}
		s.stop()
		if n, last := s.remembers("edge7"); n != comingMost+1 || last.Event != nmsproto.EventDown || last.Unsaid != 1 {
			t.Errorf("told %d times, at last %+v", n, last)
		}
	})
}

func TestComings(t *testing.T) {
	for _, tt := range []struct {
		name  string
		every time.Duration
		told  int // of 100
	}{
		{"now and then", comingEvery, 100},
		{"as fast as it can", 0, comingMost},
		{"a little too often", comingEvery / 2, 100/2 + comingMost - 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c coming
			now, told, unsaid := time.Now(), 0, 0
			for range 100 {
				e, wait := c.tell(nmsproto.Event{Event: nmsproto.EventUp}, now)
				if e != nil {
					told++
					unsaid += e.Unsaid
				} else if wait <= 0 || wait > comingEvery {
					t.Fatalf("its turn is in %v", wait)
				}
				now = now.Add(tt.every)
			}
			if told != tt.told || told+unsaid+c.unsaid+waiting(&c) != 100 {
				t.Errorf("told %d, want %d; unsaid %d and %d", told, tt.told, unsaid, c.unsaid)
			}
		})
	}
	t.Run("the clock is set back", func(t *testing.T) {
		var c coming
		now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
		for range comingMost {
			c.tell(nmsproto.Event{}, now)
		}
		now = now.Add(-365 * 24 * time.Hour)
		if e, wait := c.tell(nmsproto.Event{}, now); e != nil || wait > comingEvery {
			t.Errorf("got %v, %v", e, wait)
		}
		if e, _ := c.tell(nmsproto.Event{}, now.Add(comingEvery)); e == nil {
			t.Error("it is silent")
		}
	})
}

func waiting(c *coming) int {
	if c.takeLast() == nil {
		return 0
	}
	return 1
}

// Calls that come to nothing do not make a device's coming forgotten.
func TestAnybodysCallsPushNothingOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSite(t, nil), newStandIn(t)
		s.know("edge7", d, "")
		s.call("192.0.2.1:1", d.serve)
		s.await(nmsproto.EventUp)
		for range 20 {
			for range quietMost {
				s.call("192.0.2.9:1", says("x\r\n"+"SSH-1.0-x\r\n"))
			}
			time.Sleep(quietWindow)
			synctest.Wait()
		}
		if n, _ := s.remembers("edge7"); n != 1 {
			t.Errorf("%d events of the device are left", n)
		}
	})
}
