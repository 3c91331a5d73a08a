package main

import (
	"errors"

	"callhome/internal/device/rollout"
	"callhome/internal/hook"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
)

// defaultHookEvents are the events that a hook runs on unless --hook-event names
// others.
var defaultHookEvents = []string{proto.EventConnected, proto.EventAuthenticated, proto.EventFailed, proto.EventClosed}

func hookFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "hook", Usage: "run `PROGRAM` on events, with the event as a line of JSON on its standard input"},
		&cli.StringSliceFlag{Name: "hook-event", Value: cli.NewStringSlice(defaultHookEvents...), Usage: "run the hook on `EVENT`; may be repeated"},
		&cli.DurationFlag{Name: "hook-timeout", Value: hook.DefaultTimeout, Usage: "kill the hook when it takes longer than `TIME`"},
	}
}

// startHook runs the hook that the command line names; nil where it names none.
func (w *watchers) startHook(c *cli.Context) (*hook.Hook, error) {
	if !c.IsSet("hook") {
		if c.IsSet("hook-event") || c.IsSet("hook-timeout") {
			return nil, usage(errors.New("hook-event and hook-timeout need a --hook"))
		}
		return nil, nil
	}
	h, err := newHook(hook.Config{Program: c.String("hook"), Known: proto.Events, Events: c.StringSlice("hook-event"), Timeout: c.Duration("hook-timeout")}, w.log.Named("hook"))
	if err != nil {
		return nil, err
	}
	w.follow("hook", func() {}, func(e proto.Event) { h.Handle(rollout.Event(e)) })
	w.fed.Go(func() {
		<-w.served.Done()
		h.Close()
	})
	return h, nil
}

func newHook(c hook.Config, log hclog.Logger) (*hook.Hook, error) {
	h, err := hook.New(c, log)
	if err != nil {
		return nil, sysexits.New(sysexits.Config, "", err)
	}
	return h, nil
}
