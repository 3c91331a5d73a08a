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
// schedule's state; others read status.
type client struct {
	k      *Keeper
	conf   config.Client
	base   settings.Call
	policy schedule.Policy

	news chan news
	// network and clock hold one piece of news each, for a client that is busy
	// or disabled: a second one would say no more.
	network, clock chan struct{}

	ctx  context.Context // ends with stop
	stop func()          // returns when the goroutine has ended; the session goes on

	state   schedule.State
	session Session // of the call that is made now, or nil

	mu     sync.Mutex // guards status
	status proto.ClientStatus
}

// news is what a client's goroutine is told of its session. The last one is the
// end, and only after that there is another session.
type news struct {
	schedule.Event
	info proto.SessionInfo
	// serving says that the netconf subsystem runs, which changes nothing but
	// what is shown.
	serving bool
}

// start begins to keep a connection. Of the sessions that are left from before,
// the first one whose endpoint is still the same goes on; others are ended
// before a call is made. What is counted goes on from former, the client of
// that name in the configuration before, or nil.
func (k *Keeper) start(conf config.Client, left []Session, former *client) *client {
	c := &client{k: k, conf: conf, base: k.base, policy: policyOf(&conf),
		news: make(chan news), network: wake.New(), clock: wake.New()}
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
		MaxFailures: c.MaxCallHomeAttempts, NoSSH: c.NoSSHTimer,
		Pause: schedule.Pause{Initial: c.Backoff.Initial, Maximum: c.Backoff.Maximum, Jitter: c.Backoff.Jitter},
	}
	if c.Periodic != nil {
		p.Period, p.Anchor = c.Periodic.Period, c.Periodic.Anchor
	}
	return p
}

// run is the client's goroutine.
func (c *client) run(left []Session) {
	c.remembered()
	found := c.takeOver(left)
	if c.ctx.Err() != nil {
		return // others may have yet to end, and no call must come before
	}
	if !c.conf.Enabled {
		c.show(func(s *proto.ClientStatus) { s.State = proto.ClientDisabled })
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
		// A slot is a time of the wall clock, a pause's end one of the other:
		// time.Until knows which by the value.
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
		case n := <-c.news:
			c.hear(n)
		}
	}
}

// remembered takes in what was before: the endpoint connected to last, and of
// a periodic connection what it had in this boot.
func (c *client) remembered() {
	known := c.k.memory.of(c.conf.Name)
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

// endpoint returns the number of the endpoint of that name, -1 for none.
func (c *client) endpoint(name string) int {
	return slices.IndexFunc(c.conf.Endpoints, func(e config.Endpoint) bool { return e.Name == name })
}

// takeOver returns the session that goes on, and ends the others.
func (c *client) takeOver(left []Session) Session {
	var found Session
	for _, s := range left {
		own := s.Owner()
		i := c.endpoint(own.Endpoint)
		why := ""
		switch {
		case !c.conf.Enabled:
			why = "its client is disabled in the configuration"
		case i < 0 || owner(&c.conf.Endpoints[i]) != own:
			why = "its endpoint is another one in the configuration"
		case found != nil:
			why = "its client has another session"
		default:
			found = s
			continue
		}
		go s.End(proto.EndKilled, why)
		select {
		case <-s.Done():
		case <-c.ctx.Done():
		}
	}
	return found
}

// hear takes in what happened to the session.
func (c *client) hear(n news) {
	if n.serving {
		c.show(func(s *proto.ClientStatus) { s.State = proto.ClientServing })
		return
	}
	c.step(n.Event, n.info)
}

// step lets the schedule decide and does what it says.
func (c *client) step(e schedule.Event, info proto.SessionInfo) {
	for again := true; again; {
		again = false
		before := c.state
		var do schedule.Do
		c.state, do = c.policy.Step(before, e, time.Now(), rand.Float64())
		c.learn(e, info, before)
		c.tell(do, info)
		if do.Drop && c.session != nil {
			if c.state.Phase == schedule.Dialing {
				go c.session.End(proto.EndNoConnection, "the network changed during the call")
			} else {
				go c.session.End(proto.EndLoginTimeout, "no login within "+c.policy.NoSSH.String())
			}
		}
		if !do.Call {
			continue
		}
		endpoint := &c.conf.Endpoints[c.state.Endpoint]
		with := endpoint.Call(c.base, c.k.opt.Dir)
		made, err := c.k.caller.Keep(&with, owner(endpoint))
		if err != nil {
			// The manager is stopping, or full: as any attempt that failed.
			e, again = schedule.Event{Kind: schedule.Failed, Stage: proto.StageHandover}, true
			info = proto.SessionInfo{Stage: proto.StageHandover, End: proto.EndSshd, Cause: err.Error()}
			continue
		}
		c.session = made
		c.show(func(s *proto.ClientStatus) { s.Session = made.Info().Session })
		go c.follow(made)
	}
	c.k.memory.remember(c.conf.Name, c.memory())
}

func (c *client) memory() endpointAndSlot {
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

// follow tells what becomes of a session, until it has ended or the client is
// not kept any more.
func (c *client) follow(s Session) {
	const guarded = 1 // from the login on
	steps := []struct {
		state proto.State
		news  news
	}{
		{proto.StateStarting, news{Event: schedule.Event{Kind: schedule.Connected}}},
		{proto.StateAuthenticated, news{Event: schedule.Event{Kind: schedule.LoggedIn}}},
		{proto.StateServing, news{serving: true}},
	}
	connected := false
	for i, step := range steps {
		info, err := s.Await(c.ctx, step.state)
		if err != nil && !passed(&info, step.state) {
			break
		}
		step.news.info = info
		if !c.send(step.news) {
			return
		}
		connected = true
		if i == guarded {
			go c.guard(s, &c.conf.Endpoints[c.endpoint(info.Endpoint)])
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
	c.send(news{Event: schedule.Event{Kind: kind, Stage: info.Stage, Graceful: info.Graceful}, info: info})
}

// passed reports whether a session that has ended had come as far as state,
// which may have gone by before anybody looked. Before the login it makes no
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

func (c *client) send(n news) bool {
	select {
	case c.news <- n:
		return true
	case <-c.ctx.Done():
		return false
	}
}
