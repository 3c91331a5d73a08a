package schedule

import (
	"math"
	"time"

	"callhome/internal/proto"
)

// Pause is how long to wait from the beginning of one attempt to that of the
// next.
type Pause struct {
	Initial, Maximum time.Duration
	Jitter           int // percent by which each pause is shorter or longer, below 100
}

// How pauses grow. An attempt that nobody answers costs an NMS next to nothing,
// and coming back soon is worth more: with 15 % an attempt the pause is some
// 15 % of the time that the outage has lasted. One that an NMS has accepted
// costs it the work of a login: there the pause begins at four times the first
// and doubles. `make simulate` shows what that means for a fleet.
const (
	growth      = 1.15
	loginCost   = 4
	loginGrowth = 2
)

// pauses is how many attempts failed since the last good session: without, and
// with a connection.
type pauses struct{ Refused, HungUp int }

func (n pauses) more(stage proto.Stage) pauses {
	switch stage {
	case proto.StageName, proto.StageTCP:
		n.Refused++
	default:
		n.HungUp++
	}
	return n
}

// next returns the pause. Its jitter is around the pause, not on top of it, so
// that the middle of a fleet is where it would be without.
func (p Pause) next(n pauses, chance float64) time.Duration {
	d := float64(p.Initial) * math.Pow(growth, float64(max(n.Refused-1, 0)))
	if n.HungUp > 0 {
		d = max(d, float64(p.Initial)*loginCost*math.Pow(loginGrowth, float64(n.HungUp-1)))
	}
	d = min(d, float64(p.Maximum))
	return time.Duration(d * (1 + float64(p.Jitter)/100*(2*chance-1)))
}
