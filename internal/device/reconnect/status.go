package reconnect

import (
	"time"

	"callhome/internal/device/schedule"
	"callhome/internal/proto"
)

// states are the API's names of the schedule's phases. Idle lasts until the first
// event.
var states = map[schedule.Phase]proto.ClientState{
	schedule.Idle: proto.ClientWaiting, schedule.Waiting: proto.ClientWaiting, schedule.Dialing: proto.ClientDialing,
	schedule.HandedOver: proto.ClientHandedOver, schedule.Open: proto.ClientAuthenticated, schedule.Stopped: proto.ClientStopped,
}

// events are the API's names of the schedule's notices.
var events = map[schedule.Notice]string{
	schedule.AttemptFailed: proto.EventAttemptFailed, schedule.EndpointExhausted: proto.EventEndpointExhausted,
	schedule.AllExhausted: proto.EventAllExhausted, schedule.GivenUp: proto.EventGivenUp,
	schedule.ConnectionLost: proto.EventLost, schedule.Recovered: proto.EventRecovered,
}

// Status returns the client's status.
func (c *client) Status() proto.ClientStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// update changes the status.
func (c *client) update(change func(*proto.ClientStatus)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.status.State
	change(&c.status)
	if c.status.State != was {
		c.status.Since = time.Now().UTC()
	}
}

// record updates the status after a step of the schedule.
func (c *client) record(e schedule.Event, info proto.SessionInfo, before schedule.State) {
	now, p := &c.state, &c.policy
	c.update(func(s *proto.ClientStatus) {
		served := s.State == proto.ClientServing || e.Kind == schedule.Found && info.State == proto.StateServing
		s.State = states[now.Phase]
		switch {
		case now.Phase == schedule.Waiting && !now.Due && p.Period > 0:
			s.State = proto.ClientIdle
		case now.Phase == schedule.Open && served:
			s.State = proto.ClientServing
		}
		s.Endpoint = c.conf.Endpoints[now.Endpoint].Name
		s.Attempts, s.Failures = now.Attempts, now.Failures
		if now.Phase == schedule.Open {
			s.Attempts = 0 // until the session ends before schedule's goodSession
		}
		s.AttemptsLeft = p.MaxAttempts - s.Attempts
		s.NextAttempt = nil
		if now.Phase == schedule.Waiting {
			at := now.At.Round(0).UTC()
			s.NextAttempt = &at
		}
		switch e.Kind {
		case schedule.Failed, schedule.Ended:
			if !info.Graceful {
				s.LastError = &proto.LastError{Time: time.Now().UTC(), Stage: info.Stage, End: info.End, Message: info.Cause}
			}
			s.Session, s.User, s.Address = 0, "", ""
		case schedule.Connected, schedule.LoggedIn, schedule.Found:
			s.Session, s.User, s.Address = info.Session, info.User, info.Remote
		}
		if before.Phase == schedule.HandedOver && now.Phase == schedule.Open {
			s.Connections++
		}
	})
}

// publish publishes the schedule's notices as events.
func (c *client) publish(do schedule.Do, info proto.SessionInfo) {
	for _, n := range do.Publish {
		status := c.Status()
		e := event(events[n], &status, "")
		e.Session = info
		if n == schedule.Recovered {
			e.Outage = do.Outage
		}
		c.all.manager.Publish(e)
	}
}
