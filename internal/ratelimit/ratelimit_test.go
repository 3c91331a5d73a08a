package ratelimit

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestRation(t *testing.T) {
	var r Ration
	begun := time.Now()
	for _, tt := range []struct {
		after time.Duration
		want  int
	}{
		{0, 1}, // the first one is told at once
		{time.Second, 0},
		{Every - 1, 0},
		{Every, 3},
		{Every + 1, 0},
		{5 * Every, 2},
	} {
		if got := r.Add(begun.Add(tt.after)); got != tt.want {
			t.Errorf("after %s: got %d, want %d", tt.after, got, tt.want)
		}
	}
	r.Add(begun.Add(5*Every + 1))
	if got := r.Rest(); got != 1 {
		t.Errorf("the rest is %d, want 1", got)
	}
	if got := r.Rest(); got != 0 {
		t.Errorf("the rest is told twice: %d", got)
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
