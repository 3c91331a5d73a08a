package dial

import (
	"errors"
	"net/netip"
	"time"
)

// attemptDelay is RFC 8305 section 8's recommended Connection Attempt Delay.
const attemptDelay = 250 * time.Millisecond

// Causes of a Failure that the kernel has no errno for.
var (
	ErrTimeout  = errors.New("no answer in time")
	ErrNotTried = errors.New("not tried before the deadline")
	ErrFamily   = errors.New("not of the local address's family")
	// ErrSelf is TCP's simultaneous open with itself: connecting from a port to
	// the same port of the same address succeeds without a listener.
	ErrSelf = errors.New("no listener there, TCP connected the socket to itself")
)

// race decides which address to try when. It is pure: time comes in as an
// argument, sockets are Dial's.
type race struct {
	waiting  []netip.AddrPort // not yet tried, in order
	next     time.Time        // when the next one is due even if none fails
	deadline time.Time
	failures []Failure
	local    netip.Addr     // the source address; invalid: any
	last     netip.AddrPort // the one started last
}

func newRace(addrs []netip.AddrPort, local netip.Addr, deadline time.Time) *race {
	r := &race{deadline: deadline, local: local}
	r.add(addrs)
	return r
}

// add puts more addresses among the waiting ones. The families alternate, also
// with the address that was started last (RFC 8305 section 5).
func (r *race) add(addrs []netip.AddrPort) {
	all := interleave(append(r.waiting, addrs...))
	if r.last.IsValid() {
		all = interleave(append([]netip.AddrPort{r.last}, all...))[1:]
	}
	r.waiting = nil
	for _, a := range all {
		if r.local.IsValid() && r.local.Unmap().Is4() != a.Addr().Is4() {
			r.failures = append(r.failures, Failure{a, ErrFamily})
			continue
		}
		r.waiting = append(r.waiting, a)
	}
}

// interleave alternates the families, beginning with that of the first
// address and keeping each family's own order (RFC 8305 section 4). Addresses
// that stand twice are tried once.
func interleave(addrs []netip.AddrPort) []netip.AddrPort {
	var first, second []netip.AddrPort
	seen := make(map[netip.AddrPort]bool, len(addrs))
	for _, a := range addrs {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		switch {
		case seen[a]:
		case len(first) == 0 || a.Addr().Is4() == first[0].Addr().Is4():
			first = append(first, a)
		default:
			second = append(second, a)
		}
		seen[a] = true
	}
	out := make([]netip.AddrPort, 0, len(first)+len(second))
	for i := 0; i < len(first) || i < len(second); i++ {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out
}

// due returns the address to start now, with inFlight others under way.
func (r *race) due(now time.Time, inFlight int) (netip.AddrPort, bool) {
	if len(r.waiting) == 0 || inFlight > 0 && now.Before(r.next) {
		return netip.AddrPort{}, false
	}
	a := r.waiting[0]
	r.waiting, r.last = r.waiting[1:], a
	r.next = now.Add(attemptDelay)
	return a, true
}

// failed records that an address failed; the next one is due at once.
func (r *race) failed(now time.Time, a netip.AddrPort, err error) {
	r.failures = append(r.failures, Failure{a, err})
	r.next = now
}

// over reports whether the race has ended: no address is left and none can follow,
// or no time is left.
func (r *race) over(now time.Time, inFlight int, more bool) bool {
	return !now.Before(r.deadline) || inFlight == 0 && len(r.waiting) == 0 && !more
}

// wait returns the time until the next decision.
func (r *race) wait(now time.Time) time.Duration {
	until := r.deadline
	if len(r.waiting) > 0 && r.next.Before(until) {
		until = r.next
	}
	return until.Sub(now)
}

func (r *race) err() error {
	failures := r.failures
	for _, a := range r.waiting {
		failures = append(failures, Failure{a, ErrNotTried})
	}
	return &Error{failures}
}
