package metrics

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"callhome/internal/hook"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/station"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestFigures(t *testing.T) {
	stats := station.Stats{
		Calls: 9, Outcomes: map[station.Outcome]uint64{station.LoggedIn: 5, station.Unknown: 2}, Sessions: 7, SessionsNow: 1, SessionsFailed: 3,
		Unauthenticated: 4, Unknown: 2, Sent: 100, Received: 200, Devices: map[nmsproto.State]int{nmsproto.Connected: 6},
	}
	m := New(func() station.Stats { return stats }, "1.2")
	m.AddHook(func() hook.Counts { return hook.Counts{OK: 11, Dropped: 12} })
	m.Handle(nmsproto.Event{Event: nmsproto.EventUp})
	m.LoggedIn(30 * time.Millisecond)
	text := string(m.Text())
	for _, want := range []string{
		`callhome_nms_devices{state="connected"} 6`, `callhome_nms_devices{state="never-seen"} 0`, `callhome_nms_devices{state="lost"} 0`,
		`callhome_nms_calls_finished_total{outcome="logged-in"} 5`, `callhome_nms_calls_finished_total{outcome="over-limit"} 0`,
		`callhome_nms_calls_total 9`, `callhome_nms_unauthenticated 4`, `callhome_nms_unknown_keys 2`, `callhome_nms_sessions 1`,
		`callhome_nms_sessions_total 7`, `callhome_nms_sessions_failed_total 3`, `callhome_nms_sent_bytes_total 100`, `callhome_nms_received_bytes_total 200`,
		`callhome_nms_events_total{event="up"} 1`, `callhome_nms_events_total{event="down"} 0`, `callhome_nms_login_duration_seconds_count 1`,
		`callhome_nms_login_duration_seconds_bucket{le="0.025"} 0`, `callhome_nms_hook_runs_total{outcome="dropped"} 12`, `version="1.2"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "callhome_") {
			t.Error(fmt.Sprint(p))
		}
	}
}
