package claims

// Peers are which incarnations of other stations may still believe their claims, as far
// as the watch of heartbeats shows it.
type Peers struct {
	lease Instant
	// echo is when this station sent the last heartbeat that the watch has shown it,
	// and first is that of the first one since Restart.
	echo, first Instant
	started     bool
	heard       map[string]Instant // incarnation -> when its last heartbeat was received
	// over are incarnations that have ended or died. They never believe again: a station
	// whose lease has lapsed begins a new one.
	over map[string]bool
}

// NewPeers returns peers with that lease, of which no heartbeat was heard.
func NewPeers(lease Instant) *Peers {
	return &Peers{lease: lease, heard: make(map[string]Instant), over: make(map[string]bool)}
}

// Restart must be called when the watch begins anew: it may have missed heartbeats.
func (p *Peers) Restart() { p.started = false }

// Heard records the receipt of a heartbeat.
func (p *Peers) Heard(incarnation string, now Instant) { p.heard[incarnation] = now }

// Noticed records that there is a claim of an incarnation. Its first heartbeat was written
// before that, and the watch of heartbeats may be behind that of claims.
func (p *Peers) Noticed(incarnation string, now Instant) {
	if _, ok := p.heard[incarnation]; !ok && !p.over[incarnation] {
		p.heard[incarnation] = now
	}
}

// Over records that an incarnation has ended, or was found dead.
func (p *Peers) Over(incarnation string) {
	delete(p.heard, incarnation)
	p.over[incarnation] = true
}

// Echo records that the watch has shown this station's own heartbeat, and the last one of
// each other station from before it.
func (p *Peers) Echo(sent Instant) {
	if !p.started {
		p.started, p.first = true, sent
	}
	p.echo = max(p.echo, sent)
	for incarnation := range p.heard {
		if !p.Alive(incarnation) {
			p.Over(incarnation)
		}
	}
}

// Alive reports whether an incarnation may still believe its claims. One that was noticed
// and never heard may, until the watch has shown a lease's time without it.
func (p *Peers) Alive(incarnation string) bool {
	return !p.over[incarnation] && (!p.started || p.echo-max(p.heard[incarnation], p.first) < p.lease)
}
