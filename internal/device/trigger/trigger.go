// Package trigger makes one call home: it dials the NETCONF client and hands the
// connected socket over, to sshd or to the manager. callhome-trigger's main uses
// it. It parses no command line, and never logs a failure: it returns the error to
// main.
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

// Run makes the call home that s describes. With exec handover it returns only on
// error; otherwise nil means that sshd or the manager has the socket. It reports
// missing files and settings before it dials the NETCONF client.
func Run(s *settings.Settings, log hclog.Logger) error {
	manager, err := findManager(s)
	if err != nil {
		return err
	}
	var sshdLog *sshdexec.Log
	if manager != nil { // it has its own sshd settings, and rights
		defer manager.Close()
	} else {
		if err := s.CheckFiles(); err != nil {
			return err
		}
		if sshdLog, err = openLog(s); err != nil {
			return err
		}
		defer sshdLog.File.Close()
	}
	fields := []any{"host", s.Host, "port", s.Port}
	if s.Opaque != "" {
		fields = append(fields, "opaque", hclog.Quote(s.Opaque)) // one line, whatever its bytes
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
		printOnTerminal(s, "connected to %v; callhome-mgr session %d shows the session", conn.Remote, session)
	}
	return err
}

// openLog opens the log of the sshd that this process starts.
func openLog(s *settings.Settings) (*sshdexec.Log, error) {
	log, err := sshdexec.OpenLog(s.SshdLog, sshdexec.LogDir, time.Now())
	if err != nil {
		return nil, sysexits.New(osCode(err), "set --sshd-log to syslog or to a file that can be written", err)
	}
	return log, nil
}

// discard removes the log of a failed call home if it is a file in dir: otherwise
// it would displace a session's log, of which dir keeps a limited number. log may
// be nil.
func discard(log *sshdexec.Log, dir string) {
	if log != nil && filepath.Dir(log.File.Name()) == dir {
		_ = os.Remove(log.File.Name())
	}
}

// queueTime bounds the wait for a manager whose accept queue is full.
const queueTime = 2 * time.Second

// findManager connects to the manager's socket if the handover uses a manager. It
// returns nil where this process is to start sshd. The caller owns the file.
func findManager(s *settings.Settings) (*os.File, error) {
	switch s.Handover {
	case settings.HandoverManager:
		if err := checkUTF8(s.Opaque); err != nil {
			return nil, err
		}
	case settings.HandoverAuto:
		var st unix.Stat_t
		if unix.Stat(s.ManagerSocket, &st) != nil {
			return nil, nil // without a manager no socket of ours is needed: 0.02 ms
		}
	default:
		return nil, nil
	}
	manager, err := connectManager(s.ManagerSocket, queueTime)
	switch {
	case err == nil:
		if err := checkUTF8(s.Opaque); err != nil {
			manager.Close()
			return nil, err
		}
		return manager, nil
	case s.Handover == settings.HandoverAuto:
		return nil, nil
	}
	return nil, noManager(s.ManagerSocket, err)
}

// noManager gives a failure to connect to the manager its exit status. The socket's
// mode admits every user: EACCES comes from its directory.
func noManager(socket string, err error) error {
	if errors.Is(err, unix.EACCES) {
		return sysexits.New(sysexits.NoPerm,
			"give "+filepath.Dir(socket)+" mode 0755 and this user the group callhome, or use --handover exec",
			fmt.Errorf("connecting to the manager's socket %s: %w", socket, err))
	}
	return sysexits.New(sysexits.Unavailable, "start callhome-mgr, or use --handover exec",
		fmt.Errorf("no manager answers at %s: %w", socket, err))
}

// checkUTF8 refuses an OPAQUE that JSON, the manager's protocol, cannot carry
// unchanged.
func checkUTF8(opaque string) error {
	if utf8.ValidString(opaque) {
		return nil
	}
	return sysexits.New(sysexits.Usage, "encode it, or use --handover exec, which carries any bytes",
		fmt.Errorf("OPAQUE %+.100q is not UTF-8, and the manager's protocol carries only UTF-8", opaque))
}

// connectManager connects to a Unix socket, close-on-exec and blocking. wait bounds
// the wait for a place in a full accept queue.
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
