package main

import (
	"math/rand/v2"
	"time"

	"callhome/internal/device/schedule"
	"callhome/internal/proto"
)

// Fleet is what is simulated: devices that all had a session with an NMS when
// it went.
type Fleet struct {
	Devices int
	Policy  schedule.Policy
	NMS     NMS           // each endpoint is one
	Notice  time.Duration // within which the devices notice that the session is gone
	MaxWait time.Duration // for a TCP connection
	Horizon time.Duration // after the outage, at which we look no more
	Seed    uint64
	Cluster
}

// epoch is the moment at which the NMS goes; any will do.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// nearest and farthest are bounds of a device's round trip to the NMS.
const (
	nearest  = 5 * time.Millisecond
	farthest = 100 * time.Millisecond
)

// device is one of them. It waits for one thing at a time.
type device struct {
	fleet *fleet
	caller
	timer    timer
	due      func(*device) // what the timer is for
	trip     time.Duration // to the NMS and back
	endpoint int
	began    time.Duration // of the attempt
	syns     int           // sent in it
	nms      *nms          // of the attempt
	conn     *conn
	gone     time.Duration // when its session ended
}

type fleet struct {
	Fleet
	clock clock
	rand  *rand.Rand
	nms   []*nms
	count count
}

// play lets the fleet lose its NMS and come back, or not.
func (what Fleet) play(m manner) *count { return &what.run(m).count }

func (what Fleet) run(m manner) *fleet {
	f := &fleet{Fleet: what, rand: rand.New(rand.NewPCG(what.Seed, 0))}
	f.count.open(what)
	if f.Stations > 0 {
		f.open()
	}
	for len(f.nms) < f.Policy.Endpoints {
		f.nms = append(f.nms, newNMS(f.NMS, &f.clock))
	}
	for i := range f.Devices {
		d := &device{fleet: f, caller: m.make(&f.Policy), trip: nearest + time.Duration(f.rand.Int64N(int64(farthest-nearest)))}
		d.timer.run = func() { d.due(d) }
		d.report(schedule.Event{Kind: schedule.Found, LoggedIn: true, Since: epoch.Add(-24 * time.Hour)})
		d.wait((*device).lost, f.ends(i)+time.Duration(f.rand.Float64()*float64(f.Notice)))
	}
	f.clock.run(f.NMS.Outage+f.Horizon, func() bool { return len(f.count.back) == f.Devices })
	return f
}

// wait lets something happen at a time.
func (d *device) wait(what func(*device), at time.Duration) {
	d.due = what
	d.fleet.clock.set(&d.timer, at)
}

// report gives the policy an event and executes its decision.
func (d *device) report(e schedule.Event) {
	f := d.fleet
	do, at, endpoint := d.step(e, epoch.Add(f.clock.now), f.rand.Float64())
	switch {
	case do.Call:
		d.endpoint, d.began, d.syns = endpoint, f.clock.now, 0
		d.wait((*device).knock, f.clock.now+d.trip)
	case do.Drop:
		d.nms.drop(d.conn)
		d.hungUp()
	case !at.IsZero():
		d.wait((*device).tick, at.Sub(epoch))
	default:
		f.clock.timers.take(&d.timer)
	}
}

func (d *device) lost() {
	d.gone = d.fleet.clock.now
	d.report(schedule.Event{Kind: schedule.Ended, Stage: proto.StageSession})
}

func (d *device) tick() { d.report(schedule.Event{Kind: schedule.Tick}) }

// knock is a SYN at the NMS; without an answer it is sent again after 1, 3, 7…
// seconds, as Linux does, until MaxWait is over.
func (d *device) knock() {
	f := d.fleet
	d.syns++
	f.count.arrived(f.clock.now)
	d.nms = f.at(d.endpoint)
	what, c := d.nms.knock(d)
	switch what {
	case welcome:
		d.conn = c
		d.report(schedule.Event{Kind: schedule.Connected})
	case refusal:
		d.failed()
	case silence:
		again := d.began + time.Second<<d.syns - time.Second + d.trip
		if end := d.began + f.MaxWait; again >= end {
			d.wait((*device).failed, end)
			return
		}
		d.wait((*device).knock, again)
	}
}

func (d *device) failed() {
	d.fleet.count.failed(d.fleet.clock.now, false)
	d.report(schedule.Event{Kind: schedule.Failed, Stage: proto.StageTCP})
}

// hungUp is the end of a connection without a login.
func (d *device) hungUp() {
	d.fleet.count.failed(d.fleet.clock.now, true)
	d.report(schedule.Event{Kind: schedule.Ended, Stage: proto.StageAuth})
}

func (d *device) loggedIn() {
	d.fleet.count.loggedIn(d.fleet.clock.now, d.gone)
	d.nms.held++
	d.report(schedule.Event{Kind: schedule.LoggedIn})
}
