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

// Lookup returns all addresses of name, in the order of RFC 6724, before the
// deadline. Errors carry sysexits.NoHost.
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
	return addrs, nil
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
