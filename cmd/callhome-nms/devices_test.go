package main

import (
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/nmsproto"
)

// What adopt says of the next call is no more than the calls have shown.
func TestWhenADeviceIsBack(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		pause, last time.Duration
		want        string
	}{
		{0, 3 * time.Second, "it called once, 3s ago, so its next call cannot be foreseen;"},
		{8 * time.Second, 4 * time.Second, "its last two calls were 8s apart, the last one 4s ago: the next one comes in about 12s,"},
		{8 * time.Second, time.Minute, "the last one 1m0s ago: the next one is due,"},
		{4 * time.Minute, time.Minute, "the next one comes in about 4m0s,"},
		{time.Hour, time.Minute, "its last two calls were 1h0m0s apart, the last one 1m0s ago: the next one comes in about 59m0s,"},
		{8 * time.Second, -time.Hour, "the last one 0s ago: the next one comes in about 16s,"}, // the clock was set
	} {
		got := whenBack(nmsproto.Unknown{Pause: tt.pause, Last: now.Add(-tt.last)}, now)
		if !strings.Contains(got, tt.want) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
