package station

import "net/netip"

// lobby decides who may wait for a login: how many in total and from one
// source. Those who have not said yet that they speak SSH make room for
// newcomers, the oldest of the source that has the most of them. With nobody
// silent in a full house it is the oldest of the source that has the most
// guests, as long as that has more than one: saying so costs nothing. Whoever is
// logged in stays. It is pure.
type lobby struct {
	total, perSource int

	next    uint64
	guests  map[uint64]*guest
	sources map[netip.Addr]int
}

// guest is one connection.
type guest struct {
	source netip.Addr
	stage  stage
	leave  func() // cuts the connection off
}

// stage is how far a guest has come.
type stage int

const (
	silent stage = iota
	speaking
	loggedIn
)

func newLobby(total, perSource int) *lobby {
	return &lobby{total: total, perSource: perSource, guests: make(map[uint64]*guest), sources: make(map[netip.Addr]int)}
}

// sourceOf is what counts as one source: an IPv4 address, or an IPv6 network as
// one customer gets it.
func sourceOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // 64 bits are possible
		return p.Addr()
	}
	return a
}

// enter takes a connection in, or not. The caller calls evicted, which is nil
// where nobody had to make room.
func (l *lobby) enter(from netip.Addr, leave func()) (id uint64, evicted func(), ok bool) {
	source := sourceOf(from)
	switch {
	case l.sources[source] >= l.perSource:
		evicted = l.evict(silent, func(s netip.Addr) bool { return s == source })
	case len(l.guests) >= l.total:
		if evicted = l.evictOfMost(silent, 1); evicted == nil {
			evicted = l.evictOfMost(speaking, 2)
		}
	default:
		evicted = func() {}
	}
	if evicted == nil {
		return 0, nil, false
	}
	l.next++
	l.guests[l.next] = &guest{source: source, leave: leave}
	l.sources[source]++
	return l.next, evicted, true
}

// evictOfMost evicts one at that stage of the source that has the most of them,
// and at least so many.
func (l *lobby) evictOfMost(at stage, least int) func() {
	counts, most := make(map[netip.Addr]int), least
	for _, g := range l.guests {
		if g.stage == at {
			counts[g.source]++
			most = max(most, counts[g.source])
		}
	}
	return l.evict(at, func(s netip.Addr) bool { return counts[s] == most })
}

// evict forgets the oldest connection at that stage of a source that is meant
// and returns what cuts it off; nil where there is none.
func (l *lobby) evict(at stage, meant func(netip.Addr) bool) func() {
	var oldest uint64
	for id, g := range l.guests {
		if g.stage == at && meant(g.source) && (oldest == 0 || id < oldest) {
			oldest = id
		}
	}
	g := l.guests[oldest]
	if g == nil {
		return nil
	}
	l.exit(oldest)
	return g.leave
}

// move books a connection to the source that its proxy header names. It
// reports whether there is room.
func (l *lobby) move(id uint64, to netip.Addr) bool {
	g, source := l.guests[id], sourceOf(to)
	if g == nil || l.sources[source] >= l.perSource {
		return false
	}
	l.drop(g.source)
	g.source = source
	l.sources[source]++
	return true
}

// reaches says how far a connection has come. It reports whether that is still
// there.
func (l *lobby) reaches(id uint64, s stage) bool {
	g := l.guests[id]
	if g != nil {
		g.stage = s
	}
	return g != nil
}

// exit forgets a connection, which may have been forgotten before.
func (l *lobby) exit(id uint64) {
	if g := l.guests[id]; g != nil {
		delete(l.guests, id)
		l.drop(g.source)
	}
}

func (l *lobby) drop(source netip.Addr) {
	if l.sources[source]--; l.sources[source] == 0 {
		delete(l.sources, source)
	}
}
