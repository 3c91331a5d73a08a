package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"callhome/internal/hook"
	"callhome/internal/nms/metrics"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/pubsub"
	"callhome/internal/scrape"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
)

// hookDefault are what a hook is run on.
var hookDefault = []string{nmsproto.EventUp, nmsproto.EventDown, nmsproto.EventReplaced, nmsproto.EventDuplicate, nmsproto.EventRefused, nmsproto.EventUnknown}

func watchFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "hook", Usage: "run `PROGRAM` on events, with the event as a line of JSON on its standard input"},
		&cli.StringSliceFlag{Name: "hook-event", Value: cli.NewStringSlice(hookDefault...), Usage: "run the hook on `EVENT`; may be repeated"},
		&cli.DurationFlag{Name: "hook-timeout", Value: hook.DefaultTimeout, Usage: "kill the hook when it takes longer than `TIME`"},
		&cli.StringFlag{Name: "metrics", Usage: "serve Prometheus metrics at the loopback `ADDRESS:PORT`, or unix:PATH"},
	}
}

// watchers are those who are told what happens and change nothing: the log, the
// metrics, the hook.
type watchers struct {
	backend *backend
	ctx     context.Context // ends with them
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// watch starts those that the command line asks for. They have subscribed when
// it returns.
func watch(c *cli.Context, d *backend) (*watchers, error) {
	w := &watchers{backend: d}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.follow("log", func(e nmsproto.Event) { logEvent(d.log, e) })
	h, err := w.startHook(c)
	if err == nil {
		err = w.startMetrics(c, h)
	}
	if err != nil {
		w.end()
		return nil, err
	}
	return w, nil
}

func (w *watchers) end() {
	w.cancel()
	w.wg.Wait()
}

func (w *watchers) follow(who string, handle func(nmsproto.Event)) {
	subscribe := func() (<-chan nmsproto.Event, func()) {
		_, events, cancel := w.backend.Subscribe()
		return events, cancel
	}
	w.wg.Go(pubsub.Follow(w.ctx, subscribe, func() {
		w.backend.log.Warn("events were missed, too many came at a time", "by", who)
	}, handle))
}

// startHook runs the hook that the command line names; nil where it names none.
func (w *watchers) startHook(c *cli.Context) (*hook.Hook, error) {
	if !c.IsSet("hook") {
		if c.IsSet("hook-event") || c.IsSet("hook-timeout") {
			return nil, usage(errors.New("hook-event and hook-timeout need a --hook"))
		}
		return nil, nil
	}
	h, err := hook.New(hook.Config{
		Program: c.String("hook"), Events: c.StringSlice("hook-event"), Known: nmsproto.Events, Timeout: c.Duration("hook-timeout"),
	}, w.backend.log.Named("hook"))
	if err != nil {
		return nil, sysexits.New(sysexits.Config, "", err)
	}
	w.follow("hook", func(e nmsproto.Event) {
		h.Handle(hook.Event{Name: e.Event, About: []any{"device", e.Device}, Value: e})
	})
	w.wg.Go(func() {
		<-w.ctx.Done()
		h.Close()
	})
	return h, nil
}

// startMetrics serves metrics where the command line says; h may be nil.
func (w *watchers) startMetrics(c *cli.Context, h *hook.Hook) error {
	if !c.IsSet("metrics") {
		return nil
	}
	a, err := scrape.ParseAddress(c.String("metrics"))
	if err != nil {
		return usage(err)
	}
	l, err := scrape.Listen(a)
	if err != nil {
		return err
	}
	f := metrics.New(w.backend.Stats, version)
	if h != nil {
		f.AddHook(h.Counts)
	}
	w.backend.Timed = f.LoggedIn
	w.follow("metrics", f.Handle)
	log := w.backend.log.Named("metrics")
	w.wg.Go(func() {
		if err := scrape.Serve(w.ctx, l, scrape.Handler(f.Registry, log), log); err != nil {
			log.Error("metrics are no longer served", "error", err)
		}
	})
	log.Info("served", "address", c.String("metrics"))
	return nil
}

// levels are those of the events that are no everyday ones.
var levels = map[string]hclog.Level{
	nmsproto.EventDown: hclog.Warn, nmsproto.EventDuplicate: hclog.Warn, nmsproto.EventRefused: hclog.Warn,
	nmsproto.EventUnknown: hclog.Warn, nmsproto.EventRegistry: hclog.Error,
}

func logEvent(log hclog.Logger, e nmsproto.Event) {
	level := levels[e.Event]
	if level == hclog.NoLevel {
		level = hclog.Info
	}
	var fields []any
	for _, f := range []struct{ name, value string }{
		{"device", e.Device}, {"address", e.Address}, {"software", e.Software}, {"host-key", e.HostKey}, {"certificate", e.Certificate}, {"cause", e.Cause},
	} {
		if f.value != "" {
			fields = append(fields, f.name, printable(f.value))
		}
	}
	if e.Unsaid > 0 {
		fields = append(fields, "left-out-before", fmt.Sprint(e.Unsaid))
	}
	log.Log(level, e.Event, fields...)
}
