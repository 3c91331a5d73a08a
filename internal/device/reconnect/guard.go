package reconnect

import (
	"time"

	"callhome/internal/device/config"
	"callhome/internal/proto"
)

// guard ends a session whose peer is dead or idle, where sshd or the kernel
// should have and did not: sshd 9.2 to 9.4 take twice as long over ClientAlive
// as they are told, and those before 9.2 know no idle timeout. What the kernel
// counts is all that it looks at.
func (c *client) guard(s Session, e *config.Endpoint) {
	w := watchOf(&c.conf, e)
	if w.dead == 0 && w.idle == 0 {
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
		end, next := w.look(st, time.Now())
		if end != "" {
			s.End(end, w.cause(end))
			return
		}
		timer.Reset(next)
	}
}

// watch decides from the kernel's figures whether a session is to be ended. A
// zero time is a question that is not asked.
type watch struct {
	// dead is how long nothing may come from the peer: it answers a keepalive
	// in every interval.
	dead time.Duration
	// idle is how long no data may move, keepalives apart; beat how often to
	// look.
	idle, beat time.Duration

	moved  uint64    // bytes, when last looked at
	active time.Time // when data last moved
}

// late is what the end may come after its time: 1 s, of which the kernel, the
// timer and the signal need a part.
const late = 500 * time.Millisecond

// keepalives is how many bytes those of both ends make in a beat, answers and
// encryption included: some 100 for each end's, and one more of each where the
// beat is cut so. The smallest NETCONF request and its answer make more.
const keepalives = 256

func watchOf(c *config.Client, e *config.Endpoint) watch {
	var w watch
	if e.SSH != nil && e.SSH.Interval > 0 && e.SSH.Count > 0 {
		w.dead = e.SSH.Interval*time.Duration(e.SSH.Count+1) + late
	}
	if c.Periodic != nil && c.Periodic.IdleTimeout > 0 && e.Idle == nil {
		w.idle = c.Periodic.IdleTimeout
		w.beat = w.idle / 4
		if e.SSH != nil && e.SSH.Interval > 0 {
			w.beat = min(w.beat, e.SSH.Interval)
		}
	}
	return w
}

// look returns how the session is to end, "" for not at all, and when to look
// again.
func (w *watch) look(st *proto.Stats, now time.Time) (end proto.End, next time.Duration) {
	const never = 24 * time.Hour
	next = never
	if w.dead > 0 {
		if st.LastReceived >= w.dead {
			return proto.EndSilent, 0
		}
		next = w.dead - st.LastReceived
	}
	if w.idle == 0 {
		return "", next
	}
	moved := st.BytesSent + st.BytesReceived
	if w.active.IsZero() || moved-w.moved > keepalives {
		w.active = now
	}
	w.moved = moved
	if now.Sub(w.active) >= w.idle {
		return proto.EndIdle, 0
	}
	return "", min(next, w.beat)
}

func (w *watch) cause(end proto.End) string {
	if end == proto.EndIdle {
		return "idle for " + w.idle.String()
	}
	return "nothing came from the client for " + (w.dead - late).String()
}
