package main

import (
	"math"
	"time"

	"callhome/internal/device/schedule"
)

// caller decides for one device when to call which endpoint.
type caller interface {
	// step takes what happened and returns what is to be done; at is when a Tick
	// is due, zero for never.
	step(e schedule.Event, now time.Time, chance float64) (do schedule.Do, at time.Time, endpoint int)
}

// ours is the daemon's own scheduling.
type ours struct {
	policy *schedule.Policy
	state  schedule.State
}

func (o *ours) step(e schedule.Event, now time.Time, chance float64) (schedule.Do, time.Time, int) {
	var do schedule.Do
	o.state, do = o.policy.Step(o.state, e, now, chance)
	return do, o.state.At, o.state.Endpoint
}

// plain is what others do: a pause after each attempt, the same for all devices.
// What is not pause, the order of endpoints and the patience with a silent NMS,
// it has in common with ours, so that the pauses are what is compared.
type plain struct {
	policy   *schedule.Policy
	pause    func(failures int) time.Duration
	failures int
	endpoint int
	calling  bool
	open     bool
}

func (p *plain) step(e schedule.Event, now time.Time, _ float64) (do schedule.Do, at time.Time, endpoint int) {
	switch e.Kind {
	case schedule.Found:
		p.open = true
	case schedule.Connected:
		at = now.Add(p.policy.NoSSH)
	case schedule.LoggedIn:
		p.failures, p.open = 0, true
	case schedule.Tick:
		do.Call, do.Drop = !p.calling, p.calling
		p.calling = true
	case schedule.Failed, schedule.Ended:
		if p.open { // a session ended
			p.open, p.calling, do.Call = false, true, true
			break
		}
		p.failures++
		p.endpoint = p.failures / p.policy.MaxAttempts % p.policy.Endpoints
		p.calling = false
		at = now.Add(p.pause(p.failures))
	}
	return do, at, p.endpoint
}

// manner is a policy with the name that the tables give it.
type manner struct {
	name string
	make func(*schedule.Policy) caller
}

var manners = []manner{
	{"ours", func(p *schedule.Policy) caller { return &ours{policy: p} }},
	{"fixed 5 s", func(p *schedule.Policy) caller {
		return &plain{policy: p, pause: func(int) time.Duration { return 5 * time.Second }}
	}},
	{"doubling", func(p *schedule.Policy) caller {
		return &plain{policy: p, pause: func(failures int) time.Duration {
			return min(p.Pause.Maximum, time.Duration(float64(p.Pause.Initial)*math.Pow(2, float64(min(failures, 30)-1))))
		}}
	}},
}
