package sysevents

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is how long a file must stay unchanged before its change is reported.
const quiet = 200 * time.Millisecond

// File calls notify from its own goroutine after the file was written or replaced
// by a rename, until done is closed. The file need not exist yet, but its
// directory must.
func File(done <-chan struct{}, path string, notify func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching the file %q: %w", path, err)
	}
	// A watch on the file itself would stay with the old inode after a rename.
	if err := w.Add(filepath.Dir(path)); err != nil {
		w.Close()
		return fmt.Errorf("watching the file %q: %w", path, err)
	}
	go func() {
		defer w.Close()
		settled := time.NewTimer(quiet)
		settled.Stop()
		for {
			select {
			case <-done:
				return
			case e := <-w.Events:
				if filepath.Clean(e.Name) == filepath.Clean(path) && !e.Has(fsnotify.Remove) {
					settled.Reset(quiet)
				}
			case <-w.Errors:
				settled.Reset(quiet) // the queue overflowed; the change may have been in it
			case <-settled.C:
				notify()
			}
		}
	}()
	return nil
}
