package pubsub

import "context"

// Follow subscribes, and returns a function that hands all events from then on
// to handle, one after another, until the publisher closes or ctx ends. Where
// handle was too slow, the subscription has ended: missed is told before the
// next event.
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
