// Package connect owns the way from the host that a caller names to a connected
// socket: its addresses, the race between them, a proxy, and further attempts.
// The trigger and the manager call it, so that both go the same way. It hands
// nothing over and logs nothing.
package connect

import (
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

// To connects to s.Target, by way of the proxy where s has one: s.Attempts
// attempts, each bounded by s.ConnectTimeout; and tells it who calls, with
// s.Announce. The caller owns the connection.
// An error carries its exit status: sysexits.NoHost for a name that does not
// resolve, sysexits.Unavailable where nobody answered.
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

// announce writes the lines that RFC 4253 section 4.2 lets a server send before
// its version string, in the form of Junos outbound-ssh: who is calling. Whoever
// makes a connection announces it, whoever then has sshd serve it does not.
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
	if _, ok := next.Addr(); !ok {
		// Else the resolver would blame the name.
		if err := dial.Try(dial.Options{Netns: s.Dial.Netns, Interface: s.Dial.Interface}); err != nil {
			return nil, dialError(s, err)
		}
	}
	addrs, err := addresses(next, s.Dial, deadline)
	if err != nil {
		return nil, err
	}
	conn, err := dial.Dial(addrs, s.Dial, deadline)
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

func addresses(t settings.Target, o dial.Options, deadline time.Time) ([]netip.AddrPort, error) {
	addr, ok := t.Addr()
	found := []netip.Addr{addr}
	if !ok {
		var err error
		if found, err = resolve.Lookup(t.Host, o, deadline); err != nil {
			return nil, err
		}
	}
	out := make([]netip.AddrPort, len(found))
	for i, a := range found {
		out[i] = netip.AddrPortFrom(a, t.Port)
	}
	return out, nil
}

// dialError gives a failure of Dial its exit status and its words.
func dialError(s *settings.Call, err error) error {
	whom, absent := fmt.Sprintf("%s port %d", s.Host, s.Port), "check that the NETCONF client listens there and that no firewall is in between"
	if s.Proxy.Scheme != "" {
		whom, absent = fmt.Sprintf("the proxy %s port %d", s.Proxy.Host, s.Proxy.Port), "check --proxy, that the proxy listens there and that no firewall is in between"
	}
	var nobody *dial.Error
	code, hint := blame(err)
	if code == sysexits.OSErr && errors.As(err, &nobody) {
		return sysexits.New(sysexits.Unavailable, absent, fmt.Errorf("nobody answered at %s: %w", whom, err))
	}
	return sysexits.New(code, hint, fmt.Errorf("connecting to %s: %w", whom, err))
}

// blame returns the exit status and the advice for a failure that is not the
// NETCONF client's.
func blame(err error) (code int, hint string) {
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

// TrySource finds out whether a connection can leave from where o says. Nothing
// is sent. An error carries its exit status, the same that To would give it.
func TrySource(o dial.Options) error {
	err := dial.Try(o)
	if err == nil {
		return nil
	}
	code, hint := blame(err)
	return sysexits.New(code, hint, err)
}

// worthRetry reports whether another attempt can end otherwise.
func worthRetry(err error) bool {
	code := sysexits.Code(err)
	return code == sysexits.Unavailable || code == sysexits.NoHost
}
