// Package resolve owns the lookup of a NETCONF client's addresses by name. Its
// DNS queries leave from the interface and network namespace of the connection.
// Package connect uses it. It never connects to the NETCONF client.
package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// maxAddrs bounds the addresses that one call home tries. An answer can hold
// thousands, and each would cost a connection attempt.
const maxAddrs = 16

// Lookup returns the addresses of name, in the order of RFC 6724, before the
// deadline: at most maxAddrs, of both families where there are both. Errors carry
// sysexits.NoHost.
func Lookup(name string, o dial.Options, deadline time.Time) ([]netip.Addr, error) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, server string) (net.Conn, error) {
		return query(ctx, network, server, o)
	}}
	addrs, err := r.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil, sysexits.New(sysexits.NoHost, "check the name, /etc/hosts and the name servers in /etc/resolv.conf",
			fmt.Errorf("name %s does not resolve: %s", name, reason(err)))
	}
	return limit(addrs), nil
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

// query connects to a name server, from the source that the connection will have.
func query(ctx context.Context, network, server string, o dial.Options) (conn net.Conn, err error) {
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
