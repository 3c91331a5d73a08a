package daemon

import (
	"context"
	"time"

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
