package registry

import (
	"context"
	"fmt"
	"time"

	"callhome/internal/inotify"
	"callhome/internal/wake"
)

// settle is how long the directory must be unchanged before it is read: an editor or
// a copy makes several changes in a row.
const settle = 100 * time.Millisecond

// mostUnsettled bounds the wait while changes go on.
const mostUnsettled = 2 * time.Second

// Watch reads the directory again whenever it changes, until ctx ends, and reports
// each change. The first read finds the changes since Open.
func (r *Registry) Watch(ctx context.Context, report func(Change, error)) error {
	d, err := inotify.Open(r.dir, inotify.Changes)
	if err != nil {
		return fmt.Errorf("watching the registry: %w", err)
	}
	defer d.Close()
	changed := wake.New()
	// An overflow of the kernel's queue is a change too: the directory has the missed ones.
	go d.Follow(func(inotify.Event) { wake.Up(changed) })
	quiet := time.NewTimer(0) // at once, for changes before the watch
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			if since.IsZero() {
				since = time.Now()
			}
			quiet.Reset(min(settle, max(0, mostUnsettled-time.Since(since))))
		case <-quiet.C:
			since = time.Time{}
			c, err := r.Reload()
			if err != nil || c.Any() {
				report(c, err)
			}
		}
	}
}
