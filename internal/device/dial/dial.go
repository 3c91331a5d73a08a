// Package dial owns one outbound TCP connection until it is established: the
// race between the addresses of a host (RFC 8305), the source address, and the
// socket options. Packages connect and resolve use it. It never resolves a
// name, and never reads or writes a byte.
//
// It uses sockets and poll(2) instead of package net: a goroutine and the
// netpoller cost the trigger start-up time, and each address that failed keeps
// its errno.
package dial

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options is the source policy of a connection and the options of its socket.
// The zero value leaves everything to the kernel.
type Options struct {
	LocalAddress netip.Addr // invalid: the kernel chooses
	LocalPort    uint16     // 0: the kernel chooses; set with SO_REUSEADDR
	Interface    string     // SO_BINDTODEVICE; also the name of a VRF
	Netns        string     // file of the network namespace the socket is made in
	KeepAlive    KeepAlive
	UserTimeout  time.Duration // TCP_USER_TIMEOUT, tcp(7); 0: the kernel's own
	DSCP         *int          // 0 to 63; nil: not set
}

// KeepAlive is TCP's own test for a dead peer (tcp(7): TCP_KEEPIDLE,
// TCP_KEEPINTVL in seconds, TCP_KEEPCNT). The zero value is no keepalive.
type KeepAlive struct {
	Idle, Interval, Count int
}

// Conn is an established connection.
type Conn struct {
	// File is the socket: connected, blocking, close-on-exec, with nothing
	// read from it. The owner of the Conn owns it.
	File *os.File
	// Remote is the address that answered, Local the one the kernel chose.
	Remote, Local netip.AddrPort
}

// Error reports that no address answered. Failures are in the order in which
// the addresses failed.
type Error struct {
	Failures []Failure
}

// Failure is one address and why it did not answer. Err is a unix.Errno, or
// one of the errors of this package.
type Failure struct {
	Addr netip.AddrPort
	Err  error
}

// maxError bounds the text of an Error, in bytes: it is the cause of a failed call
// home in logs, events and states.
const maxError = 768

func (e *Error) Error() string {
	var b strings.Builder
	for i, f := range e.Failures {
		text := fmt.Sprintf("%v: %v", f.Addr, f.Err)
		if i > 0 && b.Len()+len(text) > maxError {
			fmt.Fprintf(&b, "; and %d more", len(e.Failures)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(text)
	}
	return b.String()
}

// Unwrap gives errors.Is every cause.
func (e *Error) Unwrap() []error {
	errs := make([]error, len(e.Failures))
	for i, f := range e.Failures {
		errs[i] = f.Err
	}
	return errs
}

// Late passes addresses that a name server had not answered yet when the race
// began; open is false when no more can follow. It does not block.
type Late func() (addrs []netip.AddrPort, open bool)

// lateCheck is how often Late is asked while it is open.
const lateCheck = 10 * time.Millisecond

// Dial connects to the first of addrs that answers before the deadline; late, which
// may be nil, adds to them. It starts in the addresses' own order, families
// alternating, a new address every attemptDelay or as soon as one has failed (RFC 8305
// sections 4 and 5).
// The caller owns the connection. An error is an *Error, but for the failures
// of this machine (no such interface or namespace, no permission), which end
// the race at once and come as they are.
func Dial(addrs []netip.AddrPort, late Late, o Options, deadline time.Time) (*Conn, error) {
	r := newRace(addrs, o.LocalAddress, deadline)
	var pending []attempt
	defer func() { closeAll(pending) }()
	for {
		if late != nil {
			more, open := late()
			r.add(more)
			if !open {
				late = nil
			}
		}
		now := time.Now()
		if r.over(now, len(pending), late != nil) {
			for _, p := range pending {
				r.failed(now, p.addr, ErrTimeout)
			}
			return nil, r.err()
		}
		if addr, ok := r.due(now, len(pending)); ok {
			a, err := start(addr, o)
			if isLocal(err) {
				return nil, err
			}
			if err != nil {
				r.failed(now, addr, err)
			} else {
				pending = append(pending, a)
			}
			continue
		}
		wait := r.wait(now)
		if late != nil {
			wait = min(wait, lateCheck)
		}
		ready, err := await(pending, wait)
		if err != nil {
			return nil, err
		}
		for i := len(pending) - 1; i >= 0; i-- {
			if !ready[i] {
				continue
			}
			a := pending[i]
			pending = append(pending[:i], pending[i+1:]...)
			err := a.result()
			if err == nil {
				return a.finish()
			}
			unix.Close(a.fd)
			r.failed(time.Now(), a.addr, err)
		}
	}
}

// FromSocket returns a Conn for a socket that another program connected. It
// fails if sock is not a connected TCP socket. On error the caller keeps sock; on
// success the Conn owns it.
func FromSocket(sock *os.File) (*Conn, error) {
	fd := int(sock.Fd())
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil || protocol != unix.IPPROTO_TCP {
		return nil, errors.New("what was handed over is not a TCP socket")
	}
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return nil, errors.New("the socket that was handed over is not connected")
	}
	c := &Conn{File: sock, Remote: addrPort(peer)}
	if own, err := unix.Getsockname(fd); err == nil {
		c.Local = addrPort(own)
	}
	if c.Local == c.Remote {
		return nil, errors.New("the socket that was handed over is connected to itself")
	}
	// That the peer has closed is for sshd to report.
	if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && info.State != unix.BPF_TCP_ESTABLISHED && info.State != unix.BPF_TCP_CLOSE_WAIT {
		return nil, errors.New("the socket that was handed over is shut down")
	}
	// The program that connected may have set SO_LINGER, and close(2) would block.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{}); err != nil {
		return nil, fmt.Errorf("taking over the socket: %w", err)
	}
	return c, nil
}

func closeAll(pending []attempt) {
	for _, a := range pending {
		unix.Close(a.fd)
	}
}
