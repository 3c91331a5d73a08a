package claims

import "maps"

// Peers are which incarnations of other stations may still believe their claims, as far
// as the watch of heartbeats shows it.
type Peers struct {
	lease Instant
	// echo is when this station sent the last heartbeat that the watch has shown it,
	// and first is that of the first one since Restart.
	echo, first Instant
	started     bool
	heard       map[string]Instant // incarnation -> when its last heartbeat was received
	over        map[string]bool    // incarnations that have said that they end
}

// NewPeers returns peers with that lease, of which no heartbeat was heard.
func NewPeers(lease Instant) *Peers {
	return &Peers{lease: lease, heard: make(map[string]Instant), over: make(map[string]bool)}
}

// Restart must be called when the watch begins anew: it may have missed heartbeats.
func (p *Peers) Restart() { p.started = false }

// Heard records the receipt of a heartbeat.
func (p *Peers) Heard(incarnation string, now Instant) { p.heard[incarnation] = now }

// Over records that an incarnation does not believe its claims any more.
func (p *Peers) Over(incarnation string) {
	delete(p.heard, incarnation)
	p.over[incarnation] = true
}

// Echo records that the watch has shown this station's own heartbeat.
func (p *Peers) Echo(sent Instant) {
	if !p.started {
		p.started, p.first = true, sent
	}
	p.echo = max(p.echo, sent)
	if p.echo-p.first >= p.lease { // all that is not heard is dead, so it need not be kept
		maps.DeleteFunc(p.heard, func(incarnation string, _ Instant) bool { return !p.Alive(incarnation) })
		clear(p.over)
	}
}

// Alive reports whether an incarnation may still believe its claims. One that was never
// heard may, until the watch has shown a lease's time without it.
func (p *Peers) Alive(incarnation string) bool {
	return !p.over[incarnation] && (!p.started || p.echo-max(p.heard[incarnation], p.first) < p.lease)
}
