package schedule

import (
	"math"
	"time"

	"callhome/internal/proto"
)

// Pause is how long to wait between attempts.
type Pause struct {
	Initial time.Duration
	// Maximum is for attempts that found nobody; where an NMS has accepted it is
	// loginMaximum times as long.
	Maximum time.Duration
	Jitter  int // percent by which each pause is shorter or longer, below 100
}

// DefaultPause is for a client whose configuration says nothing of pauses.
// docs/reconnect.md has what it costs a fleet, and a single device.
var DefaultPause = Pause{Initial: time.Second, Maximum: time.Minute, Jitter: 50}

// How pauses grow. An attempt that nobody answers costs an NMS next to nothing,
// and coming back soon is worth more: with 10 % an attempt the pause is some
// 10 % of the time that the outage has lasted.
//
// One that an NMS has accepted costs it the work of a login. There the pause
// begins at loginCost times the first one and doubles. An NMS that took long to
// fail is likely to have too much to do: the pause is at least loginRest times
// what the attempt took, so that of those who are turned away two in three are
// out of the way from the first time on. And it may become longer: an NMS gets
// out from under a fleet once the fleet's size by the longest pause is less
// than what it can log in.
const (
	growth       = 1.1
	loginCost    = 4
	loginGrowth  = 2
	loginRest    = 2
	loginMaximum = 5
)

// pauses is how many attempts failed since the last good session: without, and
// with a connection.
type pauses struct{ Refused, HungUp int }

// connectedAt reports whether an attempt that failed at stage had a connection.
func connectedAt(stage proto.Stage) bool {
	return stage != proto.StageName && stage != proto.StageTCP
}

func (n pauses) more(stage proto.Stage) pauses {
	if connectedAt(stage) {
		n.HungUp++
	} else {
		n.Refused++
	}
	return n
}

// next returns the pause from the end of an attempt that took so long and
// failed at stage. An attempt without a connection is part of its pause; one
// with a connection is not, or a fleet would go on at once after each login that
// an NMS was too slow for. The jitter never is: those whose SYNs were lost
// together would go on together. It is around the pause, not on top of it, so
// that the middle of a fleet is where it would be without.
func (p Pause) next(n pauses, stage proto.Stage, took time.Duration, chance float64) time.Duration {
	d := min(float64(p.Maximum), float64(p.Initial)*math.Pow(growth, float64(max(n.Refused-1, 0))))
	if n.HungUp > 0 {
		first := float64(p.Initial) * loginCost
		if connectedAt(stage) {
			first = max(first, float64(took)*loginRest)
		}
		d = max(d, min(float64(p.Maximum)*loginMaximum, first*math.Pow(loginGrowth, float64(n.HungUp-1))))
	}
	shake := d * float64(p.Jitter) / 100
	least := d - shake
	if !connectedAt(stage) {
		least = max(0, least-float64(took))
	}
	return time.Duration(least + 2*shake*chance)
}

// longest is a bound of what next returns.
func (p Pause) longest() time.Duration { return 2 * loginMaximum * p.Maximum }
