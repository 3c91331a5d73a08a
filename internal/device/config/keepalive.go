package config

import (
	"time"

	"callhome/internal/sshdexec"
)

// defaultKeepAlive has the model's defaults. RFC 8071 section 4.1 requires keepalives
// on every persistent connection.
var defaultKeepAlive = KeepAlive{Interval: 30 * time.Second, Count: 3}

// Limits of the kernel for keepalives (tcp(7)), and ours for TCP_USER_TIMEOUT.
const (
	maxKeepAlive   = 32767 * time.Second
	maxUserTimeout = 24 * time.Hour
)

// keepalives sets how a dead peer is detected. The SSH keepalives set the limit: a
// dead peer is given up after Interval × (Count + 1). The kernel's keepalives are
// the fallback, and the primary means where sshd is too slow.
func (b *builder) keepalives(e *Endpoint, tcp, ssh *node, persistent bool) {
	if tcp != nil {
		e.TCP = &KeepAlive{Idle: secondsOf(tcp.num("idle-time")), Interval: secondsOf(tcp.num("probe-interval")), Count: tcp.num("max-probes")}
		e.UserTimeout = min(e.TCP.Idle+time.Duration(e.TCP.Count)*e.TCP.Interval, maxUserTimeout)
	}
	switch {
	case ssh != nil:
		e.SSH = &KeepAlive{Interval: secondsOf(ssh.num("max-wait")), Count: ssh.num("max-attempts")}
	case persistent:
		keepalive := defaultKeepAlive
		e.SSH = &keepalive
	default:
		return
	}
	bound := e.SSH.Interval*time.Duration(e.SSH.Count+1) + time.Second
	var sshdTakes time.Duration
	e.ClientAlive, sshdTakes = b.clientAlive(e.SSH)
	if e.TCP == nil {
		probe := min(max(e.SSH.Interval/3, time.Second).Truncate(time.Second), maxKeepAlive)
		e.TCP = &KeepAlive{Idle: min(e.SSH.Interval, maxKeepAlive), Interval: probe, Count: int(min((bound-e.SSH.Interval)/probe, 127))}
	}
	kernel := bound
	if sshdTakes > bound {
		// Data sent just before a probe would detect the dead peer waits a whole
		// timeout again, so each may take only half of the bound.
		kernel = max((bound-e.TCP.Interval)/2, time.Second)
	}
	if tcp != nil {
		kernel = min(kernel, e.UserTimeout)
	}
	e.UserTimeout = min(kernel, maxUserTimeout)
}

// clientAlive returns the ClientAlive settings with which this sshd keeps the limit,
// and the time in which it then detects a dead peer.
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
