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
		&cli.StringFlag{Name: "hook-stream", Usage: "run `PROGRAM` all the time, with each event as a line of JSON on its standard input"},
	}
}

// HookEvents are the events of a daemon, as its hooks take them.
type HookEvents[E any] struct {
	Known   []string           // the names of all
	Convert func(E) hook.Event // for --hook
	// After returns the events after a sequence, for --hook-stream: 0 for none known.
	After func(sequence uint64) pubsub.Source[E]
	// Waiting returns how many events may wait for --hook; nil for the hook's own bound.
	Waiting func() int
}

// StartHook starts the hooks of the flags. It returns that of --hook, nil without one.
func StartHook[E any](c *cli.Context, f *pubsub.Followers[E], log hclog.Logger, e HookEvents[E]) (*hook.Hook, error) {
	log = log.Named("hook")
	if c.IsSet("hook-stream") {
		s, err := hook.NewStream(c.String("hook-stream"), func(after uint64) hook.Lines { return lines[E]{e.After(after)} }, log)
		if err != nil {
			return nil, sysexits.New(sysexits.Config, "", err)
		}
		f.Run(s.Run)
	}
	if !c.IsSet("hook") {
		if c.IsSet("hook-event") || c.IsSet("hook-timeout") {
			return nil, sysexits.New(sysexits.Usage, "add --hook PROGRAM", errors.New("--hook-event and --hook-timeout need a --hook"))
		}
		return nil, nil
	}
	h, err := hook.New(hook.Config{
		Program: c.String("hook"), Events: c.StringSlice("hook-event"), Known: e.Known, Timeout: c.Duration("hook-timeout"), Waiting: e.Waiting,
	}, log)
	if err != nil {
		return nil, sysexits.New(sysexits.Config, "", err)
	}
	f.Follow("hook", func() {}, func(one E) { h.Handle(e.Convert(one)) })
	f.Feed(func(ctx context.Context) {
		<-ctx.Done()
		h.Close()
	})
	return h, nil
}

// lines are events as a hook.Stream takes them.
type lines[E any] struct{ pubsub.Source[E] }

// Next implements hook.Lines.
func (l lines[E]) Next(ctx context.Context) (line any, missed, ok bool) {
	return l.Source.Next(ctx)
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
