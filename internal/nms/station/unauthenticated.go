package station

import "net/netip"

// unauthenticated counts the connections before their login, at most total of them,
// and perSource from one source. Above a limit it evicts a connection that has not
// sent an SSH version: the oldest of the source that has the most of these. Where
// all have sent one, it evicts the oldest of the source that has the most
// connections, if it has more than one: any peer can send a version. It is pure;
// the station calls it with mu held.
type unauthenticated struct {
	total, perSource int

	next    uint64
	pending map[uint64]*pending
	sources map[netip.Addr]int
}

// pending is one connection.
type pending struct {
	source netip.Addr
	stage  stage
	leave  func() // closes the connection
}

// stage is how far a connection has come.
type stage int

const (
	silent stage = iota
	sentVersion
	loggedIn
)

func newUnauthenticated(total, perSource int) *unauthenticated {
	return &unauthenticated{total: total, perSource: perSource, pending: make(map[uint64]*pending), sources: make(map[netip.Addr]int)}
}

// sourceOf returns what counts as one source: an IPv4 address, or an IPv6 /64,
// which one customer gets.
func sourceOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // 64 bits are possible
		return p.Addr()
	}
	return a
}

// enter counts a connection, unless there are too many. The caller must call
// evicted, which closes the connection that was evicted for it, if any.
func (l *unauthenticated) enter(from netip.Addr, leave func()) (id uint64, evicted func(), ok bool) {
	source := sourceOf(from)
	switch {
	case l.sources[source] >= l.perSource:
		evicted = l.evict(silent, func(s netip.Addr) bool { return s == source })
	case len(l.pending) >= l.total:
		if evicted = l.evictOfMost(silent, 1); evicted == nil {
			evicted = l.evictOfMost(sentVersion, 2)
		}
	default:
		evicted = func() {}
	}
	if evicted == nil {
		return 0, nil, false
	}
	l.next++
	l.pending[l.next] = &pending{source: source, leave: leave}
	l.sources[source]++
	return l.next, evicted, true
}

// evictOfMost evicts a connection at that stage from the source that has the most
// of these, if it has at least that many.
func (l *unauthenticated) evictOfMost(at stage, least int) func() {
	counts, most := make(map[netip.Addr]int), least
	for _, g := range l.pending {
		if g.stage == at {
			counts[g.source]++
			most = max(most, counts[g.source])
		}
	}
	return l.evict(at, func(s netip.Addr) bool { return counts[s] == most })
}

// evict stops counting the oldest connection at that stage from a source that
// matches, and returns the function that closes it; nil if none does.
func (l *unauthenticated) evict(at stage, matches func(netip.Addr) bool) func() {
	var oldest uint64
	for id, g := range l.pending {
		if g.stage == at && matches(g.source) && (oldest == 0 || id < oldest) {
			oldest = id
		}
	}
	g := l.pending[oldest]
	if g == nil {
		return nil
	}
	l.exit(oldest)
	return g.leave
}

// move counts a connection for the source that its PROXY header names. It reports
// whether that source is within its limit.
func (l *unauthenticated) move(id uint64, to netip.Addr) bool {
	g, source := l.pending[id], sourceOf(to)
	if g == nil || l.sources[source] >= l.perSource {
		return false
	}
	l.drop(g.source)
	g.source = source
	l.sources[source]++
	return true
}

// reaches records how far a connection has come, and reports whether it is still
// counted, that is, not evicted.
func (l *unauthenticated) reaches(id uint64, s stage) bool {
	g := l.pending[id]
	if g != nil {
		g.stage = s
	}
	return g != nil
}

// exit stops counting a connection, if it is still counted.
func (l *unauthenticated) exit(id uint64) {
	if g := l.pending[id]; g != nil {
		delete(l.pending, id)
		l.drop(g.source)
	}
}

func (l *unauthenticated) drop(source netip.Addr) {
	if l.sources[source]--; l.sources[source] == 0 {
		delete(l.sources, source)
	}
}
