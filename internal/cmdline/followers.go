package cmdline

import (
	"context"
	"errors"
	"sync"

	"callhome/internal/hook"
	"callhome/internal/pubsub"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
)

// Followers handle a daemon's events and change nothing in it: its log, its metrics
// and its hook.
type Followers[E any] struct {
	subscribe func() (events <-chan E, cancel func())
	log       hclog.Logger

	// ctx ends the followers; served ends what they feed, after them.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	served context.Context
	close  context.CancelFunc
	fed    sync.WaitGroup
}

// NewFollowers returns an empty set of followers. End ends them.
func NewFollowers[E any](subscribe func() (<-chan E, func()), log hclog.Logger) *Followers[E] {
	f := &Followers[E]{subscribe: subscribe, log: log}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.served, f.close = context.WithCancel(context.Background())
	return f
}

// Context ends when End is called.
func (f *Followers[E]) Context() context.Context { return f.ctx }

// Follow passes all events from now on to handle, until the publisher closes or
// End is called. It calls missed where events were lost.
func (f *Followers[E]) Follow(name string, missed func(), handle func(E)) {
	f.wg.Go(pubsub.Follow(f.ctx, f.subscribe, func() {
		f.log.Warn("events lost, the subscriber was too slow", "subscriber", name)
		missed()
	}, handle))
}

// Feed runs what the followers feed. Its context ends when they have handled all
// events.
func (f *Followers[E]) Feed(run func(context.Context)) { f.fed.Go(func() { run(f.served) }) }

// End ends all when they have handled what was published so far, and returns
// when they have ended.
func (f *Followers[E]) End() {
	f.cancel()
	f.wg.Wait()
	f.close()
	f.fed.Wait()
}

// HookFlags are the options of a daemon's hook; events are the default events.
func HookFlags(events []string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "hook", Usage: "run `PROGRAM` on events, with the event as a line of JSON on its standard input"},
		&cli.StringSliceFlag{Name: "hook-event", Value: cli.NewStringSlice(events...), Usage: "run the hook on `EVENT`; repeatable"},
		&cli.DurationFlag{Name: "hook-timeout", Value: hook.DefaultTimeout, Usage: "kill the hook after `TIME`"},
	}
}

// StartHook starts the hook of the flags, or returns nil where they set none. known
// are the names of all events; convert turns an event into the hook's.
func StartHook[E any](c *cli.Context, f *Followers[E], known []string, convert func(E) hook.Event) (*hook.Hook, error) {
	if !c.IsSet("hook") {
		if c.IsSet("hook-event") || c.IsSet("hook-timeout") {
			return nil, sysexits.New(sysexits.Usage, "add --hook PROGRAM", errors.New("--hook-event and --hook-timeout need a --hook"))
		}
		return nil, nil
	}
	h, err := hook.New(hook.Config{
		Program: c.String("hook"), Events: c.StringSlice("hook-event"), Known: known, Timeout: c.Duration("hook-timeout"),
	}, f.log.Named("hook"))
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

// MetricsFlag is --metrics.
func MetricsFlag() cli.Flag {
	return &cli.StringFlag{Name: "metrics", Usage: "serve Prometheus metrics at the loopback `ADDRESS:PORT`, or unix:PATH"}
}

// LogFlags are the options of a daemon's log; its default level is info.
func LogFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "log-format", Value: "text", Usage: "log as `text or json`"},
		&cli.StringFlag{Name: "log-level", Value: "info", Usage: "log at `LEVEL` debug, info, warn or error, and above"},
		&cli.BoolFlag{Name: "syslog", Usage: "log to syslog (facility daemon) instead of stderr"},
	}
}
