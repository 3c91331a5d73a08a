package main

import (
	"callhome/internal/cmdline"
	"callhome/internal/device/rollout"
	"callhome/internal/proto"
	"callhome/internal/pubsub"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
)

// followers follow the manager's events.
type followers = pubsub.Followers[proto.Event]

// eventSource is the daemon, as far as followers ask it.
type eventSource interface {
	Follow() pubsub.Source[proto.Event]
	Sessions() []proto.SessionInfo
	Clients() []proto.ClientStatus
}

// defaultHookEvents are the events that a hook runs on unless --hook-event names
// others.
var defaultHookEvents = []string{proto.EventConnected, proto.EventAuthenticated, proto.EventFailed, proto.EventClosed}

// follow starts the log and what the command line asks for. All have subscribed
// when it returns.
func follow(c *cli.Context, source eventSource, log hclog.Logger) (*followers, error) {
	f := pubsub.NewFollowers(source.Follow, cmdline.LogLost(log))
	f.Follow("log", func() {}, func(e proto.Event) { logEvent(log, e) })
	all := kept{source.Follow()}
	h, err := cmdline.StartHook(c, f, log, cmdline.HookEvents[proto.Event]{
		Known: proto.Events, Convert: rollout.Event, After: func(uint64) pubsub.Source[proto.Event] { return all },
	})
	if err == nil {
		err = startMetrics(c, f, source, h, log)
	}
	if err != nil {
		f.End()
		return nil, err
	}
	return f, nil
}

// kept is a subscription that stays where its reader has closed it: what happens
// before the program of --hook-stream is started again is passed to the next one.
type kept struct{ pubsub.Source[proto.Event] }

// Close does nothing.
func (kept) Close() {}
