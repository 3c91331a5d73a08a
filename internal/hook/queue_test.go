package hook

import (
	"testing"

	"callhome/internal/proto"
)

// wanted are the events that the hooks of the tests run on.
var wanted = []string{proto.EventConnected, proto.EventAuthenticated, proto.EventFailed, proto.EventClosed}

// eventOf is an event as callhome-mgr hands it to its hook.
func eventOf(e proto.Event) Event {
	return Event{Name: e.Event, About: []any{"session", e.Session.Session}, Value: e}
}

func numberedEvent(n int) Event { return eventOf(numbered(n)) }

func numbered(n int) proto.Event {
	return proto.Event{Event: proto.EventConnected, Session: proto.SessionInfo{Session: n}}
}

func TestQueue(t *testing.T) {
	var q queue
	n := 0
	offer := func(times int, want verdict) {
		t.Helper()
		for range times {
			n++
			if got := q.offer(Event{Name: proto.EventConnected, Value: n}, maxWaiting); got != want {
				t.Fatalf("event %d: got %s, want %s", n, got, want)
			}
		}
	}
	offer(maxRunning, start)
	offer(maxWaiting, wait)
	offer(3, drop)
	for i := range maxWaiting {
		e, more := q.next()
		if want := maxRunning + 1 + i; !more || e.Value != want {
			t.Fatalf("got event %v, %v, want the oldest, %d", e.Value, more, want)
		}
	}
	if _, more := q.next(); more {
		t.Fatal("there is more than was offered")
	}
	offer(1, start)
	offer(1, wait)
	if got := q.drain(); got != 1 {
		t.Errorf("cleared %d, want 1", got)
	}
	for range maxRunning {
		if _, more := q.next(); more {
			t.Fatal("there is something after clear")
		}
	}
	if q.running != 0 {
		t.Errorf("%d run when all have ended", q.running)
	}
}
