package reconnect

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/schedule"
	"callhome/internal/device/settings"
	"callhome/internal/proto"
	"callhome/internal/wake"
)

// client keeps the connection to one NETCONF client. Its goroutine owns the
// schedule's state; other goroutines read status.
type client struct {
	all    *Clients
	conf   config.Client
	base   settings.Call
	policy schedule.Policy

	updates chan update
	// network, clock and restart wake a client that is busy later, once.
	network, clock, restart chan struct{}
	demands                 chan chan<- Session // of Clients.Call

	ctx  context.Context // ends with stop
	stop func()          // returns when the goroutine has ended; the session continues

	state   schedule.State
	session Session // of the current call home, or nil

	mu     sync.Mutex // guards status
	status proto.ClientStatus
}

// update is what follow passes to the client's goroutine about its session. The
// last update is the end, and the next session starts only after it.
type update struct {
	schedule.Event
	info proto.SessionInfo
	// serving is set when the netconf subsystem runs. It changes the status only.
	serving bool
}

// start starts the client's goroutine. The first session in left whose endpoint is
// unchanged continues; the others are ended before a call home is made. The counts
// continue from former, the client of that name in the configuration before, or
// nil.
func (cs *Clients) start(conf config.Client, left []Session, former *client) *client {
	c := &client{all: cs, conf: conf, base: cs.base, policy: policyOf(&conf),
		updates: make(chan update), network: wake.New(), clock: wake.New(), restart: wake.New(), demands: make(chan chan<- Session)}
	c.status = proto.ClientStatus{Client: conf.Name, State: proto.ClientWaiting, Since: time.Now().UTC(), Periodic: conf.Periodic != nil}
	if former != nil {
		was := former.Status()
		c.status.Connections, c.status.LastError = was.Connections, was.LastError
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	c.ctx, c.stop = ctx, func() {
		cancel()
		<-ended
	}
	go func() {
		defer close(ended)
		c.run(left)
	}()
	return c
}

var startWith = map[config.StartWith]schedule.StartWith{
	config.FirstListed: schedule.FirstListed, config.LastConnected: schedule.LastConnected, config.RandomSelection: schedule.RandomSelection,
}

func policyOf(c *config.Client) schedule.Policy {
	p := schedule.Policy{
		Endpoints: len(c.Endpoints), StartWith: startWith[c.Reconnect.StartWith], MaxAttempts: c.Reconnect.MaxAttempts,
		NoSSH: c.NoSSHTimer,
		Pause: schedule.Pause{Initial: c.Backoff.Initial, Maximum: c.Backoff.Maximum, Jitter: c.Backoff.Jitter},
	}
	if repeats := c.MaxCallHomeAttempts; repeats != nil {
		p.MaxFailures = 1 + *repeats
	}
	if c.Periodic != nil {
		p.Period, p.Anchor = c.Periodic.Period, c.Periodic.Anchor
	}
	return p
}

// run is the client's goroutine.
func (c *client) run(left []Session) {
	c.restore()
	found := c.takeOver(left)
	if c.ctx.Err() != nil {
		return // another session has not ended yet, and no call home may overlap it
	}
	if !c.conf.Enabled {
		c.update(func(s *proto.ClientStatus) { s.State = proto.ClientDisabled })
		<-c.ctx.Done()
		return
	}
	if found != nil {
		info := found.Info()
		loggedIn := info.State == proto.StateAuthenticated || info.State == proto.StateServing
		c.session = found
		c.step(schedule.Event{Kind: schedule.Found, Endpoint: c.endpoint(info.Endpoint), Since: info.Since, LoggedIn: loggedIn}, info)
		go c.follow(found)
	} else {
		c.step(schedule.Event{Kind: schedule.Begin}, proto.SessionInfo{})
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		// A slot is a time of the wall clock, the end of a pause one of the
		// monotonic clock; time.Until uses the clock that At has.
		due := (<-chan time.Time)(nil)
		if !c.state.At.IsZero() {
			timer.Reset(time.Until(c.state.At))
			due = timer.C
		}
		select {
		case <-c.ctx.Done():
			return
		case <-due:
			c.step(schedule.Event{Kind: schedule.Tick}, proto.SessionInfo{})
		case <-c.network:
			c.step(schedule.Event{Kind: schedule.Network}, proto.SessionInfo{})
		case <-c.clock:
			c.step(schedule.Event{Kind: schedule.ClockSet}, proto.SessionInfo{})
		case <-c.restart:
			c.step(schedule.Event{Kind: schedule.Restart}, proto.SessionInfo{})
		case answer := <-c.demands:
			c.step(schedule.Event{Kind: schedule.Demand}, proto.SessionInfo{})
			answer <- c.current()
		case u := <-c.updates:
			c.handle(u)
		}
	}
}

// current returns the session of the call home or connection, nil for none.
func (c *client) current() Session {
	switch c.state.Phase {
	case schedule.Dialing, schedule.HandedOver, schedule.Open:
		return c.session
	}
	return nil
}

// restore reads the saved state: the endpoint of the last connection and, for a
// periodic connection, its slot in this boot.
func (c *client) restore() {
	known := c.all.saved.of(c.conf.Name)
	c.state.Last = c.endpoint(known.Last) + 1
	if c.policy.Period == 0 {
		return
	}
	c.state.Slot, c.state.Due = known.Slot, known.Due
	if c.policy.Anchor.IsZero() {
		if c.policy.Anchor = known.Anchor; c.policy.Anchor.IsZero() {
			c.policy.Anchor = time.Now().UTC().Truncate(time.Second)
		}
	}
}

// endpoint returns the index of the endpoint of that name, -1 where there is none.
func (c *client) endpoint(name string) int {
	return slices.IndexFunc(c.conf.Endpoints, func(e config.Endpoint) bool { return e.Name == name })
}

// takeOver returns the session that continues, and ends the others.
func (c *client) takeOver(left []Session) Session {
	var found Session
	for _, s := range left {
		own := s.Owner()
		i := c.endpoint(own.Endpoint)
		why := ""
		switch {
		case s.Ending(): // by the configuration before, which has waited no longer
		case !c.conf.Enabled:
			why = "its client is disabled in the configuration"
		case i < 0 || owner(&c.conf.Endpoints[i]) != own:
			why = "its endpoint has changed in the configuration"
		case found != nil:
			why = "its client has another session"
		default:
			found = s
			continue
		}
		if why != "" {
			s.EndSoon(proto.EndKilled, why)
		}
		select {
		case <-s.Done():
		case <-c.ctx.Done():
		}
	}
	return found
}

// handle processes an update about the session.
func (c *client) handle(u update) {
	if u.serving {
		c.update(func(s *proto.ClientStatus) { s.State = proto.ClientServing })
		return
	}
	c.step(u.Event, u.info)
}

// step passes an event to the schedule and carries out the actions.
func (c *client) step(e schedule.Event, info proto.SessionInfo) {
	for again := true; again; {
		again = false
		before := c.state
		var do schedule.Do
		c.state, do = c.policy.Step(before, e, time.Now(), rand.Float64())
		c.record(e, info, before)
		c.publish(do, info)
		if do.Drop && c.session != nil {
			if c.state.Phase == schedule.Dialing {
				c.session.EndSoon(proto.EndNoConnection, "the network changed before there was a connection")
			} else {
				c.session.EndSoon(proto.EndLoginTimeout, "no login within "+c.policy.NoSSH.String())
			}
		}
		if !do.Call {
			continue
		}
		endpoint := &c.conf.Endpoints[c.state.Endpoint]
		with := endpoint.Call(c.base, c.all.opt.Dir)
		made, err := c.all.manager.Keep(&with, owner(endpoint))
		if err != nil {
			// The manager is stopping or full; this counts as a failed attempt.
			e, again = schedule.Event{Kind: schedule.Failed, Stage: proto.StageHandover}, true
			info = proto.SessionInfo{Stage: proto.StageHandover, End: proto.EndSshd, Cause: err.Error()}
			continue
		}
		c.session = made
		c.update(func(s *proto.ClientStatus) { s.Session = made.Info().Session })
		go c.follow(made)
	}
	c.all.saved.set(c.conf.Name, c.toSave())
}

// toSave returns the client's part of the saved state.
func (c *client) toSave() endpointAndSlot {
	var m endpointAndSlot
	if i := c.state.Last - 1; i >= 0 && i < len(c.conf.Endpoints) {
		m.Last = c.conf.Endpoints[i].Name
	}
	if c.policy.Period > 0 {
		m.Slot, m.Due = c.state.Slot, c.state.Due
		if c.conf.Periodic.Anchor.IsZero() {
			m.Anchor = c.policy.Anchor
		}
	}
	return m
}

// follow sends updates about a session until it has ended or the client is
// stopped.
func (c *client) follow(s Session) {
	const login = 1 // from this step on the peer's liveness is checked
	steps := []struct {
		state  proto.State
		update update
	}{
		{proto.StateStarting, update{Event: schedule.Event{Kind: schedule.Connected}}},
		{proto.StateAuthenticated, update{Event: schedule.Event{Kind: schedule.LoggedIn}}},
		{proto.StateServing, update{serving: true}},
	}
	connected := false
	for i, step := range steps {
		info, err := s.Await(c.ctx, step.state)
		if err != nil && !passed(&info, step.state) {
			break
		}
		step.update.info = info
		if !c.send(step.update) {
			return
		}
		connected = true
		if i == login {
			go c.checkLiveness(s, &c.conf.Endpoints[c.endpoint(info.Endpoint)])
		}
	}
	select {
	case <-s.Done():
	case <-c.ctx.Done():
		return
	}
	info := s.Info()
	kind := schedule.Failed
	if connected {
		kind = schedule.Ended
	}
	c.send(update{Event: schedule.Event{Kind: kind, Stage: info.Stage, Graceful: info.Graceful}, info: info})
}

// passed reports whether a session that has ended had reached state. A short
// session may pass a state before Await sees it. Before the login this makes no
// difference.
func passed(info *proto.SessionInfo, state proto.State) bool {
	switch info.Stage {
	case proto.StageSession:
		return true
	case proto.StageSubsystem:
		return state != proto.StateServing
	}
	return false
}

func (c *client) send(u update) bool {
	select {
	case c.updates <- u:
		return true
	case <-c.ctx.Done():
		return false
	}
}
