package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long the directory must be quiet before it is read: an editor
// or a copy does several things in a row.
const settle = 100 * time.Millisecond

// mostUnsettled bounds the wait where it is never quiet.
const mostUnsettled = 2 * time.Second

// Watch reads the directory again whenever it changes, until ctx ends, and tells
// what that brought. Changes since Open are seen at the next one.
func (r *Registry) Watch(ctx context.Context, told func(Change, error)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching the registry: %w", err)
	}
	defer w.Close()
	if err := w.Add(r.dir); err != nil {
		return fmt.Errorf("watching the registry %s: %w", r.dir, err)
	}
	// What happened before the watch began.
	quiet := time.NewTimer(0)
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.Events:
			if !ok {
				return nil
			}
			if since.IsZero() {
				since = time.Now()
			}
			quiet.Reset(min(settle, max(0, mostUnsettled-time.Since(since))))
		case err := <-w.Errors:
			// The kernel's queue overran, say: what was missed is in the directory.
			told(Change{}, fmt.Errorf("watching the registry %s: %w", r.dir, err))
			quiet.Reset(settle)
		case <-quiet.C:
			since = time.Time{}
			c, err := r.Reload()
			if err != nil || c.Any() {
				told(c, err)
			}
		}
	}
}
