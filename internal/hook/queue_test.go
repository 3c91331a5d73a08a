package hook

import (
	"testing"
	"time"

	"callhome/internal/proto"
)

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
			if got := q.offer(Event{Name: proto.EventConnected, Value: n}); got != want {
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
	if got := q.clear(); got != 1 {
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

func TestDrops(t *testing.T) {
	var d drops
	begun := time.Now()
	for _, tt := range []struct {
		after time.Duration
		want  int
	}{
		{0, 1}, // the first one is told at once
		{time.Second, 0},
		{dropsEvery - 1, 0},
		{dropsEvery, 3},
		{dropsEvery + 1, 0},
		{5 * dropsEvery, 2},
	} {
		if got := d.add(begun.Add(tt.after)); got != tt.want {
			t.Errorf("after %s: got %d, want %d", tt.after, got, tt.want)
		}
	}
	d.add(begun.Add(5*dropsEvery + 1))
	if got := d.rest(); got != 1 {
		t.Errorf("the rest is %d, want 1", got)
	}
	if got := d.rest(); got != 0 {
		t.Errorf("the rest is told twice: %d", got)
	}
}
