package ratelimit

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestOnePassesInAWindowAndTheRestIsCounted(t *testing.T) {
	l := Limit{Burst: 1, Window: Every}
	begun := time.Now()
	for _, tt := range []struct {
		after   time.Duration
		dropped int
		ok      bool
	}{
		{0, 0, true}, // the first one passes at once
		{time.Second, 0, false},
		{Every - 1, 0, false},
		{Every, 2, true},
		{Every + 1, 0, false},
		{5 * Every, 1, true},
	} {
		if dropped, ok := l.Allow(begun.Add(tt.after)); dropped != tt.dropped || ok != tt.ok {
			t.Errorf("after %s: got %d, %v, want %d, %v", tt.after, dropped, ok, tt.dropped, tt.ok)
		}
	}
	l.Allow(begun.Add(5*Every + 1))
	if got := l.Rest(); got != 1 {
		t.Errorf("the rest is %d, want 1", got)
	}
	if got := l.Rest(); got != 0 {
		t.Errorf("the rest is counted twice: %d", got)
	}
}

// After a burst, events pass at equal distances, and none is counted twice.
func TestAfterABurstEventsPassAtEqualDistances(t *testing.T) {
	const every = 30 * time.Second
	for _, tt := range []struct {
		name     string
		distance time.Duration
		want     int // of 100
	}{
		{"now and then", every, 100},
		{"at once", 0, 10},
		{"twice as often", every / 2, 100/2 + 10 - 1},
	} {
		l := Limit{Burst: 10, Window: 10 * every}
		now, passed, dropped := time.Now(), 0, 0
		for range 100 {
			if n, ok := l.Allow(now); ok {
				passed++
				dropped += n
			} else if wait := l.Wait(now); wait <= 0 || wait > every {
				t.Fatalf("%s: the next one passes in %v", tt.name, wait)
			}
			now = now.Add(tt.distance)
		}
		if rest := l.Rest(); passed != tt.want || passed+dropped+rest != 100 {
			t.Errorf("%s: %d passed, want %d; %d dropped before one, %d after", tt.name, passed, tt.want, dropped, rest)
		}
	}
}

func TestTheZeroLimitPassesOneEveryMinute(t *testing.T) {
	var l Limit
	now, passed := time.Now(), 0
	for range 600 {
		if _, ok := l.Allow(now); ok {
			passed++
		}
		now = now.Add(time.Second)
	}
	if passed != 10 {
		t.Errorf("%d passed in ten minutes", passed)
	}
}

func TestABurstPasses(t *testing.T) {
	l := Limit{Burst: 20, Window: 10 * time.Second}
	now, passed := time.Now(), 0
	for range 100 {
		if _, ok := l.Allow(now); ok {
			passed++
		}
	}
	if passed != 20 {
		t.Errorf("%d passed", passed)
	}
	for _, want := range []int{80, 0} {
		if dropped, ok := l.Allow(now.Add(10 * time.Second)); dropped != want || !ok {
			t.Errorf("then %d dropped, %v, want %d", dropped, ok, want)
		}
	}
}

func TestAClockSetBackSilencesNothing(t *testing.T) {
	l := Limit{Burst: 20, Window: 10 * time.Second}
	// Without a monotonic reading, as after the way through a file.
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 20 {
		l.Allow(now)
	}
	now = now.Add(-365 * 24 * time.Hour)
	if wait := l.Wait(now); wait > 500*time.Millisecond {
		t.Errorf("the next one passes in %v", wait)
	}
	for range 1000 {
		now = now.Add(time.Minute)
		if _, ok := l.Allow(now); !ok {
			t.Fatalf("dropped at %v", now)
		}
	}
}

func TestWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := NewWarnings(hclog.New(&hclog.LoggerOptions{Output: &log, DisableTime: true}))
		for n := range 1000 {
			w.Warn("refused", "n", n)
		}
		w.Warn("another")
		time.Sleep(Every)
		w.Warn("refused", "n", "last")
		w.Warn("refused", "n", "unsaid")
		w.Rest()
		w.Rest()
		want := `[WARN]  refused: n=0 times=1
[WARN]  another: times=1
[WARN]  refused: n=last times=1000
[WARN]  refused: times=1
`
		if log.String() != want {
			t.Errorf("got\n%swant\n%s", strings.TrimLeft(log.String(), " "), want)
		}
	})
}
