package admission

import (
	"net/netip"
	"time"

	"callhome/internal/ratelimit"
)

// level is a size of network whose addresses count together. One customer gets an
// IPv6 /64, /56 or /48; of IPv4 one address, or as a small hoster a /24.
type level struct {
	bits int
	// share is the part of all places, 1/share, that the network gets while more than
	// half are taken; 0: Limits.PerSource alone bounds it, at all times.
	share int
	// failures are the failed attempts that it may make at once, and in a minute.
	failures int
}

var (
	levels4 = []level{{32, 0, 10}, {24, 4, 160}}
	levels6 = []level{{64, 0, 10}, {56, 8, 40}, {48, 4, 160}}
)

// network is one network that a connection counts for, with its level.
type network struct {
	netip.Prefix
	level level
}

// networksOf returns the networks of an address, the smallest first: that is the
// source. The zero Addr has none.
func networksOf(a netip.Addr) []network {
	a = a.Unmap().WithZone("")
	levels := levels4
	switch {
	case !a.IsValid():
		return nil
	case a.Is6():
		levels = levels6
	}
	out := make([]network, len(levels))
	for i, l := range levels {
		p, _ := a.Prefix(l.bits) // the lengths are possible
		out[i] = network{p, l}
	}
	return out
}

// memory keeps values for one to two periods after they were last put, and at most
// twice as many as fit: when there are more, it drops the older half early.
type memory[V any] struct {
	period     time.Duration
	fits       int
	since      time.Time
	young, old map[netip.Prefix]V
}

func (m *memory[V]) get(p netip.Prefix, now time.Time) (V, bool) {
	m.turn(now)
	v, ok := m.young[p]
	if !ok {
		v, ok = m.old[p]
	}
	return v, ok
}

func (m *memory[V]) put(p netip.Prefix, v V, now time.Time) {
	m.turn(now)
	m.young[p] = v
}

func (m *memory[V]) drop(p netip.Prefix) {
	delete(m.young, p)
	delete(m.old, p)
}

func (m *memory[V]) turn(now time.Time) {
	switch past := now.Sub(m.since); {
	case m.young == nil || past >= 2*m.period:
		m.old, m.young, m.since = nil, make(map[netip.Prefix]V), now
	case past >= m.period || len(m.young) >= m.fits:
		m.old, m.young, m.since = m.young, make(map[netip.Prefix]V), now
	}
}

// buckets limit something that networks do, a token bucket for each.
type buckets struct {
	memory[*ratelimit.Limit]
	limit func(level) ratelimit.Limit
}

// exhausted reports whether the bucket of one of the networks is empty.
func (b *buckets) exhausted(of []network, now time.Time) bool {
	for _, n := range of {
		if l, ok := b.get(n.Prefix, now); ok && l.Wait(now) > 0 {
			return true
		}
	}
	return false
}

// count takes a token from the bucket of each network.
func (b *buckets) count(of []network, now time.Time) {
	for _, n := range of {
		l, ok := b.get(n.Prefix, now)
		if !ok {
			fresh := b.limit(n.level)
			l = &fresh
		}
		l.Allow(now)
		b.put(n.Prefix, l, now)
	}
}
