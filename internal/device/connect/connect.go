// Package connect owns the steps from a configured host to a connected socket:
// name resolution, the race between the addresses, a proxy, and retries. The
// trigger and the manager use it, so that both connect in the same way. It never
// hands a socket over and never logs.
package connect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/device/proxy"
	"callhome/internal/device/resolve"
	"callhome/internal/device/settings"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// To connects to s.Target, through the proxy if s has one: s.Attempts attempts,
// each bounded by s.ConnectTimeout. With s.Announce it then announces the
// device. The caller owns the connection.
// An error carries its exit status: sysexits.NoHost for a name that does not
// resolve, sysexits.Unavailable if no address answered.
func To(s *settings.Call) (conn *dial.Conn, err error) {
	auth, err := proxy.ReadCredentials(s.Proxy.Credentials)
	if err != nil {
		return nil, err
	}
	for n := 0; n < s.Attempts; n++ {
		if n > 0 {
			time.Sleep(s.RetryWait)
		}
		if conn, err = attempt(s, auth); err == nil || !worthRetry(err) {
			break
		}
	}
	if err == nil && s.Announce {
		if err = announce(conn, s); err != nil {
			conn.File.Close()
			return nil, err
		}
	}
	return conn, err
}

// announce names the device to the NETCONF client: in lines before the SSH
// version string (RFC 4253 section 4.2), in the form of Junos outbound-ssh. The
// program that connects announces; a manager that takes over the socket does not.
func announce(conn *dial.Conn, s *settings.Call) error {
	lines := "MSG-ID: DEVICE-CONN-INFO\r\nMSG-VER: V1\r\nDEVICE-ID: " + s.DeviceID + "\r\n"
	if s.Opaque != "" {
		lines += "OPAQUE: " + sshdexec.EncodeOpaque(s.Opaque) + "\r\n"
	}
	if _, err := conn.File.WriteString(lines); err != nil {
		return sysexits.New(sysexits.Unavailable, "see why the NETCONF client closes connections", fmt.Errorf("announcing the device to %v: %w", conn.Remote, err))
	}
	return nil
}

func attempt(s *settings.Call, auth *proxy.Auth) (*dial.Conn, error) {
	deadline := time.Now().Add(s.ConnectTimeout)
	next := s.Target
	if s.Proxy.Scheme != "" {
		next = s.Proxy.Target
	}
	addr, ok := next.Addr()
	addrs, late := withPort([]netip.Addr{addr}, next.Port), dial.Late(nil)
	if !ok {
		// A missing interface or namespace must not be reported as a wrong name.
		if err := dial.Try(dial.Options{Netns: s.Dial.Netns, Interface: s.Dial.Interface}); err != nil {
			return nil, dialError(s, err)
		}
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		defer cancel()
		var err error
		if addrs, late, err = lookup(ctx, next, s.Dial); err != nil {
			return nil, err
		}
	}
	conn, err := dial.Dial(addrs, late, s.Dial, deadline)
	if err != nil {
		return nil, dialError(s, err)
	}
	if s.Proxy.Scheme == "" {
		return conn, nil
	}
	if err := proxy.Connect(conn.File, s.Proxy, auth, s.Target, deadline); err != nil {
		conn.File.Close()
		return nil, err
	}
	return conn, nil
}

// lookup returns the addresses of a name, and those that a name server may still send.
func lookup(ctx context.Context, t settings.Target, o dial.Options) ([]netip.AddrPort, dial.Late, error) {
	first, late, err := resolve.Lookup(ctx, t.Host, o)
	if err != nil {
		return nil, nil, err
	}
	return withPort(first, t.Port), func() ([]netip.AddrPort, bool) {
		select {
		case more, open := <-late:
			return withPort(more, t.Port), open
		default:
			return nil, true
		}
	}, nil
}

func withPort(addrs []netip.Addr, port uint16) []netip.AddrPort {
	out := make([]netip.AddrPort, len(addrs))
	for i, a := range addrs {
		out[i] = netip.AddrPortFrom(a, port)
	}
	return out
}

// dialError gives an error of Dial its exit status, its hint and the peer.
func dialError(s *settings.Call, err error) error {
	peer, absent := fmt.Sprintf("%s port %d", s.Host, s.Port), "check that the NETCONF client listens there and that no firewall is in between"
	if s.Proxy.Scheme != "" {
		peer, absent = fmt.Sprintf("the proxy %s port %d", s.Proxy.Host, s.Proxy.Port), "check --proxy, that the proxy listens there and that no firewall is in between"
	}
	var unanswered *dial.Error
	code, hint := localCause(err)
	if code == sysexits.OSErr && errors.As(err, &unanswered) {
		code, hint = sysexits.Unavailable, absent
	}
	return sysexits.New(code, hint, fmt.Errorf("connecting to %s: %w", peer, err))
}

// localCause returns the exit status and the hint for an error whose cause is on
// this machine, sysexits.OSErr for any other.
func localCause(err error) (code int, hint string) {
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return sysexits.NoPerm, "check the local firewall and that callhome runs with the rights it needs"
	case errors.Is(err, dial.ErrSelf):
		return sysexits.Unavailable, "leave out --local-port, or call the NETCONF client's own address and port"
	case errors.Is(err, unix.ENODEV), errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, dial.ErrNotNetns):
		return sysexits.Config, "check --local-address, --interface and --netns"
	}
	return sysexits.OSErr, ""
}

// TrySource checks that this machine has the source address, interface and
// namespace of o. It sends nothing. An error carries the exit status that To
// would give it.
func TrySource(o dial.Options) error {
	err := dial.Try(o)
	if err == nil {
		return nil
	}
	code, hint := localCause(err)
	return sysexits.New(code, hint, err)
}

// worthRetry reports whether err can be temporary.
func worthRetry(err error) bool {
	code := sysexits.Code(err)
	return code == sysexits.Unavailable || code == sysexits.NoHost
}
