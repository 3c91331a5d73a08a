// Package trigger makes one call home: it dials the NETCONF client and hands
// the connected socket over, to sshd or to the manager. callhome-trigger's main
// calls it. It parses no command line, and what it logs is what happened, never
// a failure: that goes back to main.
package trigger

import (
	"fmt"
	"os"
	"strconv"

	"callhome/internal/connect"
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
	conn, err := connect.To(s)
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
		log.Info("the manager took the connection", "session", session)
	}
	return err
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
