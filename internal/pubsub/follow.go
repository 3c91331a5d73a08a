package pubsub

import "context"

// Follow subscribes, and returns a function that passes all events from then on to
// handle, in order, until the publisher closes or ctx ends. If handle is too slow
// and the hub ends the subscription, the function calls missed and subscribes
// again.
func Follow[E any](ctx context.Context, subscribe func() (<-chan E, func()), missed func(), handle func(E)) func() {
	events, cancel := subscribe()
	return func() {
		for {
			stop := context.AfterFunc(ctx, cancel)
			for e := range events {
				handle(e)
			}
			stop()
			if ctx.Err() != nil {
				return
			}
			events, cancel = subscribe()
			select {
			case e, open := <-events:
				if !open {
					return // the publisher has closed
				}
				missed()
				handle(e)
			default:
				missed()
			}
		}
	}
}
