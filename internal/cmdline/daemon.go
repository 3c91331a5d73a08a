package cmdline

import (
	"context"
	"errors"

	"callhome/internal/hook"
	"callhome/internal/pubsub"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
)

// HookFlags are the options of a daemon's hook; events are the default events.
func HookFlags(events []string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "hook", Usage: "run `PROGRAM` on events, with the event as a line of JSON on its standard input"},
		&cli.StringSliceFlag{Name: "hook-event", Value: cli.NewStringSlice(events...), Usage: "run the hook on `EVENT`; repeatable"},
		DurationFlag("hook-timeout", hook.DefaultTimeout, "kill the hook after `TIME`"),
	}
}

// StartHook starts the hook of the flags, or returns nil where they set none. known
// are the names of all events; convert turns an event into the hook's.
func StartHook[E any](c *cli.Context, f *pubsub.Followers[E], log hclog.Logger, known []string, convert func(E) hook.Event) (*hook.Hook, error) {
	if !c.IsSet("hook") {
		if c.IsSet("hook-event") || c.IsSet("hook-timeout") {
			return nil, sysexits.New(sysexits.Usage, "add --hook PROGRAM", errors.New("--hook-event and --hook-timeout need a --hook"))
		}
		return nil, nil
	}
	h, err := hook.New(hook.Config{
		Program: c.String("hook"), Events: c.StringSlice("hook-event"), Known: known, Timeout: c.Duration("hook-timeout"),
	}, log.Named("hook"))
	if err != nil {
		return nil, sysexits.New(sysexits.Config, "", err)
	}
	f.Follow("hook", func() {}, func(e E) { h.Handle(convert(e)) })
	f.Feed(func(ctx context.Context) {
		<-ctx.Done()
		h.Close()
	})
	return h, nil
}

// LogLost returns what a daemon's followers do about lost events: a line in its log.
func LogLost(log hclog.Logger) func(follower string) {
	return func(follower string) {
		log.Warn("events lost, the subscriber was too slow", "subscriber", follower)
	}
}

// MetricsFlag is --metrics.
func MetricsFlag() cli.Flag {
	return &cli.StringFlag{Name: "metrics", Usage: "serve Prometheus metrics at the loopback `ADDRESS:PORT`, or unix:PATH"}
}

// LogFlags are the options of a daemon's log; its default level is info.
func LogFlags() []cli.Flag {
	return []cli.Flag{
		ChoiceFlag("log-format", "text", "log in `FORMAT` text or json", "text", "json"),
		ChoiceFlag("log-level", "info", "log at `LEVEL` debug, info, warn or error, and above", "debug", "info", "warn", "error"),
		&cli.BoolFlag{Name: "syslog", Usage: "log to syslog (facility daemon) instead of stderr"},
	}
}
