// Package trigger makes one call home: it dials the NETCONF client and hands
// the connected socket over, to sshd or to the manager. callhome-trigger's main
// calls it. It parses no command line, and what it logs is what happened, never
// a failure: that goes back to main.
package trigger

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"time"

	"callhome/internal/dial"
	"callhome/internal/proxy"
	"callhome/internal/resolve"
	"callhome/internal/settings"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// Run makes the call home that s describes. With exec handover it returns only
// with an error; else nil means that the socket was taken over.
func Run(s *settings.Settings, log hclog.Logger) error {
	if err := checkFiles(s); err != nil {
		return err
	}
	manager, err := findManager(s)
	if err != nil {
		return err
	}
	if manager != nil {
		defer manager.Close()
	}
	log.Info("calling home", "host", s.Host, "port", s.Port, "opaque", strconv.QuoteToASCII(s.Opaque))
	conn, err := connect(s)
	if err != nil {
		return err
	}
	defer conn.File.Close()
	log.Info("connected", "remote", conn.Remote, "local", conn.Local)
	if manager == nil {
		return toSshd(s, conn)
	}
	session, err := adopt(manager, s, conn)
	if err == nil {
		log.Info("the manager took the connection", "session", strconv.QuoteToASCII(session))
	}
	return err
}

// connect makes s.Attempts attempts, each bounded by s.ConnectTimeout.
func connect(s *settings.Settings) (conn *dial.Conn, err error) {
	for n := 0; n < s.Attempts; n++ {
		if n > 0 {
			time.Sleep(s.RetryWait)
		}
		if conn, err = attempt(s); err == nil || !worthRetry(err) {
			break
		}
	}
	return conn, err
}

func attempt(s *settings.Settings) (*dial.Conn, error) {
	deadline := time.Now().Add(s.ConnectTimeout)
	next := s.Target
	if s.Proxy.Scheme != "" {
		next = s.Proxy.Target
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
	if err := proxy.Connect(conn.File, s.Proxy, s.Target, deadline); err != nil {
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
func dialError(s *settings.Settings, err error) error {
	code, hint := sysexits.OSErr, ""
	whom := fmt.Sprintf("%s port %d", s.Host, s.Port)
	if s.Proxy.Scheme != "" {
		whom = fmt.Sprintf("the proxy %s port %d", s.Proxy.Host, s.Proxy.Port)
	}
	var nobody *dial.Error
	switch {
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		code, hint = sysexits.NoPerm, "check the local firewall and that callhome-trigger runs with the rights it needs"
	case errors.Is(err, unix.ENODEV), errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EADDRNOTAVAIL):
		code, hint = sysexits.Config, "check --local-address, --interface and --netns"
	case errors.As(err, &nobody):
		code, hint = sysexits.Unavailable, "check that the NETCONF client listens there and that no firewall is in between"
		return sysexits.New(code, hint, fmt.Errorf("nobody answered at %s: %w", whom, err))
	}
	return sysexits.New(code, hint, fmt.Errorf("connecting to %s: %w", whom, err))
}

// worthRetry reports whether another attempt can end otherwise.
func worthRetry(err error) bool {
	code := sysexits.Code(err)
	return code == sysexits.Unavailable || code == sysexits.NoHost
}

// findManager connects to the manager's socket where the handover wants it. It
// returns nil where sshd is to be started here. The caller owns the file.
func findManager(s *settings.Settings) (*os.File, error) {
	if s.Handover != settings.HandoverManager && s.Handover != settings.HandoverAuto {
		return nil, nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: s.ManagerSocket}); err == nil {
			return os.NewFile(uintptr(fd), s.ManagerSocket), nil
		}
		unix.Close(fd)
	}
	if s.Handover == settings.HandoverAuto {
		return nil, nil
	}
	code := sysexits.Unavailable
	if err == unix.EACCES {
		code = sysexits.NoPerm
	}
	return nil, sysexits.New(code, "start callhome-mgr, or use --handover exec",
		fmt.Errorf("no manager answers at %s: %w", s.ManagerSocket, err))
}
