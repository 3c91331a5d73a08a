package sysevents

import (
	"fmt"
	"path/filepath"
	"time"

	"callhome/internal/inotify"
	"callhome/internal/wake"

	"golang.org/x/sys/unix"
)

// quiet is how long a file must stay unchanged before its change is reported.
const quiet = 200 * time.Millisecond

// File calls notify from its own goroutine after the file was written or replaced
// by a rename, until done is closed. The file need not exist yet, but its
// directory must.
func File(done <-chan struct{}, path string, notify func()) error {
	// A watch on the file itself would stay with the old inode after a rename.
	d, err := inotify.Open(filepath.Dir(path), inotify.Changes)
	if err != nil {
		return fmt.Errorf("watching the file %q: %w", path, err)
	}
	changed := wake.New()
	go d.Follow(func(e inotify.Event) {
		// After an overflow, the change may be among the lost events.
		if e.Overflow() || e.Name == filepath.Base(path) && e.Mask&unix.IN_DELETE == 0 {
			wake.Up(changed)
		}
	})
	go func() {
		defer d.Close()
		awaitQuiet(done, changed, notify)
	}()
	return nil
}

// awaitQuiet calls notify quiet after the last of several changes, until done is closed.
func awaitQuiet(done, changed <-chan struct{}, notify func()) {
	settled := time.NewTimer(quiet)
	settled.Stop()
	for {
		select {
		case <-done:
			return
		case <-changed:
			settled.Reset(quiet)
		case <-settled.C:
			notify()
		}
	}
}
