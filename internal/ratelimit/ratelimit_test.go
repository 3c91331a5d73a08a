package ratelimit

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestOnePassesInEachWindowAndTheRestIsCounted(t *testing.T) {
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
