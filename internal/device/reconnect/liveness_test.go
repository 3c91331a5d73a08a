package reconnect

import (
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/settings"
	"callhome/internal/proto"
)

// check is one check of a session: its time, and the kernel's counts.
type check struct {
	at       time.Duration
	received time.Duration // ago
	bytes    uint64
}

func TestLivenessEndsDeadAndIdleSessions(t *testing.T) {
	alive := config.Endpoint{SSH: &config.KeepAlive{Interval: 10 * time.Second, Count: 2}}
	hourly := conf("nms", "a")
	hourly.Periodic = &config.Periodic{Period: time.Hour, IdleTimeout: 2 * time.Minute}
	const s = time.Second
	for name, tt := range map[string]struct {
		client config.Client
		e      config.Endpoint
		checks []check
		end    proto.End
		next   time.Duration // after the last check
	}{
		"nothing to look for":       {conf("nms", "a"), config.Endpoint{}, []check{{0, time.Hour, 0}}, "", 24 * time.Hour},
		"it answers":                {conf("nms", "a"), alive, []check{{0, s, 0}}, "", 29*s + grace},
		"silent, not long enough":   {conf("nms", "a"), alive, []check{{0, 30 * s, 0}}, "", grace},
		"silent for as long as may": {conf("nms", "a"), alive, []check{{0, 30*s + grace, 0}}, proto.EndSilent, 0},
		"just logged in":            {hourly, alive, []check{{0, 0, 1000}}, "", 10 * s},
		"idle but for keepalives":   {hourly, alive, []check{{0, 0, 1000}, {60 * s, s, 1200}, {120*s - 1, s, 1400}}, "", 10 * s},
		"idle for its time":         {hourly, alive, []check{{0, 0, 1000}, {60 * s, s, 1200}, {120 * s, s, 1400}}, proto.EndIdle, 0},
		"data in between":           {hourly, alive, []check{{0, 0, 1000}, {60 * s, s, 1300}, {120 * s, s, 1400}}, "", 10 * s},
		"and idle after that":       {hourly, alive, []check{{0, 0, 1000}, {60 * s, s, 1300}, {120 * s, s, 1400}, {180 * s, s, 1500}}, proto.EndIdle, 0},
		"dead before it is idle":    {hourly, alive, []check{{0, 0, 1000}, {120 * s, time.Minute, 1000}}, proto.EndSilent, 0},
		"sshd knows an idle time":   {hourly, config.Endpoint{Idle: &config.Idle{}}, []check{{0, 0, 0}, {time.Hour, time.Hour, 0}}, "", 24 * time.Hour},
	} {
		l := livenessOf(&tt.client, &tt.e)
		begun := time.Now()
		var end proto.End
		var next time.Duration
		for i, at := range tt.checks {
			if i > 0 && end != "" {
				t.Errorf("%s: ended at check %d as %s", name, i, end)
			}
			end, next = l.check(&proto.Stats{LastReceived: at.received, BytesReceived: at.bytes}, begun.Add(at.at))
		}
		if end != tt.end || next != tt.next {
			t.Errorf("%s: end %q, next check after %v", name, end, next)
		}
	}
}

// vanishes makes the peer silent.
func (c *call) vanishes() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard, c.silent = time.Now(), true
}

func TestAPeerThatVanishesIsNoticedInTime(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		c := conf("nms", "a")
		c.Endpoints[0].SSH = &config.KeepAlive{Interval: 10 * time.Second, Count: 2}
		cs.Apply(clients(c), &settings.Call{})
		first := m.last()
		first.heard = time.Now()
		first.serves()
		time.Sleep(time.Hour + 12345*time.Microsecond)
		if got := first.endCalls(); len(got) != 0 {
			t.Fatalf("End was called with %v while it was there", got)
		}
		vanished := time.Now()
		first.vanishes()
		<-first.Done()
		if took := time.Since(vanished); took < 30*time.Second || took > 31*time.Second {
			t.Errorf("noticed after %v", took)
		}
		if got := first.endCalls(); len(got) != 1 || got[0] != proto.EndSilent {
			t.Errorf("End was called with %v", got)
		}
	})
}

// The liveness of a found session is checked too, until Close.
func TestFoundSessionsAreCheckedUntilClose(t *testing.T) {
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		c := conf("nms", "a")
		c.Endpoints[0].SSH = &config.KeepAlive{Interval: 10 * time.Second, Count: 2}
		first := m.found(c.Endpoints[0], proto.StateServing)
		first.heard = time.Now()
		cs.Apply(clients(c), &settings.Call{})
		synctest.Wait()
		cs.Close()
		first.vanishes()
		time.Sleep(time.Minute)
		if got := first.endCalls(); len(got) != 0 {
			t.Errorf("End was called with %v", got)
		}
	})
	play(t, Options{}, func(m *fakeManager, cs *Clients) {
		c := conf("nms", "a")
		c.Endpoints[0].SSH = &config.KeepAlive{Interval: 10 * time.Second, Count: 2}
		first := m.found(c.Endpoints[0], proto.StateServing)
		first.heard = time.Now()
		cs.Apply(clients(c), &settings.Call{})
		first.vanishes()
		time.Sleep(time.Minute)
		if got := first.endCalls(); len(got) != 1 {
			t.Errorf("End was called with %v", got)
		}
	})
}
