package cluster

import (
	"context"
	"fmt"
	"time"

	"callhome/internal/nms/buckets"
	"callhome/internal/nms/nmsproto"
)

// maxEvents bounds the events that wait for NATS.
const maxEvents = 1 << 14

// publishEvents publishes the station's events to the stream until ctx ends. Consumers
// see by the sequence where some are missing.
func (c *Cluster) publishEvents(ctx context.Context) {
	waiting := make(chan nmsproto.Event, maxEvents)
	go c.collectEvents(ctx, waiting)
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-waiting:
			c.publishEvent(ctx, e)
		}
	}
}

// publishEvent publishes an event, as often as it takes.
func (c *Cluster) publishEvent(ctx context.Context, e nmsproto.Event) {
	for ctx.Err() == nil {
		if err := c.conn.AwaitUp(ctx); err != nil {
			return
		}
		err := c.conn.Publish(ctx, buckets.EventSubject+"."+c.name(), fmt.Sprintf("%s-%d", c.name(), e.Sequence), mustJSON(e))
		if err == nil {
			return
		}
		c.warn.Warn("an event is not in the cluster's stream; temporary, retry", "event", e.Event, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// collectEvents passes the station's events on, the oldest dropped when too many wait.
func (c *Cluster) collectEvents(ctx context.Context, to chan nmsproto.Event) {
	var sequence uint64
	for ctx.Err() == nil {
		last, events, cancel := c.holder.Subscribe()
		stop := context.AfterFunc(ctx, cancel)
		pass := func(e nmsproto.Event) {
			if e.Sequence <= sequence {
				return
			}
			sequence = e.Sequence
			for {
				select {
				case to <- e:
					return
				default:
				}
				select {
				case <-to:
				default:
				}
			}
		}
		for _, e := range last {
			pass(e)
		}
		n := 0
		for e := range events {
			n++
			pass(e)
		}
		stop()
		if n == 0 {
			return // the station has stopped
		}
	}
}
