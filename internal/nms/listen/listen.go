// Package listen owns the sockets on which a management station accepts call homes:
// one or more addresses of either family, the networks that calls are accepted from,
// and the options that an accepted socket keeps. `callhome-nms accept`, `console
// --listen` and `serve` use it. It never reads from a connection, and a device's
// address decides nothing but --from: a device is recognised by its host key.
package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// DefaultPort is the port that RFC 8071 registers for NETCONF Call Home over SSH.
const DefaultPort = 4334

// The kernel ends an accepted connection 90 s after the device stopped answering,
// with unacknowledged data (userTimeout) or without (keepAlive).
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 6}

const userTimeout = 90 * time.Second

// Listener accepts connections on all its addresses. Its exported fields must be set
// before the first Accept.
type Listener struct {
	// From are the networks that calls are accepted from; empty: all networks.
	From []netip.Prefix
	// Refused, if set, is called with the address of each call from outside From.
	Refused func(from netip.AddrPort)
	// Temporary, if set, is called with each temporary error of accept(2).
	Temporary func(error)
	// Unprepared, if set, is called for each call on which an option cannot be set.
	// Accept returns the call in any case.
	Unprepared func(from netip.AddrPort, err error)
	// Shared says that another process has the sockets open too, as systemd has those
	// that it passes: after Close the kernel still queues calls for it.
	Shared bool

	listeners []*net.TCPListener
	calls     chan *net.TCPConn
	temporary chan error
	failed    chan error
	closed    chan struct{}
	closeOnce sync.Once
	loops     sync.WaitGroup
}

// Open listens on each of addrs: ADDRESS, ADDRESS:PORT, [V6]:PORT, :PORT or
// "" for all addresses of both families on the default port. Names are not
// resolved. An IPv4 address accepts IPv4 alone and an IPv6 address IPv6 alone, so
// 0.0.0.0 and :: can share a port.
func Open(addrs []string) (*Listener, error) {
	if len(addrs) == 0 {
		addrs = []string{""}
	}
	var open []*net.TCPListener
	for _, addr := range addrs {
		l, err := openOne(addr)
		if err != nil {
			for _, l := range open {
				l.Close()
			}
			return nil, err
		}
		open = append(open, l)
	}
	return New(open...), nil
}

func openOne(addr string) (*net.TCPListener, error) {
	network, full, err := parse(addr)
	if err != nil {
		return nil, sysexits.New(sysexits.Usage, "write ADDRESS, ADDRESS:PORT, [V6]:PORT or :PORT", err)
	}
	l, err := (&net.ListenConfig{KeepAliveConfig: keepAlive}).Listen(context.Background(), network, full)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		_, port, _ := net.SplitHostPort(full)
		return nil, sysexits.New(sysexits.Unavailable, "`ss -ltnp sport = :"+port+"` shows it; end it, or use another port with --listen",
			fmt.Errorf("listening on %s: another program has the port", full))
	case errors.Is(err, unix.EACCES):
		return nil, sysexits.New(sysexits.NoPerm, "ports below 1024 need CAP_NET_BIND_SERVICE", fmt.Errorf("listening on %s: not permitted", full))
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return nil, sysexits.New(sysexits.Usage, "`ip address` lists this machine's addresses", fmt.Errorf("listening on %s: not an address of this machine", full))
	case err != nil:
		return nil, fmt.Errorf("listening on %s: %w", full, errors.Unwrap(err))
	}
	return l.(*net.TCPListener), nil
}

// parse completes an address and chooses the network for package net.
func parse(addr string) (network, full string, err error) {
	host, port := addr, strconv.Itoa(DefaultPort)
	if _, err := netip.ParseAddr(addr); err != nil && addr != "" {
		if host, port, err = net.SplitHostPort(addr); err != nil {
			return "", "", fmt.Errorf("%q is not an address to listen on", addr)
		}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "", fmt.Errorf("%q is not a port to listen on", port)
	}
	full = net.JoinHostPort(host, port)
	if host == "" {
		return "tcp", full, nil
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return "", "", fmt.Errorf("%q is not an address to listen on", host)
	case ip.Is4():
		return "tcp4", full, nil
	}
	return "tcp6", full, nil
}

// New returns a Listener on open sockets, such as systemd passes. The Listener owns
// them.
func New(listeners ...*net.TCPListener) *Listener {
	l := &Listener{listeners: listeners, calls: make(chan *net.TCPConn), temporary: make(chan error), failed: make(chan error), closed: make(chan struct{})}
	for _, one := range listeners {
		l.loops.Go(func() { l.loop(one) })
	}
	return l
}

// Addrs are the addresses in use, in the order of Open.
func (l *Listener) Addrs() []netip.AddrPort {
	all := make([]netip.AddrPort, len(l.listeners))
	for i, one := range l.listeners {
		all[i] = addrPort(one.Addr())
	}
	return all
}

// Accept returns the next call from one of the networks in From; the caller owns the
// connection. It returns the context's error, net.ErrClosed after Close, or a
// permanent error of accept(2).
func (l *Listener) Accept(ctx context.Context) (*net.TCPConn, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.closed:
			return nil, net.ErrClosed
		case err := <-l.failed:
			return nil, err
		case err := <-l.temporary:
			if l.Temporary != nil {
				l.Temporary(err)
			}
		case conn := <-l.calls:
			from := addrPort(conn.RemoteAddr())
			if !l.takes(from.Addr()) {
				conn.Close()
				if l.Refused != nil {
					l.Refused(from)
				}
				continue
			}
			if err := prepare(conn); err != nil && l.Unprepared != nil {
				l.Unprepared(from, err)
			}
			return conn, nil
		}
	}
}

func (l *Listener) takes(from netip.Addr) bool {
	for _, network := range l.From {
		if network.Contains(from) {
			return true
		}
	}
	return len(l.From) == 0
}

// Close closes the sockets, and the connections that Accept has not returned.
func (l *Listener) Close() error {
	var errs []error
	l.closeOnce.Do(func() {
		close(l.closed)
		for _, one := range l.listeners {
			errs = append(errs, one.Close())
		}
		l.loops.Wait()
	})
	return errors.Join(errs...)
}

// pause is the time between two tries while the process or the system has no file
// descriptor left.
const pause = 100 * time.Millisecond

func (l *Listener) loop(one *net.TCPListener) {
	for {
		conn, err := one.AcceptTCP()
		switch {
		case err == nil:
			select {
			case l.calls <- conn:
			case <-l.closed:
				conn.Close()
			}
		case errors.Is(err, net.ErrClosed):
			return
		case isTemporary(err):
			select {
			case l.temporary <- fmt.Errorf("accepting calls on %v: %w", one.Addr(), errors.Unwrap(err)):
			default: // no Accept is waiting
			}
			select {
			case <-time.After(pause):
			case <-l.closed:
			}
		default:
			select {
			case l.failed <- fmt.Errorf("accepting calls on %v: %w", one.Addr(), errors.Unwrap(err)):
			case <-l.closed:
			}
			return
		}
	}
}

// isTemporary reports whether a later accept(2) can succeed.
func isTemporary(err error) bool {
	for _, e := range []syscall.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED, unix.EPERM,
		unix.ENETDOWN, unix.EPROTO, unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.ENETUNREACH} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// prepare sets options that an SSH client sets too late or never: without
// TCP_NODELAY, Nagle's algorithm and the delayed ACK add 40 ms to each login. Linux has
// no TCP_USER_TIMEOUT for a call with MPTCP, which a Go listener accepts: there only
// keepalives find that the device is gone.
func prepare(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed []error
	err = raw.Control(func(fd uintptr) {
		for _, o := range []struct {
			name         string
			number, want int
		}{{"TCP_NODELAY", unix.TCP_NODELAY, 1}, {"TCP_USER_TIMEOUT", unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds())}} {
			if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, o.number, o.want); err != nil {
				failed = append(failed, fmt.Errorf("setting %s: %w", o.name, err))
			}
		}
	})
	return errors.Join(append(failed, err)...)
}

// addrPort undoes the IPv4-mapped IPv6 address that a socket for both families
// returns.
func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// ParseNets reads networks as --from takes them: ADDRESS/BITS or ADDRESS.
func ParseNets(values []string) ([]netip.Prefix, error) {
	nets := make([]netip.Prefix, 0, len(values))
	for _, value := range values {
		network, err := netip.ParsePrefix(value)
		if addr, addrErr := netip.ParseAddr(value); err != nil && addrErr == nil && addr.Zone() == "" {
			network, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return nil, sysexits.New(sysexits.Usage, "write ADDRESS/BITS or ADDRESS", fmt.Errorf("%q is not a network", value))
		}
		nets = append(nets, network.Masked())
	}
	return nets, nil
}
