package pubsub

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
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

// now is a context that has ended: Next waits for nothing.
var now = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// rest returns what a subscriber gets now, and where events are missing: before which.
func rest(s *Subscription[int]) (got, gaps []int) {
	for {
		e, missed, ok := s.Next(now)
		if !ok {
			return got, gaps
		}
		if missed {
			gaps = append(gaps, e)
		}
		got = append(got, e)
	}
}

// Publish waits for no subscriber, and one that is too far behind learns it.
func TestASlowSubscriberLearnsOfTheGap(t *testing.T) {
	var h Hub[int]
	slow, quick := h.Follow(), h.Follow()
	defer slow.Close()
	defer quick.Close()
	const n = 3 * Backlog
	for i := range n {
		h.Publish(i)
		if got, missed, ok := quick.Next(now); !ok || missed || got != i {
			t.Fatalf("the quick one got %v, %v, %v, expected %d", got, missed, ok, i)
		}
	}
	got, gaps := rest(slow)
	if len(got) != Backlog || got[0] != n-Backlog || !slices.Equal(gaps, []int{n - Backlog}) {
		t.Errorf("the slow one got %d events from %d, gaps before %v", len(got), got[0], gaps)
	}
	h.Publish(-1)
	if got, gaps := rest(slow); !slices.Equal(got, []int{-1}) || gaps != nil {
		t.Errorf("then it got %v, gaps before %v", got, gaps)
	}
}

func TestTheBacklogGrows(t *testing.T) {
	limit := 10
	h := Hub[int]{Backlog: func() int { return limit }}
	s := h.Follow()
	defer s.Close()
	for i := range 100 {
		h.Publish(i)
	}
	if got, gaps := rest(s); len(got) != 10 || !slices.Equal(gaps, []int{90}) {
		t.Errorf("got %v, gaps before %v", got, gaps)
	}
	limit = 5000
	for i := range 5000 {
		h.Publish(i)
	}
	if got, gaps := rest(s); len(got) != 5000 || gaps != nil {
		t.Errorf("got %d events, gaps before %v", len(got), gaps)
	}
	limit = 10
	h.Publish(1)
	if len(h.kept.items) != 10 {
		t.Errorf("%d are kept", len(h.kept.items))
	}
}

func TestASubscriberCatchesUpByNumber(t *testing.T) {
	h := Hub[int]{Backlog: func() int { return 10 }, Spare: func(n int) bool { return n < 0 }}
	for i := 1; i <= 20; i++ {
		h.Publish(i)
	}
	for _, tt := range []struct {
		after uint64
		ok    bool
		first int
	}{{20, true, 0}, {15, true, 16}, {10, true, 11}, {9, false, 11}, {0, false, 11}, {21, false, 0}} {
		s, ok := h.FollowAfter(tt.after)
		got, _ := rest(s)
		if ok != tt.ok || tt.first == 0 && len(got) > 0 || tt.first > 0 && (len(got) == 0 || got[0] != tt.first || got[len(got)-1] != 20) {
			t.Errorf("after %d: %v, %v", tt.after, got, ok)
		}
		s.Close()
	}
	s, _ := h.FollowAfter(12)
	if n := s.Skip(); n != 8 {
		t.Errorf("passed over %d events, want 8", n)
	}
	if got, _ := rest(s); got != nil {
		t.Errorf("then it got %v", got)
	}
	s.Close()
	if len(h.subs) != 0 {
		t.Errorf("%d subscriptions are left", len(h.subs))
	}
}

func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Hub[int]
		s := h.Follow()
		got := make(chan int)
		go func() {
			defer close(got)
			for {
				e, _, ok := s.Next(t.Context())
				if !ok {
					return
				}
				got <- e
			}
		}()
		synctest.Wait()
		h.Publish(1)
		h.Publish(2)
		h.Close() // what was published before is passed on
		for want := 1; want <= 2; want++ {
			if e := <-got; e != want {
				t.Errorf("got %d, want %d", e, want)
			}
		}
		if _, open := <-got; open {
			t.Error("it goes on after the end")
		}
	})
}

func TestACancelledSubscriberSeesTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Hub[int]
		_, events, cancel := h.Subscribe()
		for n := range 100 {
			h.Publish(n)
		}
		synctest.Wait()
		cancel()
		cancel() // once more is no fault
		for range events {
		}
		synctest.Wait()
		if len(h.subs) != 0 {
			t.Error("it has a subscription")
		}
		h.Close()
		_, events, _ = h.Subscribe()
		if _, open := <-events; open {
			t.Error("a closed hub took a subscriber")
		}
	})
}

// The channel of a subscriber that is too slow is closed in place of the gap.
func TestAChannelHasNoGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := Hub[int]{Backlog: func() int { return 100 }}
		_, events, cancel := h.Subscribe()
		defer cancel()
		for n := range 1000 {
			h.Publish(n)
		}
		next := 0
		for n := range events {
			if n != next {
				t.Fatalf("got %d, want %d", n, next)
			}
			next++
		}
		if next == 1000 {
			t.Error("nothing was missing")
		}
	})
}

// Negative numbers can be spared.
func sparing() *Hub[int] { return &Hub[int]{Spare: func(n int) bool { return n < 0 }} }

func TestWhatCanBeSparedCutsNobodyOff(t *testing.T) {
	h := sparing()
	slow := h.Follow()
	defer slow.Close()
	for n := range Backlog {
		for range 10 {
			h.Publish(-1)
		}
		h.Publish(n)
	}
	var spared, others int
	got, gaps := rest(slow)
	for _, n := range got {
		switch {
		case n < 0:
			spared++
		case n != others:
			t.Fatalf("got %d, want %d", n, others)
		default:
			others++
		}
	}
	if spared != Backlog/sparePart || others != Backlog || gaps != nil {
		t.Errorf("got %d that can be spared and %d others, gaps before %v", spared, others, gaps)
	}
}

func TestWhatCanBeSparedPushesNothingOut(t *testing.T) {
	const spare = Remembered / sparePart
	h := sparing()
	for n := range Remembered - spare {
		h.Publish(n)
	}
	for range 10 * Remembered {
		h.Publish(-1)
	}
	last, _ := h.Latest()
	if len(last) != Remembered || last[0] != 0 || last[Remembered-spare-1] != Remembered-spare-1 {
		t.Errorf("%d remembered, from %v", len(last), last[:min(3, len(last))])
	}
	for n := range 10 * Remembered {
		h.Publish(n)
	}
	if last, _ = h.Latest(); len(last) != Remembered || last[len(last)-1] != 10*Remembered-1 {
		t.Errorf("then %d remembered, up to %v", len(last), last[len(last)-1])
	}
}
