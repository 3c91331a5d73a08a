package pubsub

import (
	"testing"
	"time"
)

func TestASubscriberMissesNothingBetweenWhatWasAndWhatComes(t *testing.T) {
	var h Hub[int]
	for n := range Remembered + 10 {
		h.Publish(n)
	}
	last, events, cancel := h.Subscribe()
	defer cancel()
	if len(last) != Remembered || last[0] != 10 || last[Remembered-1] != Remembered+9 {
		t.Errorf("%d remembered, from %v to %v", len(last), last[0], last[len(last)-1])
	}
	h.Publish(-1)
	if got := <-events; got != -1 {
		t.Errorf("got %v", got)
	}
}

// A subscriber that does not read loses its subscription, and Publish does not wait.
func TestASlowSubscriberIsLetGo(t *testing.T) {
	var h Hub[int]
	_, slow, cancelSlow := h.Subscribe()
	defer cancelSlow()
	_, quick, cancelQuick := h.Subscribe()
	defer cancelQuick()
	for n := range Backlog + 1 {
		h.Publish(n)
		if got := <-quick; got != n {
			t.Fatalf("the quick one got %v, expected %d", got, n)
		}
	}
	got := 0
	for range slow { // ends, as it was let go
		got++
	}
	if got != Backlog {
		t.Errorf("the slow one got %d events before its end", got)
	}
	h.Publish(-1)
	select {
	case e := <-quick:
		if e != -1 {
			t.Errorf("the quick one got %v", e)
		}
	case <-time.After(10 * time.Second):
		t.Error("the quick one was let go too")
	}
}

func TestACancelledSubscriberSeesTheEnd(t *testing.T) {
	var h Hub[int]
	_, events, cancel := h.Subscribe()
	cancel()
	cancel() // once more is no fault
	if _, open := <-events; open {
		t.Error("it is open")
	}
	h.Close()
	_, events, _ = h.Subscribe()
	if _, open := <-events; open {
		t.Error("a closed hub took a subscriber")
	}
}

// Negative numbers can be spared.
func sparing() *Hub[int] { return &Hub[int]{Spare: func(n int) bool { return n < 0 }} }

func TestWhatCanBeSparedCutsNobodyOff(t *testing.T) {
	h := sparing()
	_, slow, cancel := h.Subscribe()
	defer cancel()
	for range 10 * Backlog {
		h.Publish(-1)
	}
	for n := range spareBacklog {
		h.Publish(n)
	}
	h.Close()
	var spared, others int
	for n := range slow {
		switch {
		case n < 0:
			spared++
		case n != others:
			t.Fatalf("got %d, want %d", n, others)
		default:
			others++
		}
	}
	if spared != spareBacklog || others != spareBacklog {
		t.Errorf("got %d that can be spared and %d others, want %d of each", spared, others, spareBacklog)
	}
}

func TestWhatCanBeSparedPushesNothingOut(t *testing.T) {
	h := sparing()
	for n := range Remembered - spareRemembered {
		h.Publish(n)
	}
	for range 10 * Remembered {
		h.Publish(-1)
	}
	last, _, cancel := h.Subscribe()
	cancel()
	if len(last) != Remembered || last[0] != 0 || last[Remembered-spareRemembered-1] != Remembered-spareRemembered-1 {
		t.Errorf("%d remembered, from %v", len(last), last[:min(3, len(last))])
	}
	for n := range 10 * Remembered {
		h.Publish(n)
	}
	last, _, cancel = h.Subscribe()
	cancel()
	if len(last) != Remembered || last[0] != 9*Remembered || h.spares != 0 {
		t.Errorf("then %d remembered, from %v; %d of them can be spared", len(last), last[:min(3, len(last))], h.spares)
	}
}
