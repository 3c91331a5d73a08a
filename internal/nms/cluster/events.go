package cluster

import (
	"context"
	"fmt"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/nmsproto"
)

// lastEventsTime is for the events of a station that ends.
const lastEventsTime = 2 * time.Second

// publishEvents publishes the station's events to the stream until ctx ends. While NATS
// is away, the station keeps as many as for each of its followers; where some are
// missing, a resync has the states of its devices.
func (c *Cluster) publishEvents(ctx context.Context) {
	final, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(lastEventsTime, cancel) })
	defer stop()
	from := c.follow()
	defer from.Close()
	for final.Err() == nil {
		e, _, ok := from.Next(ctx)
		if !ok {
			return
		}
		c.publishEvent(final, e)
	}
}

// publishEvent publishes an event, as often as it takes.
func (c *Cluster) publishEvent(ctx context.Context, e nmsproto.Event) {
	id := "" // the states of a resync have no sequence
	if e.Sequence != 0 && e.Event != nmsproto.EventInSync {
		id = fmt.Sprintf("%s-%d", c.name(), e.Sequence)
	}
	for ctx.Err() == nil {
		err := c.conn.AwaitUp(ctx)
		if err == nil {
			err = c.conn.Publish(ctx, buckets.EventSubject+"."+c.name(), id, mustJSON(e))
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		c.warn.Warn("an event is not in the cluster's stream; temporary, retry", "event", e.Event, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}
