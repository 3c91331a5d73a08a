package reconnect

import (
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/settings"
	"callhome/internal/proto"
)

// look is one look at a session: when, and what the kernel says then.
type look struct {
	at       time.Duration
	received time.Duration // ago
	bytes    uint64
}

func TestWhenASessionIsEnded(t *testing.T) {
	alive := config.Endpoint{SSH: &config.KeepAlive{Interval: 10 * time.Second, Count: 2}}
	hourly := conf("nms", "a")
	hourly.Periodic = &config.Periodic{Period: time.Hour, IdleTimeout: 2 * time.Minute}
	const s = time.Second
	for name, tt := range map[string]struct {
		client config.Client
		e      config.Endpoint
		looks  []look
		end    proto.End
		next   time.Duration // after the last look
	}{
		"nothing to look for":       {conf("nms", "a"), config.Endpoint{}, []look{{0, time.Hour, 0}}, "", 24 * time.Hour},
		"it answers":                {conf("nms", "a"), alive, []look{{0, s, 0}}, "", 29*s + late},
		"silent, not long enough":   {conf("nms", "a"), alive, []look{{0, 30 * s, 0}}, "", late},
		"silent for as long as may": {conf("nms", "a"), alive, []look{{0, 30*s + late, 0}}, proto.EndSilent, 0},
		"just logged in":            {hourly, alive, []look{{0, 0, 1000}}, "", 10 * s},
		"idle but for keepalives":   {hourly, alive, []look{{0, 0, 1000}, {60 * s, s, 1200}, {120*s - 1, s, 1400}}, "", 10 * s},
		"idle for its time":         {hourly, alive, []look{{0, 0, 1000}, {60 * s, s, 1200}, {120 * s, s, 1400}}, proto.EndIdle, 0},
		"data in between":           {hourly, alive, []look{{0, 0, 1000}, {60 * s, s, 1300}, {120 * s, s, 1400}}, "", 10 * s},
		"and idle after that":       {hourly, alive, []look{{0, 0, 1000}, {60 * s, s, 1300}, {120 * s, s, 1400}, {180 * s, s, 1500}}, proto.EndIdle, 0},
		"dead before it is idle":    {hourly, alive, []look{{0, 0, 1000}, {120 * s, time.Minute, 1000}}, proto.EndSilent, 0},
		"sshd knows an idle time":   {hourly, config.Endpoint{Idle: &config.Idle{}}, []look{{0, 0, 0}, {time.Hour, time.Hour, 0}}, "", 24 * time.Hour},
	} {
		w := watchOf(&tt.client, &tt.e)
		begun := time.Now()
		var end proto.End
		var next time.Duration
		for i, l := range tt.looks {
			if i > 0 && end != "" {
				t.Errorf("%s: ended at look %d as %s", name, i, end)
			}
			end, next = w.look(&proto.Stats{LastReceived: l.received, BytesReceived: l.bytes}, begun.Add(l.at))
		}
		if end != tt.end || next != tt.next {
			t.Errorf("%s: end %q, next look after %v", name, end, next)
		}
	}
}

// vanishes lets nothing come any more.
func (c *call) vanishes() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard, c.silent = time.Now(), true
}

func TestAPeerThatVanishesIsNoticedInTime(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		c := conf("nms", "a")
		c.Endpoints[0].SSH = &config.KeepAlive{Interval: 10 * time.Second, Count: 2}
		k.Apply(clients(c), &settings.Call{})
		first := w.last()
		first.heard = time.Now()
		first.serves()
		time.Sleep(time.Hour + 12345*time.Microsecond)
		if got := first.orders(); len(got) != 0 {
			t.Fatalf("it was told %v while it was there", got)
		}
		vanished := time.Now()
		first.vanishes()
		<-first.Done()
		if took := time.Since(vanished); took < 30*time.Second || took > 31*time.Second {
			t.Errorf("noticed after %v", took)
		}
		if got := first.orders(); len(got) != 1 || got[0] != proto.EndSilent {
			t.Errorf("it was told %v", got)
		}
	})
}

// A session of a former run is guarded too, and nobody guards it when the
// client is not kept any more.
func TestWhoIsGuarded(t *testing.T) {
	play(t, Options{}, func(w *world, k *Keeper) {
		c := conf("nms", "a")
		c.Endpoints[0].SSH = &config.KeepAlive{Interval: 10 * time.Second, Count: 2}
		first := w.found(c.Endpoints[0], proto.StateServing)
		first.heard = time.Now()
		k.Apply(clients(c), &settings.Call{})
		synctest.Wait()
		k.Close()
		first.vanishes()
		time.Sleep(time.Minute)
		if got := first.orders(); len(got) != 0 {
			t.Errorf("it was told %v", got)
		}
	})
	play(t, Options{}, func(w *world, k *Keeper) {
		c := conf("nms", "a")
		c.Endpoints[0].SSH = &config.KeepAlive{Interval: 10 * time.Second, Count: 2}
		first := w.found(c.Endpoints[0], proto.StateServing)
		first.heard = time.Now()
		k.Apply(clients(c), &settings.Call{})
		first.vanishes()
		time.Sleep(time.Minute)
		if got := first.orders(); len(got) != 1 {
			t.Errorf("it was told %v", got)
		}
	})
}
