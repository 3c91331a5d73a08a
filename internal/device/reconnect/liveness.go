package reconnect

import (
	"time"

	"callhome/internal/device/config"
	"callhome/internal/proto"
)

// checkLiveness ends a session whose peer is dead or idle, where sshd and the
// kernel are late: sshd 9.2 to 9.4 need twice the configured ClientAlive time, and
// sshd before 9.2 has no idle timeout. It reads the kernel's counts of the
// connection and nothing else.
func (c *client) checkLiveness(s Session, e *config.Endpoint) {
	l := livenessOf(&c.conf, e)
	if l.dead == 0 && l.idle == 0 {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.Done():
			return
		case <-c.ctx.Done():
			return
		}
		st := s.Stats()
		if st == nil {
			return
		}
		end, next := l.check(st, time.Now())
		if end != "" {
			s.EndSoon(end, l.cause(end))
			return
		}
		timer.Reset(next)
	}
}

// liveness decides from the kernel's counts whether to end a session. A zero time
// turns its check off.
type liveness struct {
	// dead is how long the peer may be silent. A living peer answers a keepalive in
	// every interval.
	dead time.Duration
	// idle is how long no data may be exchanged, keepalives apart; every is the
	// interval of the checks.
	idle, every time.Duration

	bytes  uint64    // exchanged, at the last check
	active time.Time // of the last exchange of data
}

// grace delays the end of a dead session. The limit allows 1 s (package config,
// keepalives); the kernel, the timer and the signal need the rest.
const grace = 500 * time.Millisecond

// keepalives bounds the bytes of the keepalives of both ends in one interval of
// the checks, answers and encryption included: some 100 bytes for each end, and
// one more of each at the interval's edge. The smallest NETCONF request and its
// answer are longer.
const keepalives = 256

func livenessOf(c *config.Client, e *config.Endpoint) liveness {
	var l liveness
	if e.SSH != nil && e.SSH.Interval > 0 && e.SSH.Count > 0 {
		l.dead = e.SSH.Interval*time.Duration(e.SSH.Count+1) + grace
	}
	if c.Periodic != nil && c.Periodic.IdleTimeout > 0 && e.Idle == nil {
		l.idle = c.Periodic.IdleTimeout
		l.every = l.idle / 4
		if e.SSH != nil && e.SSH.Interval > 0 {
			l.every = min(l.every, e.SSH.Interval)
		}
	}
	return l
}

// check returns the end that the session must have, "" for none, and the time until
// the next check.
func (l *liveness) check(st *proto.Stats, now time.Time) (end proto.End, next time.Duration) {
	const never = 24 * time.Hour
	next = never
	if l.dead > 0 {
		if st.LastReceived >= l.dead {
			return proto.EndSilent, 0
		}
		next = l.dead - st.LastReceived
	}
	if l.idle == 0 {
		return "", next
	}
	bytes := st.BytesSent + st.BytesReceived
	if l.active.IsZero() || bytes-l.bytes > keepalives {
		l.active = now
	}
	l.bytes = bytes
	if now.Sub(l.active) >= l.idle {
		return proto.EndIdle, 0
	}
	return "", min(next, l.every)
}

func (l *liveness) cause(end proto.End) string {
	if end == proto.EndIdle {
		return "idle for " + l.idle.String()
	}
	return "no data from the client for " + (l.dead - grace).String()
}
