package sysevents

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is how long a file must have been left alone before it is told.
const quiet = 200 * time.Millisecond

// File calls tell, from a goroutine of its own, after the file was written or
// another one was renamed to its name, until done is closed. It need not be
// there yet, but its directory must.
func File(done <-chan struct{}, path string, tell func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("following %s: %w", path, err)
	}
	// The directory, because a rename takes a watched file away.
	if err := w.Add(filepath.Dir(path)); err != nil {
		w.Close()
		return fmt.Errorf("following %s: %w", path, err)
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
				settled.Reset(quiet) // something was missed
			case <-settled.C:
				tell()
			}
		}
	}()
	return nil
}
