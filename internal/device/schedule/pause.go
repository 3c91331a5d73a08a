package schedule

import (
	"math"
	"time"

	"callhome/internal/proto"
)

// Pause is the pause between two attempts.
type Pause struct {
	Initial time.Duration
	// Maximum bounds the pause after an attempt without a connection. After one
	// that a station accepted the bound is loginMaximum times as long.
	Maximum time.Duration
	Jitter  int // percent of the pause, by which it is shorter or longer
}

// DefaultPause is for a client whose configuration sets no pause. docs/reconnect.md
// lists what it costs a fleet, and a single device.
var DefaultPause = Pause{Initial: time.Second, Maximum: time.Minute, Jitter: 50}

// How pauses grow. An attempt without a connection costs a station next to
// nothing, so an early return matters more: with 10 % more each time, the pause is
// some 10 % of the outage.
//
// An attempt that a station accepted costs it the work of a login. The pause begins
// at loginCost times the first one and doubles. A station that took long to fail is
// probably overloaded: the pause is at least loginRest times the attempt, so that
// two thirds of the refused devices wait at any time. The maximum is longer,
// because an overload ends only when the fleet's size divided by the longest pause
// is below the station's login rate.
const (
	growth       = 1.1
	loginCost    = 4
	loginGrowth  = 2
	loginRest    = 2
	loginMaximum = 5
)

// backoff counts the attempts that failed since the last good session, without and
// with a connection.
type backoff struct{ Unconnected, Connected int }

// connectedAt reports whether an attempt that failed at stage had a connection.
func connectedAt(stage proto.Stage) bool {
	return stage != proto.StageName && stage != proto.StageTCP
}

func (n backoff) more(stage proto.Stage) backoff {
	if connectedAt(stage) {
		n.Connected++
	} else {
		n.Unconnected++
	}
	return n
}

// next returns the pause after an attempt that took that long and failed at stage.
// The duration of an attempt without a connection counts as part of the pause.
// That of one with a connection does not: a fleet would call again at once after
// each login that the station was too slow for. The jitter always applies, because
// devices whose SYNs were lost together must not call together again. It makes the
// pause shorter as often as longer, so a fleet's average stays the same.
func (p Pause) next(n backoff, stage proto.Stage, took time.Duration, chance float64) time.Duration {
	d := min(float64(p.Maximum), float64(p.Initial)*math.Pow(growth, float64(max(n.Unconnected-1, 0))))
	if n.Connected > 0 {
		first := float64(p.Initial) * loginCost
		if connectedAt(stage) {
			first = max(first, float64(took)*loginRest)
		}
		d = max(d, min(float64(p.Maximum)*loginMaximum, first*math.Pow(loginGrowth, float64(n.Connected-1))))
	}
	jitter := d * float64(p.Jitter) / 100
	least := d - jitter
	if !connectedAt(stage) {
		least = max(0, least-float64(took))
	}
	return time.Duration(least + 2*jitter*chance)
}

// longest bounds what next returns.
func (p Pause) longest() time.Duration { return 2 * loginMaximum * p.Maximum }
