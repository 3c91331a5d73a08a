package pubsub

import "context"

// Source is where a follower gets its events from: a Subscription, or what a daemon
// makes of one.
type Source[E any] interface {
	// Next is as that of Subscription.
	Next(ctx context.Context) (e E, missed, ok bool)
	Close()
}

// Follow passes all events to handle, in order, until the publisher closes, or ctx ends
// and what was published before is handled. Where events are missing it calls missed.
func Follow[E any](ctx context.Context, from Source[E], missed func(), handle func(E)) {
	defer from.Close()
	for {
		e, gap, ok := from.Next(ctx)
		if !ok {
			return
		}
		if gap {
			missed()
		}
		handle(e)
	}
}
