// Package trigger makes one call home: it dials the NETCONF client and hands
// the connected socket over, to sshd or to the manager. callhome-trigger's main
// calls it. It parses no command line, and what it logs is what happened, never
// a failure: that goes back to main.
package trigger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"callhome/internal/device/connect"
	"callhome/internal/device/settings"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// Run makes the call home that s describes. With exec handover it returns only
// with an error; else nil means that the socket was taken over. What can be
// known to be missing is told before the NETCONF client is called.
func Run(s *settings.Settings, log hclog.Logger) error {
	if s.Handover != settings.HandoverManager { // which has an sshd of its own
		if err := s.CheckFiles(); err != nil {
			return err
		}
	}
	manager, err := findManager(s)
	if err != nil {
		return err
	}
	var sshdLog *sshdexec.Log
	if manager != nil {
		defer manager.Close()
	} else {
		if sshdLog, err = openLog(s); err != nil {
			return err
		}
		defer sshdLog.File.Close()
	}
	fields := []any{"host", s.Host, "port", s.Port}
	if s.Opaque != "" {
		fields = append(fields, "opaque", hclog.Quote(s.Opaque)) // one line, whatever it holds
	}
	log.Info("calling home", fields...)
	conn, err := connect.To(&s.Call)
	if err != nil {
		discard(sshdLog, sshdexec.LogDir)
		return err
	}
	defer conn.File.Close()
	log.Info("connected", "remote", conn.Remote, "local", conn.Local)
	if manager == nil {
		return toSshd(s, conn, sshdLog)
	}
	session, err := toManager(manager, s, conn)
	if err == nil {
		log.Info("the manager took the connection", "session", session)
	}
	return err
}

// openLog opens the log of an sshd that is to be started here.
func openLog(s *settings.Settings) (*sshdexec.Log, error) {
	log, err := sshdexec.OpenLog(s.SshdLog, sshdexec.LogDir, time.Now())
	if err != nil {
		return nil, sysexits.New(osCode(err), "set --sshd-log to syslog or to a file that can be written", err)
	}
	return log, nil
}

// discard removes the log of a session that did not come about, where it is a
// file of its own in dir: those of sessions are kept up to a number. log may be
// nil.
func discard(log *sshdexec.Log, dir string) {
	if log != nil && filepath.Dir(log.File.Name()) == dir {
		_ = os.Remove(log.File.Name())
	}
}

// queueTime bounds the wait for a manager whose queue of callers is full.
const queueTime = 2 * time.Second

// findManager connects to the manager's socket where the handover wants it. It
// returns nil where sshd is to be started here. The caller owns the file.
func findManager(s *settings.Settings) (*os.File, error) {
	switch s.Handover {
	case settings.HandoverManager:
		if err := tellable(s.Opaque); err != nil {
			return nil, err
		}
	case settings.HandoverAuto:
	default:
		return nil, nil
	}
	manager, err := connectManager(s.ManagerSocket, queueTime)
	switch {
	case err == nil:
		if err := tellable(s.Opaque); err != nil {
			manager.Close()
			return nil, err
		}
		return manager, nil
	case s.Handover == settings.HandoverAuto:
		return nil, nil
	}
	return nil, noManager(s.ManagerSocket, err)
}

// noManager gives a failure to connect to the manager its exit status. The
// socket is everybody's: it is its directory that keeps a user out, and for who
// gets in there is the group.
func noManager(socket string, err error) error {
	if errors.Is(err, unix.EACCES) {
		return sysexits.New(sysexits.NoPerm,
			"give "+filepath.Dir(socket)+" mode 0755 and this user the group callhome, or use --handover exec",
			fmt.Errorf("the manager's socket %s may not be used: %w", socket, err))
	}
	return sysexits.New(sysexits.Unavailable, "start callhome-mgr, or use --handover exec",
		fmt.Errorf("no manager answers at %s: %w", socket, err))
}

// tellable refuses an opaque word that JSON, which the manager speaks, would
// change on the way.
func tellable(opaque string) error {
	if utf8.ValidString(opaque) {
		return nil
	}
	return sysexits.New(sysexits.Usage, "encode it, or use --handover exec, which carries any bytes",
		fmt.Errorf("OPAQUE %+.100q is not UTF-8, and the manager's protocol carries only UTF-8", opaque))
}

// connectManager connects to a Unix socket, close-on-exec and blocking. A full
// queue there is waited for no longer than wait.
func connectManager(path string, wait time.Duration) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	bound := unix.NsecToTimeval(wait.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &bound) // bounds connect(2) too
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}
