// Package admission decides which connections a management station keeps before their
// login, when there are more than its limits allow. Package station asks it, and closes
// what it evicts. It reads no clock, closes nothing, and never takes an address for an
// identity: an address that logged in lately has priority, and nothing else.
package admission

import (
	"container/list"
	"iter"
	"maps"
	"net/netip"
	"time"

	"callhome/internal/ratelimit"
)

const (
	// failureWindow is the time in which a network's failed attempts come back.
	failureWindow = time.Minute
	// recentPeriod is how long a source is remembered after a login, once to twice.
	recentPeriod = 24 * time.Hour
	// Peers can cause any number of failures, and only devices a login: the bounds are
	// 10 and 20 MB of memory.
	maxFailures, maxRecent = 1 << 15, 1 << 16
	// history is the number of connections that Set.bad averages over.
	history = 64
)

// refusalLimit is one refusal by a draw a second: a device calls again once a second at
// most.
var refusalLimit = ratelimit.Limit{Burst: 30, Window: 30 * time.Second}

// Limits of unauthenticated connections.
type Limits struct {
	Total     int
	PerSource int // one IPv4 address, or one IPv6 /64
}

// Stage is how far a connection has come.
type Stage int

// The stages, in their order.
const (
	Connected   Stage = iota
	SentVersion       // it has sent an SSH version: any peer can
	Exchanged         // it has proven a host key that the station knows
)

// Set holds the unauthenticated connections. The steps of a method other than All
// do not depend on their number (BenchmarkEnter). The caller locks it.
type Set struct {
	limits Limits

	places    map[*Place]bool
	notRecent int // places of other than recent sources
	groups    map[netip.Prefix]*group
	// overdue are the connections that have used up their time, in that order:
	// of recent sources, and of others. A connection from a source that failed in the
	// last minute has none.
	overdue map[bool]*list.List
	// bad is the fraction of the last connections that failed.
	bad float64

	failures buckets
	// refusals are those of the random early drop, by source. Without a bound, one that
	// comes back at once after each would draw more often than a device that pauses.
	refusals buckets
	recent   memory[bool]
}

// Priority decides which of the waiting connections is served first.
type Priority int

// The priorities, the highest first.
const (
	Recent   Priority = iota // its source logged in lately, and did not fail lately
	Ordinary                 // nothing is known of its source, or both happened
	Suspect                  // its source or network failed lately
)

// Place is the place of one connection. Its zero value stands for no connection.
type Place struct {
	leave    func()
	networks []network
	recent   bool
	failed   bool // its source failed in the last minute or two
	suspect  bool // it failed, or a larger network of it has used up its failed attempts
	stage    Stage
	queue    *list.List    // of its source: silent or versions; nil from Exchanged on
	in       *list.Element // in queue
	late     *list.Element // in overdue; nil if it is not
}

// group holds the connections of a network.
type group struct {
	n int
	// Of a source: those that are silent, and those of stage SentVersion; the oldest
	// first.
	silent, versions list.List
}

// New returns an empty Set.
func New(l Limits) *Set {
	s := &Set{limits: l, places: make(map[*Place]bool), groups: make(map[netip.Prefix]*group), overdue: map[bool]*list.List{false: list.New(), true: list.New()}}
	s.failures.period, s.failures.fits = failureWindow, maxFailures
	s.failures.limit = func(l level) ratelimit.Limit { return ratelimit.Limit{Burst: l.failures, Window: failureWindow} }
	s.refusals.period, s.refusals.fits = refusalLimit.Window, maxFailures
	s.refusals.limit = func(level) ratelimit.Limit { return refusalLimit }
	s.recent.period, s.recent.fits = recentPeriod, maxRecent
	return s
}

// Answer is the decision about a connection.
type Answer struct {
	Place *Place // nil: it has none
	// Evicted, unless nil, closes the connection that was evicted for it; the caller
	// must call it.
	Evicted func()
	// Wait says to ask again, with coin 1, when a place is free or a connection
	// overdue, and to accept no other meanwhile. Otherwise, without a place, Refused
	// says why.
	Wait    bool
	Refused string
}

var refusals = map[verdict]string{
	refuseFailures: "too many failed attempts from this address",
	refuseSource:   "too many unauthenticated connections from this address",
	refuseDraws:    "too many unauthenticated connections, and too many refused ones from this address",
	refuse:         "too many unauthenticated connections",
}

// Enter decides about a new connection from an address, the zero Addr if it is not
// known yet. coin is a random number from 0 to 1. leave closes the connection. The
// caller must call Leave when an admitted connection ends or has logged in.
func (s *Set) Enter(from netip.Addr, now time.Time, coin float64, leave func()) Answer {
	p := &Place{leave: leave, networks: networksOf(from)}
	f, own, late := s.facts(p, now)
	f.coin = coin
	a := Answer{Place: p, Evicted: func() {}}
	switch v := decide(f); v {
	case admit:
	case replaceOwn:
		a.Evicted = own.leave
		s.Leave(own)
	case replace:
		a.Evicted = late.leave
		s.Leave(late)
		s.fail(late.networks, now)
	case wait:
		return Answer{Wait: true}
	case refuse:
		s.refusals.count(p.source(), now)
		fallthrough
	default:
		return Answer{Refused: refusals[v]}
	}
	s.add(p)
	return a
}

// Evict returns the function that closes a connection that is overdue, nil for none, and
// counts it as left.
func (s *Set) Evict(now time.Time) (leave func()) {
	for _, recent := range []bool{false, true} {
		if e := s.overdue[recent].Front(); e != nil {
			late := e.Value.(*Place)
			s.Leave(late)
			s.fail(late.networks, now)
			return late.leave
		}
	}
	return nil
}

// Move counts a connection without an address for the one that its load balancer
// names. Without a place in the answer the connection must end.
func (s *Set) Move(p *Place, to netip.Addr, now time.Time) Answer {
	if !s.places[p] {
		return Answer{Refused: refusals[refuse]}
	}
	s.Leave(p)
	// It has a place, so it neither waits nor is dropped.
	a := s.Enter(to, now, 1, p.leave)
	if a.Wait {
		a.Wait, a.Refused = false, refusals[refuse]
	}
	return a
}

// facts returns what the decision about p rests on, but for the coin; the connection of
// its source that can be evicted for it, and the one that is overdue, if any.
func (s *Set) facts(p *Place, now time.Time) (f facts, own, late *Place) {
	f = facts{perSource: s.limits.PerSource, notRecent: s.notRecent, all: len(s.places), total: s.limits.Total, bad: s.bad}
	f.exhausted, f.drawn = s.failures.exhausted(p.source(), now), s.refusals.exhausted(p.source(), now)
	for i, n := range p.networks {
		g := s.groups[n.Prefix]
		if i > 0 {
			// A device cannot choose its neighbours: their failures only lower its priority.
			p.suspect = p.suspect || s.failures.exhausted([]network{n}, now)
			f.overShare = f.overShare || g.size() >= s.limits.Total/n.level.share
			continue
		}
		_, p.recent = s.recent.get(n.Prefix, now)
		_, p.failed = s.failures.get(n.Prefix, now)
		p.suspect = p.failed
		f.ofSource, own = g.size(), g.evictable()
	}
	if e := s.overdue[false].Front(); e != nil {
		late = e.Value.(*Place)
	} else if e := s.overdue[true].Front(); e != nil && (p.recent || s.notRecent < s.limits.Total-reserved(s.limits.Total)) {
		late = e.Value.(*Place)
	}
	f.recent, f.own, f.overdue = p.recent, own != nil, late != nil
	return f, own, late
}

// Priority returns the priority that the connection had when it got its place.
func (p *Place) Priority() Priority {
	switch {
	case p.recent && !p.failed:
		return Recent
	case p.suspect && !p.recent:
		return Suspect
	}
	return Ordinary
}

// source returns the smallest network of p's address, or none.
func (p *Place) source() []network { return p.networks[:min(1, len(p.networks))] }

func (g *group) size() int {
	if g == nil {
		return 0
	}
	return g.n
}

// evictable returns the connection of a source to evict when the source has too many,
// nil for none: its oldest that is silent, else its oldest with a version if
// that is overdue.
func (g *group) evictable() *Place {
	if g == nil {
		return nil
	}
	if e := g.silent.Front(); e != nil {
		return e.Value.(*Place)
	}
	if e := g.versions.Front(); e != nil && e.Value.(*Place).late != nil {
		return e.Value.(*Place)
	}
	return nil
}

// add counts p, also for its networks.
func (s *Set) add(p *Place) {
	s.places[p] = true
	if !p.recent {
		s.notRecent++
	}
	for _, n := range p.networks {
		g := s.groups[n.Prefix]
		if g == nil {
			g = new(group)
			s.groups[n.Prefix] = g
		}
		g.n++
	}
	if p.suspect && !p.recent {
		s.Overdue(p)
	}
}

// enqueue puts p into a queue of its source.
func (p *Place) enqueue(to *list.List) {
	if p.in != nil {
		p.queue.Remove(p.in)
	}
	p.queue, p.in = to, nil
	if to != nil {
		p.in = to.PushBack(p)
	}
}

// Silent records that a peer has sent nothing for some time. Its connection is evicted
// when its source has too many: one that has just connected is not.
func (s *Set) Silent(p *Place) {
	if s.places[p] && p.stage == Connected && p.in == nil && len(p.networks) > 0 {
		p.enqueue(&s.groups[p.networks[0].Prefix].silent)
	}
}

// Leave stops counting a connection, and reports whether it was still counted, that
// is, not evicted.
func (s *Set) Leave(p *Place) bool {
	if !s.places[p] {
		return false
	}
	delete(s.places, p)
	if !p.recent {
		s.notRecent--
	}
	s.clearOverdue(p)
	p.enqueue(nil)
	for _, n := range p.networks {
		g := s.groups[n.Prefix]
		if g.n--; g.n == 0 {
			delete(s.groups, n.Prefix)
		}
	}
	return true
}

// clearOverdue removes p from the overdue connections.
func (s *Set) clearOverdue(p *Place) {
	if p.late != nil {
		s.overdue[p.recent].Remove(p.late)
		p.late = nil
	}
}

// Reaches records how far a connection has come, and reports whether it is still
// counted.
func (s *Set) Reaches(p *Place, stage Stage) bool {
	if !s.places[p] {
		return false
	}
	p.stage = stage
	switch {
	case stage == SentVersion && len(p.networks) > 0:
		p.enqueue(&s.groups[p.networks[0].Prefix].versions)
	case stage == Exchanged:
		p.enqueue(nil)
		s.clearOverdue(p)
		s.bad -= s.bad / history
	}
	return true
}

// Overdue records that the station has waited for a connection as long as it may
// before the key exchange is done. It is evicted when another needs its place.
func (s *Set) Overdue(p *Place) {
	if s.places[p] && p.stage != Exchanged && p.late == nil {
		p.late = s.overdue[p.recent].PushBack(p)
		s.Silent(p)
	}
}

// Failed counts a failed attempt: a peer that has proven no key that the station
// knows.
func (s *Set) Failed(from netip.Addr, now time.Time) { s.fail(networksOf(from), now) }

func (s *Set) fail(of []network, now time.Time) {
	s.bad += (1 - s.bad) / history
	s.failures.count(of, now)
}

// Remember gives the source of an address priority: a device from there has logged in,
// or was connected until now.
func (s *Set) Remember(from netip.Addr, now time.Time) {
	if n := networksOf(from); n != nil {
		s.recent.put(n[0].Prefix, true, now)
	}
}

// Forget takes the priority from the source of an address.
func (s *Set) Forget(from netip.Addr) {
	if n := networksOf(from); n != nil {
		s.recent.drop(n[0].Prefix)
	}
}

// Len returns the number of connections.
func (s *Set) Len() int { return len(s.places) }

// All returns the functions that close the connections.
func (s *Set) All() iter.Seq[func()] {
	return func(yield func(func()) bool) {
		for p := range maps.Keys(s.places) {
			if !yield(p.leave) {
				return
			}
		}
	}
}
