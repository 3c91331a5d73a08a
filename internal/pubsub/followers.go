package pubsub

import (
	"context"
	"sync"
)

// Followers handle a daemon's events and change nothing in it: its log, its metrics
// and its hook.
type Followers[E any] struct {
	follow func() Source[E]
	lost   func(follower string)

	// ctx ends the followers; served ends what they feed, after them.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	served context.Context
	close  context.CancelFunc
	fed    sync.WaitGroup
}

// NewFollowers returns an empty set of followers. It calls lost with the name of each
// that was too slow. End ends them.
func NewFollowers[E any](follow func() Source[E], lost func(follower string)) *Followers[E] {
	f := &Followers[E]{follow: follow, lost: lost}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.served, f.close = context.WithCancel(context.Background())
	return f
}

// Context ends when End is called.
func (f *Followers[E]) Context() context.Context { return f.ctx }

// Follow passes all events from now on to handle, until the publisher closes or
// End is called. It calls missed where events were lost.
func (f *Followers[E]) Follow(name string, missed func(), handle func(E)) {
	from := f.follow()
	f.wg.Go(func() {
		Follow(f.ctx, from, func() {
			f.lost(name)
			missed()
		}, handle)
	})
}

// Run runs a follower that takes its events itself. Its context ends when End is
// called.
func (f *Followers[E]) Run(run func(context.Context)) { f.wg.Go(func() { run(f.ctx) }) }

// Feed runs what the followers feed. Its context ends when they have handled all
// events.
func (f *Followers[E]) Feed(run func(context.Context)) { f.fed.Go(func() { run(f.served) }) }

// End ends all when they have handled what was published so far, and returns
// when they have ended.
func (f *Followers[E]) End() {
	f.cancel()
	f.wg.Wait()
	f.close()
	f.fed.Wait()
}
