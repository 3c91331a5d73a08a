package main

import (
	"context"
	"time"

	sddaemon "github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"
)

// notify tells systemd how the daemon is (sd_notify(3)). Without systemd
// nobody listens, which is no fault.
func notify(log hclog.Logger, state string) {
	if _, err := sddaemon.SdNotify(false, state); err != nil {
		log.Warn("systemd could not be told", "state", state, "error", err)
	}
}

// watchdog tells systemd that the daemon is well for as long as it answers:
// alive has to come back. It returns with ctx, or at once where systemd does
// not ask.
func watchdog(ctx context.Context, log hclog.Logger, alive func()) {
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
			notify(log, sddaemon.SdNotifyWatchdog)
		}
	}
}
