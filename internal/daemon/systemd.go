package daemon

import (
	"callhome/internal/sysexits"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sddaemon "github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"
)

// Notify tells systemd one state, as go-systemd names them. That nobody listens
// is no fault.
func Notify(log hclog.Logger, state string) {
	if _, err := sddaemon.SdNotify(false, state); err != nil {
		log.Warn("systemd could not be told", "state", state, "error", err)
	}
}

// Sockets are the listening sockets that systemd passed (sd_listen_fds(3)).
type Sockets struct {
	TCP  []*net.TCPListener
	Unix *net.UnixListener // nil where there is none
}

// PassedSockets returns what systemd passed, with the owner's duty to close them.
func PassedSockets() (s Sockets, err error) {
	passed, err := activation.Listeners()
	if err != nil {
		return s, fmt.Errorf("using systemd's sockets: %w", err)
	}
	for _, l := range passed {
		switch l := l.(type) {
		case *net.TCPListener:
			s.TCP = append(s.TCP, l)
		case *net.UnixListener:
			s.Unix = l
		default:
			return s, sysexits.New(sysexits.Config, "correct the socket unit", errors.New("using systemd's sockets: one of them is neither a listening TCP nor a listening Unix socket"))
		}
	}
	return s, nil
}

// Watchdog tells systemd that the daemon is well for as long as it answers:
// alive has to come back. It returns with ctx, or at once where systemd does
// not ask.
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
