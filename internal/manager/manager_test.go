package manager

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"callhome/internal/proto"
	"callhome/internal/settings"
)

func newManager(t *testing.T) *Manager {
	t.Helper()
	s, _, err := settings.Load(nil, nil, func(name string) (string, bool) {
		return "/dev/null", name == settings.DefaultsEnv
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := New("1", t.TempDir(), &Config{Settings: s})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	return m
}

// What is wrong in a call costs nothing: no session, no number.
func TestAWrongCallIsRefusedAndCostsNothing(t *testing.T) {
	m := newManager(t)
	for name, p := range map[string]proto.CallParams{
		"no host":             {},
		"an option":           {Host: "-oProxyCommand=x"},
		"a line of its own":   {Host: "nms\nnms"},
		"a word too long":     {Host: "nms", Opaque: strings.Repeat("x", proto.MaxOpaque+1)},
		"a NUL":               {Host: "nms", Opaque: "a\x00b"},
		"not UTF-8, decoded":  {Host: "nms", Opaque: "a\ufffdb"},
		"not UTF-8":           {Host: "nms", Opaque: "a\xffb"},
		"a wait that is none": {Host: "nms", Wait: "tomorrow"},
	} {
		_, err := m.Call(t.Context(), p)
		var e *proto.Error
		if !errors.As(err, &e) || e.Code != proto.CodeBadType {
			t.Errorf("%s: %v", name, err)
		}
	}
	if st := m.Status(); st.Calls != 0 || st.Sessions != 0 || len(st.Recent) != 0 {
		t.Errorf("the manager is %+v", st)
	}
}

// The limit counts those that have no number yet, so that no crowd of callers
// gets past it.
func TestTheLimitHoldsForACrowd(t *testing.T) {
	m := newManager(t)
	var admitted atomic.Int32
	var wg sync.WaitGroup
	for range 2 * maxCalls {
		wg.Go(func() {
			if m.admit() == nil {
				admitted.Add(1)
			}
		})
	}
	wg.Wait()
	if n := admitted.Load(); n != maxCalls {
		t.Errorf("%d sessions were admitted, the limit is %d", n, maxCalls)
	}
	m.abandon()
	if err := m.admit(); err != nil {
		t.Errorf("there was room again: %v", err)
	}
}

func TestAStoppingManagerTakesNoCalls(t *testing.T) {
	m := newManager(t)
	m.Stop()
	_, err := m.Call(t.Context(), proto.CallParams{Host: "192.0.2.1"})
	var e *proto.Error
	if !errors.As(err, &e) || e.Code != proto.CodeShutdown {
		t.Errorf("got %v", err)
	}
}

func TestEachWaitHasItsState(t *testing.T) {
	for _, w := range []proto.Wait{"", proto.WaitNone, proto.WaitTCP, proto.WaitSSH, proto.WaitNetconf} {
		if waits[w] == "" {
			t.Errorf("wait %q waits for nothing", w)
		}
	}
}

func event(n int) proto.Event { return proto.Event{Event: fmt.Sprint(n)} }

func TestASubscriberMissesNothingBetweenWhatWasAndWhatComes(t *testing.T) {
	var h hub
	for n := range remembered + 10 {
		h.publish(event(n))
	}
	last, events, cancel := h.subscribe()
	defer cancel()
	if len(last) != remembered || last[0] != event(10) || last[remembered-1] != event(remembered+9) {
		t.Errorf("%d remembered, from %v to %v", len(last), last[0], last[len(last)-1])
	}
	h.publish(event(-1))
	if got := <-events; got != event(-1) {
		t.Errorf("got %v", got)
	}
}

// One that does not listen is let go, and nobody waits for it.
func TestASlowSubscriberIsLetGo(t *testing.T) {
	var h hub
	_, slow, cancelSlow := h.subscribe()
	defer cancelSlow()
	_, quick, cancelQuick := h.subscribe()
	defer cancelQuick()
	for n := range backlog + 1 {
		h.publish(event(n))
		if got := <-quick; got != event(n) {
			t.Fatalf("the quick one got %v, expected %d", got, n)
		}
	}
	got := 0
	for range slow { // ends, as it was let go
		got++
	}
	if got != backlog {
		t.Errorf("the slow one got %d events before its end", got)
	}
	h.publish(event(-1))
	select {
	case e := <-quick:
		if e != event(-1) {
			t.Errorf("the quick one got %v", e)
		}
	case <-time.After(10 * time.Second):
		t.Error("the quick one was let go too")
	}
}

func TestACancelledSubscriberSeesTheEnd(t *testing.T) {
	var h hub
	_, events, cancel := h.subscribe()
	cancel()
	cancel() // once more is no fault
	if _, open := <-events; open {
		t.Error("it is open")
	}
	h.close()
	_, events, _ = h.subscribe()
	if _, open := <-events; open {
		t.Error("a closed hub took a subscriber")
	}
}
