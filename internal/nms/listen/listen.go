// Package listen owns the sockets on which a management station waits for call
// homes: one or more addresses of either family, from where calls are taken,
// and the options that an accepted socket keeps for life. `callhome-nms accept`,
// `console --listen` and `serve` use it. It reads no byte of a call, and what it
// knows of a caller's address decides nothing but --from: a device is
// recognised by its key.
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

// DefaultPort is the one that RFC 8071 has registered for SSH.
const DefaultPort = 4334

// What an accepted socket gets: a dead device is noticed within 90 s, whether
// there is data under way (userTimeout) or not (keepAlive).
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 6}

const userTimeout = 90 * time.Second

// Listener waits on all its addresses at once. Close it to give them back.
type Listener struct {
	// From are the networks that calls are taken from; empty: from everywhere.
	From []netip.Prefix
	// Refused, if set, is told of each call from elsewhere.
	Refused func(from netip.AddrPort)
	// Passed, if set, is told of each time a call could not be accepted that may
	// be accepted later. The fields are set before the first Accept.
	Passed func(error)

	listeners []*net.TCPListener
	calls     chan *net.TCPConn
	passed    chan error
	failed    chan error
	closed    chan struct{}
	closeOnce sync.Once
	loops     sync.WaitGroup
}

// Open listens on each of addrs: ADDRESS, ADDRESS:PORT, [V6]:PORT, :PORT or
// "" for all addresses of both families on the default port. Names are not
// resolved. An IPv4 address takes IPv4 calls alone and an IPv6 address IPv6
// alone, so 0.0.0.0 and :: go together.
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
		return nil, sysexits.New(sysexits.Unavailable, "`ss -ltnp sport = :"+port+"` shows who; use another with --listen, or end it",
			fmt.Errorf("listening on %s: another program has the port", full))
	case errors.Is(err, unix.EACCES):
		return nil, sysexits.New(sysexits.NoPerm, "ports below 1024 need CAP_NET_BIND_SERVICE", fmt.Errorf("listening on %s: not permitted", full))
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return nil, sysexits.New(sysexits.Usage, "`ip address` lists this machine's", fmt.Errorf("listening on %s: no address of this machine", full))
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
		return "", "", fmt.Errorf("%q is no port to listen on", port)
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

// New returns a Listener on sockets that somebody else opened (systemd), which
// it owns then.
func New(listeners ...*net.TCPListener) *Listener {
	l := &Listener{listeners: listeners, calls: make(chan *net.TCPConn), passed: make(chan error), failed: make(chan error), closed: make(chan struct{})}
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

// Accept returns the next call from one of the networks in From; it is the
// caller's. It ends with the context's error, with net.ErrClosed after Close,
// and with an error of the operating system that waiting does not mend.
func (l *Listener) Accept(ctx context.Context) (*net.TCPConn, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.closed:
			return nil, net.ErrClosed
		case err := <-l.failed:
			return nil, err
		case err := <-l.passed:
			if l.Passed != nil {
				l.Passed(err)
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
			if err := prepare(conn); err != nil {
				conn.Close() // it ended between accept and here
				continue
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

// Close gives the addresses back. Calls that nobody accepted are closed.
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

// pause is the wait when the process or the system has no descriptor to spare.
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
		case isPassing(err):
			select {
			case l.passed <- fmt.Errorf("accepting calls on %v: %w", one.Addr(), errors.Unwrap(err)):
			default: // nobody accepts
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

// isPassing reports whether accept(2) may succeed later.
func isPassing(err error) bool {
	for _, e := range []syscall.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED, unix.EPERM,
		unix.ENETDOWN, unix.EPROTO, unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.ENETUNREACH} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// prepare sets what no SSH client sets early enough: without TCP_NODELAY 40 ms
// of each login are lost to Nagle's algorithm against the delayed ACK.
func prepare(conn *net.TCPConn) error {
	if err := conn.SetNoDelay(true); err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
	return errors.Join(err, set)
}

// addrPort is an address without the IPv4-in-IPv6 form that a socket for both
// families shows.
func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// ParseNets reads networks as --from takes them: ADDRESS/BITS or ADDRESS.
func ParseNets(words []string) ([]netip.Prefix, error) {
	nets := make([]netip.Prefix, 0, len(words))
	for _, word := range words {
		network, err := netip.ParsePrefix(word)
		if addr, addrErr := netip.ParseAddr(word); err != nil && addrErr == nil && addr.Zone() == "" {
			network, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return nil, sysexits.New(sysexits.Usage, "write ADDRESS/BITS or ADDRESS", fmt.Errorf("%q is no network", word))
		}
		nets = append(nets, network.Masked())
	}
	return nets, nil
}
