// Package resolve owns the lookup of a NETCONF client's addresses by name. Its
// DNS queries leave from the interface and network namespace of the connection.
// Package connect uses it. It never connects to the NETCONF client.
//
// Package net speaks DNS. What it lacks for a call home is here: each family by
// itself, so that a name server that drops one family's queries does not hold up
// the other (RFC 8305 section 3), and a second name server before the first has
// used up the time.
package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// maxAddrs bounds the addresses that one call home tries. An answer can hold
// thousands, and each would cost a connection attempt.
const maxAddrs = 16

// resolutionDelay is RFC 8305 section 8's: for so long IPv4 addresses wait for
// IPv6 addresses.
const resolutionDelay = 50 * time.Millisecond

// Lookup returns the addresses of name, in the order of RFC 6724, at most maxAddrs,
// of both families where there are both. late has those of a family whose answer
// came later, at most once; it is closed when no more can follow. Queries end with
// ctx, which the caller cancels. Errors carry sysexits.NoHost.
func Lookup(ctx context.Context, name string, o dial.Options) (first []netip.Addr, late <-chan []netip.Addr, err error) {
	if known := static(ctx, name); len(known) > 0 {
		return limit(known), nothing(), nil
	}
	l := lookup{systemResolvConf(), func(ctx context.Context, server string, of family, fqdn string) ([]netip.Addr, error) {
		return through(server, o).LookupNetIP(ctx, string(of), fqdn)
	}, func(a netip.Addr) netip.Addr { return source(ctx, a, o) }}
	first, late, err = l.name(ctx, name)
	if err != nil {
		return nil, nil, sysexits.New(sysexits.NoHost, "check the name, /etc/hosts and the name servers in /etc/resolv.conf",
			fmt.Errorf("name %s does not resolve: %w", name, err))
	}
	return first, late, nil
}

func nothing() <-chan []netip.Addr {
	c := make(chan []netip.Addr)
	close(c)
	return c
}

// static returns the addresses of name without a query: of an address, and of a
// name in /etc/hosts.
func static(ctx context.Context, name string) []netip.Addr {
	r := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, unix.EHOSTUNREACH }}
	addrs, _ := r.LookupNetIP(ctx, "ip", name)
	return addrs
}

// lookup has what a lookup depends on.
type lookup struct {
	conf resolvConf
	ask  ask
	// source returns the source address for a destination; invalid: it has no source.
	source func(netip.Addr) netip.Addr
}

// name looks up the first of the names that name can be in full.
func (l *lookup) name(ctx context.Context, name string) (first []netip.Addr, late <-chan []netip.Addr, err error) {
	for _, fqdn := range l.conf.names(name) {
		var failed error
		if first, late, failed = l.both(ctx, fqdn); failed == nil {
			return first, late, nil
		}
		// The error of the name as given says more than that of another search domain.
		if err == nil || fqdn == name+"." || !isNoName(failed) {
			err = failed
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, nil, err
}

// found is one family's result.
type found struct {
	addrs []netip.Addr
	err   error
}

// both looks up the addresses of both families side by side.
func (l *lookup) both(ctx context.Context, fqdn string) (first []netip.Addr, late <-chan []netip.Addr, err error) {
	start := func(of family) <-chan found {
		c := make(chan found, 1)
		go func() {
			addrs, err := query(ctx, l.ask, l.conf.servers, of, fqdn)
			c <- found{addrs, err}
		}()
		return c
	}
	c4, c6 := start(ip4), start(ip6)
	var v4, v6 *found
	var delay <-chan time.Time
	for over := false; !enough(v4, v6, over); {
		select {
		case f := <-c4:
			v4, delay = &f, time.After(resolutionDelay)
		case f := <-c6:
			v6 = &f
		case <-delay:
			over = true
		}
	}
	switch {
	case v4 == nil:
		first, late = l.part(v6.addrs, c4)
	case v6 == nil:
		first, late = l.part(v4.addrs, c6)
	case v4.err != nil && v6.err != nil:
		return nil, nil, failure{v4.err, v6.err}
	default:
		first, late = limit(l.sorted(v4.addrs, v6.addrs)), nothing()
	}
	return first, late, nil
}

// enough reports whether the race can start: with IPv6 addresses at once, with
// IPv4 addresses when IPv6 has answered or had its time (RFC 8305 section 3).
func enough(v4, v6 *found, over bool) bool {
	switch {
	case v4 != nil && v6 != nil:
		return true
	case v6 != nil:
		return v6.err == nil
	case v4 != nil:
		return v4.err == nil && over
	}
	return false
}

// part returns a half of the places for the family that answered; the other
// family, and what it leaves of its half, come late.
func (l *lookup) part(have []netip.Addr, other <-chan found) (first []netip.Addr, late <-chan []netip.Addr) {
	first = have[:min(len(have), maxAddrs/2)]
	c := make(chan []netip.Addr, 1)
	go func() {
		defer close(c)
		more := (<-other).addrs
		rest := slices.DeleteFunc(limit(slices.Concat(have, more)), func(a netip.Addr) bool { return slices.Contains(first, a) })
		if len(rest) > 0 {
			c <- rest
		}
	}()
	return first, c
}

// sorted puts the family first that RFC 6724 section 6 prefers, by rules 1, 5 and
// 6: IPv6, but where this machine has no source address for it, or one of the two
// addresses is a unique local one. Within a family the order is package net's.
func (l *lookup) sorted(v4, v6 []netip.Addr) []netip.Addr {
	if len(v4) > 0 && len(v6) > 0 {
		if from := l.source(v6[0]); !from.IsValid() || from.IsPrivate() || v6[0].IsPrivate() {
			return slices.Concat(v4, v6)
		}
	}
	return slices.Concat(v6, v4)
}

// limit returns the first addresses of each family, maxAddrs in all: each family
// has half of them, and what the other leaves.
func limit(addrs []netip.Addr) []netip.Addr {
	if len(addrs) <= maxAddrs {
		return addrs
	}
	left := map[bool]int{} // of each family, by whether it is IPv6
	for _, a := range addrs {
		left[a.Is6()]++
	}
	v6 := min(left[true], max(maxAddrs/2, maxAddrs-left[false]))
	left[true], left[false] = v6, min(left[false], maxAddrs-v6)
	out := make([]netip.Addr, 0, maxAddrs)
	for _, a := range addrs {
		if left[a.Is6()] > 0 {
			left[a.Is6()]--
			out = append(out, a)
		}
	}
	return out
}

// through returns a resolver that asks one name server, from the source that the
// connection will have. "" asks the one that package net chooses.
func through(server string, o dial.Options) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, chosen string) (net.Conn, error) {
		if server != "" {
			chosen = net.JoinHostPort(server, "53")
		}
		return connect(ctx, network, chosen, o)
	}}
}

// source returns the source address of a connection to a; it sends nothing.
func source(ctx context.Context, a netip.Addr, o dial.Options) netip.Addr {
	const discard = 9
	c, err := connect(ctx, "udp", netip.AddrPortFrom(a, discard).String(), o)
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	from, _ := netip.ParseAddrPort(c.LocalAddr().String())
	return from.Addr()
}

// connect connects to a name server, from the source that the connection will have.
func connect(ctx context.Context, network, server string, o dial.Options) (conn net.Conn, err error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if o.Interface == "" {
			return nil
		}
		ctl := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), o.Interface) })
		return errors.Join(ctl, err)
	}}
	// A name server is an address, so the dialer makes its socket on this very
	// thread.
	err = dial.InNetns(o.Netns, func() error {
		conn, err = d.DialContext(ctx, network, server)
		return err
	})
	return conn, err
}

// failure has the error of each family.
type failure struct{ v4, v6 error }

func (f failure) Error() string {
	v4, v6 := reason(f.v4), reason(f.v6)
	if v4 == v6 {
		return v4
	}
	return "IPv4: " + v4 + "; IPv6: " + v6
}

// isNoName reports whether both families say that there is no such name.
func isNoName(err error) bool {
	var f failure
	return errors.As(err, &f) && notFound(f.v4) && notFound(f.v6)
}

// reason returns the resolver's error without the name, which Lookup adds.
func reason(err error) string {
	var dns *net.DNSError
	switch {
	case !errors.As(err, &dns):
		return err.Error()
	case dns.IsTimeout:
		return "no answer from the name servers in time"
	case dns.IsNotFound:
		return "no such host"
	}
	return dns.Err
}
