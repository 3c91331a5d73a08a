package main

import (
	"context"
	"sync"

	"callhome/internal/proto"
	"callhome/internal/pubsub"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
)

// eventSource is the daemon, as far as watchers ask it.
type eventSource interface {
	Subscribe() (events <-chan proto.Event, cancel func())
	Sessions() []proto.SessionInfo
	Clients() []proto.ClientStatus
}

// watchers are those who are told what happens and change nothing: the log,
// the metrics, the hook.
type watchers struct {
	source eventSource
	log    hclog.Logger
	ctx    context.Context // ends the followers
	cancel context.CancelFunc
	wg     sync.WaitGroup // the followers

	served context.Context // ends what they feed, after them
	close  context.CancelFunc
	fed    sync.WaitGroup
}

// watch starts those that the command line asks for. They have subscribed when
// it returns.
func watch(c *cli.Context, source eventSource, log hclog.Logger) (*watchers, error) {
	w := newWatchers(source, log)
	w.follow("log", func() {}, func(e proto.Event) { logEvent(log, e) })
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

func newWatchers(source eventSource, log hclog.Logger) *watchers {
	w := &watchers{source: source, log: log}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.served, w.close = context.WithCancel(context.Background())
	return w
}

// end ends them all, when they have heard what happened so far, and returns
// when they are gone.
func (w *watchers) end() {
	w.cancel()
	w.wg.Wait()
	w.close()
	w.fed.Wait()
}

// follow hands all events from now on to handle, until the manager stops or the
// watchers end.
func (w *watchers) follow(who string, missed func(), handle func(proto.Event)) {
	follower := pubsub.Follow(w.ctx, w.source.Subscribe, func() {
		w.log.Warn("events were missed, too many came at a time", "by", who)
		missed()
	}, handle)
	w.wg.Go(follower)
}
