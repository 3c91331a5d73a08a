package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"callhome/internal/inotify"
	"callhome/internal/wake"

	"golang.org/x/sys/unix"
)

// settleTime is how long the directory must be unchanged before it is read: an editor or
// a copy makes several changes in a row.
const settleTime = 100 * time.Millisecond

// mostUnsettled bounds the wait while changes go on.
const mostUnsettled = 2 * time.Second

// mostRetry bounds the pauses before what could not be read is read again.
const mostRetry = time.Minute

// mostNames is how many changed files are remembered by name. If there are more,
// each file is checked for a change.
const mostNames = 4096

// Watch reads files again when they change, until ctx ends, and reports each change. At
// the start it checks each file for a change since Open. What cannot be read is tried
// again with growing pauses.
func (r *Registry) Watch(ctx context.Context, report func(Change, error)) error {
	n := &notes{changed: wake.New(), names: make(map[string]bool), all: true}
	d, err := n.watch(r.dir)
	if err != nil {
		return fmt.Errorf("watching the registry: %w", err)
	}
	defer func() { d.Close() }()
	quiet, retry := time.NewTimer(0), time.NewTimer(0) // at once, for changes before the watch
	retry.Stop()
	pause := r.retry
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.unread:
			retry.Reset(pause)
			pause = min(2*pause, mostRetry)
			continue
		case <-n.changed:
			if since.IsZero() {
				since = time.Now()
			}
			quiet.Reset(min(settleTime, max(0, mostUnsettled-time.Since(since))))
			continue
		case <-retry.C:
			n.everything()
		case <-quiet.C:
		}
		since = time.Time{}
		names, all, lost := n.take()
		if lost {
			next, err := n.watch(r.dir)
			if err != nil {
				n.lose()
				report(Change{}, r.lose("watching", err))
				continue
			}
			d.Close()
			d = next
		}
		c, err := r.renew(names, all)
		if err != nil || c.Any() {
			report(c, err)
		}
		if all && len(r.unread) == 0 {
			retry.Stop()
			pause = r.retry
		}
	}
}

func (r *Registry) renew(names []string, all bool) (Change, error) {
	if all {
		return r.Reload()
	}
	return r.Read(names...)
}

// notes are what has changed since take.
type notes struct {
	changed chan struct{} // woken at each change

	mu    sync.Mutex // guards the fields that follow
	names map[string]bool
	all   bool // each file must be checked
	lost  bool // the directory is another one, or watched no more
}

// watch notes the changes of dir from now on. The caller closes what it returns.
func (n *notes) watch(dir string) (*inotify.Dir, error) {
	d, err := inotify.Open(dir, inotify.Changes)
	if err == nil {
		go d.Follow(n.note)
	}
	return d, err
}

// ended are the events after which the directory of that name is another one.
const ended = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_UNMOUNT | unix.IN_IGNORED

// note notes an event. One without a name is about the directory, or the kernel's queue
// was full. A file of another name may be what a symbolic link of an entry leads through.
func (n *notes) note(e inotify.Event) {
	if strings.HasPrefix(e.Name, temporary) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, isEntry := idOf(e.Name); (isEntry || e.Name == RevokedFile) && len(n.names) < mostNames {
		n.names[e.Name] = true
	} else {
		n.all = true
	}
	n.lost = n.lost || e.Mask&ended != 0
	wake.Up(n.changed)
}

func (n *notes) everything() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = true
}

func (n *notes) lose() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all, n.lost = true, true
}

// take returns the notes and begins new ones.
func (n *notes) take() (names []string, all, lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	names, all, lost = slices.Collect(maps.Keys(n.names)), n.all, n.lost
	clear(n.names)
	n.all, n.lost = false, false
	return names, all, lost
}
