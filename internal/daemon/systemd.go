package daemon

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"time"

	"callhome/internal/sysexits"

	sddaemon "github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"
)

// Notify reports a state to systemd (sd_notify(3)). It does nothing where systemd
// did not start the daemon.
func Notify(log hclog.Logger, state string) {
	if _, err := sddaemon.SdNotify(false, state); err != nil {
		log.Warn("notifying systemd failed", "state", state, "error", err)
	}
}

// Sockets are the listening sockets that systemd passed (sd_listen_fds(3)).
type Sockets struct {
	TCP  []*net.TCPListener
	Unix *net.UnixListener // nil where none was passed
}

// PassedSockets returns the sockets that systemd passed. The caller owns and
// closes them; on an error they are closed.
func PassedSockets() (s Sockets, err error) {
	passed := passedListeners()
	for _, l := range passed {
		switch l := l.(type) {
		case *net.TCPListener:
			s.TCP = append(s.TCP, l)
			continue
		case *net.UnixListener:
			if s.Unix == nil {
				s.Unix = l
				continue
			}
		}
		for _, l := range passed {
			if l != nil {
				l.Close()
			}
		}
		return Sockets{}, sysexits.New(sysexits.Config, "correct the socket unit",
			errors.New("taking the sockets of the systemd socket unit: expected listening TCP sockets and at most one Unix socket"))
	}
	return s, nil
}

// firstPassed is the first descriptor that systemd passes.
const firstPassed = 3

// passedListeners returns what systemd passed; nil for what is no listening socket. The
// library's package for this imports crypto/tls.
func passedListeners() (out []net.Listener) {
	pid, _ := strconv.Atoi(os.Getenv("LISTEN_PID"))
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name) // not for hooks and sessions
	}
	if pid != os.Getpid() {
		return nil
	}
	for fd := firstPassed; fd < firstPassed+n; fd++ {
		f := os.NewFile(uintptr(fd), "socket "+strconv.Itoa(fd))
		l, err := net.FileListener(f) // with a descriptor of its own
		f.Close()
		if err != nil {
			l = nil
		}
		out = append(out, l)
	}
	return out
}

// Watchdog notifies systemd's watchdog as long as alive returns. It ends with ctx,
// or at once where the unit sets no WatchdogSec.
func Watchdog(ctx context.Context, log hclog.Logger, alive func()) {
	every, err := sddaemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			alive()
			Notify(log, sddaemon.SdNotifyWatchdog)
		}
	}
}
