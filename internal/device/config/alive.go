package config

import (
	"time"

	"callhome/internal/sshdexec"
)

// RFC 8071 section 4.1 wants a persistent connection tested for aliveness
// always; these are the model's own defaults.
var standardAlive = KeepAlive{Interval: 30 * time.Second, Count: 3}

// What the kernel takes, and for TCP_USER_TIMEOUT what makes sense.
const (
	maxKeepAlive   = 32767 * time.Second
	maxUserTimeout = 24 * time.Hour
)

// alive settles how a dead peer is noticed. SSH keepalives are the measure: a
// peer that is gone is given up after Interval × (Count + 1). The kernel is the
// second line, where sshd cannot be quick enough the first.
func (b *builder) alive(e *Endpoint, tcp, ssh *node, persistent bool) {
	if tcp != nil {
		e.TCP = &KeepAlive{Idle: secondsOf(tcp.num("idle-time")), Interval: secondsOf(tcp.num("probe-interval")), Count: tcp.num("max-probes")}
		e.UserTimeout = min(e.TCP.Idle+time.Duration(e.TCP.Count)*e.TCP.Interval, maxUserTimeout)
	}
	switch {
	case ssh != nil:
		e.SSH = &KeepAlive{Interval: secondsOf(ssh.num("max-wait")), Count: ssh.num("max-attempts")}
	case persistent:
		alive := standardAlive
		e.SSH = &alive
	default:
		return
	}
	bound := e.SSH.Interval*time.Duration(e.SSH.Count+1) + time.Second
	var takes time.Duration
	e.ClientAlive, takes = b.clientAlive(e.SSH)
	if e.TCP == nil {
		probe := min(max(e.SSH.Interval/3, time.Second).Truncate(time.Second), maxKeepAlive)
		e.TCP = &KeepAlive{Idle: min(e.SSH.Interval, maxKeepAlive), Interval: probe, Count: int(min((bound-e.SSH.Interval)/probe, 127))}
	}
	kernel := bound
	if takes > bound {
		// Data that was sent just before the peer would have been missed waits
		// as long again.
		kernel = max((bound-e.TCP.Interval)/2, time.Second)
	}
	if tcp != nil {
		kernel = min(kernel, e.UserTimeout)
	}
	e.UserTimeout = min(kernel, maxUserTimeout)
}

// clientAlive returns what this sshd must be told to keep to the keepalives,
// and how long it then takes for a dead peer.
func (b *builder) clientAlive(k *KeepAlive) (*sshdexec.KeepAlive, time.Duration) {
	out := &sshdexec.KeepAlive{Interval: seconds(k.Interval), CountMax: k.Count}
	factor := time.Duration(1)
	if b.features.SlowClientAlive {
		factor = 2
		if out.Interval > 1 {
			out.Interval /= 2
		} else {
			out.CountMax = max(1, (out.CountMax-1)/2)
		}
	}
	return out, factor * secondsOf(out.Interval) * time.Duration(out.CountMax+1)
}
