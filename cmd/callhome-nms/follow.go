package main

import (
	"context"

	"callhome/internal/cmdline"
	"callhome/internal/hook"
	"callhome/internal/nms/metrics"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/pubsub"
	"callhome/internal/scrape"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
)

// followers follow the station's events.
type followers = pubsub.Followers[nmsproto.Event]

// defaultHookEvents are the events that a hook runs on unless --hook-event names
// others.
var defaultHookEvents = []string{nmsproto.EventUp, nmsproto.EventDown, nmsproto.EventReplaced, nmsproto.EventDuplicate, nmsproto.EventRefused, nmsproto.EventUnknown}

// hookEvent is an event of the station as package hook takes it.
func hookEvent(e nmsproto.Event) hook.Event {
	return hook.Event{Name: e.Event, About: []any{"device", e.Device}, Value: e}
}

// follow starts the log and what the command line asks for. All have subscribed
// when it returns.
func follow(c *cli.Context, b *backend, m *metrics.Metrics) (*followers, error) {
	f := pubsub.NewFollowers(func() pubsub.Source[nmsproto.Event] { return b.Follow() }, cmdline.LogLost(b.log))
	f.Follow("log", func() {}, onlyNew(func(e nmsproto.Event) { logEvent(b.log, e) }))
	h, err := cmdline.StartHook(c, f, b.log, cmdline.HookEvents[nmsproto.Event]{
		Known: nmsproto.Events, Convert: hookEvent, Waiting: func() int { return 2 * b.registry.Len() },
		After: func(sequence uint64) pubsub.Source[nmsproto.Event] { return b.FollowAfter(sequence) },
	})
	if err == nil {
		err = startMetrics(c, f, m, h, b.log)
	}
	if err != nil {
		f.End()
		return nil, err
	}
	return f, nil
}

// onlyNew leaves out the states of devices in a resync: they are no new events.
func onlyNew(handle func(nmsproto.Event)) func(nmsproto.Event) {
	return func(e nmsproto.Event) {
		if !e.Resync {
			handle(e)
		}
	}
}

// startMetrics serves metrics where the command line says; h may be nil.
func startMetrics(c *cli.Context, f *followers, m *metrics.Metrics, h *hook.Hook, log hclog.Logger) error {
	if !c.IsSet("metrics") {
		return nil
	}
	l, err := scrape.Listen(c.String("metrics"))
	if err != nil {
		return err
	}
	if h != nil {
		m.AddHook(h.Counts)
	}
	f.Follow("metrics", func() {}, onlyNew(m.Handle))
	log = log.Named("metrics")
	f.Feed(func(ctx context.Context) { scrape.Run(ctx, l, scrape.Handler(m.Text), log) })
	return nil
}
