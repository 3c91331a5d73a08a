package session

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"callhome/internal/device/process"
	"callhome/internal/inotify"

	"golang.org/x/sys/unix"
)

// Watch reports to the sessions what happens to their files and processes, with one
// inotify instance and one epoll instance for all sessions: that a process has ended,
// that a log has grown, and that the subsystem has closed
// its descriptor of a session's end file. The kernel's queue has these events in the
// order in which they happened (inotify(7)), however late they are read: that order
// shows an orderly end.
type Watch struct {
	dir   *inotify.Dir
	exits *process.Exits

	mu       sync.Mutex // held while events are read and applied, which keeps their order; guards what follows
	sessions map[int]*watched
}

// watched is a session's part of the Watch.
type watched struct {
	happened
	stir func() // never blocks
}

// happened is what happened to a session's files since take.
type happened struct {
	grown bool // the log has grown
	ended bool // the subsystem's descriptor was closed
	after bool // ended, and the log had grown before that
}

// watchMask is for the logs, which sshd writes, and the end files, which the
// subsystem holds open for reading.
const watchMask = unix.IN_MODIFY | unix.IN_CLOSE_NOWRITE

// NewWatch watches the sessions' files in dir until Close.
func NewWatch(dir string) (*Watch, error) {
	d, err := inotify.Open(dir, watchMask)
	if err != nil {
		return nil, fmt.Errorf("watching the sessions' logs: %w", err)
	}
	exits, err := process.NewExits()
	if err != nil {
		d.Close()
		return nil, err
	}
	w := &Watch{dir: d, exits: exits, sessions: make(map[int]*watched)}
	go d.Wait(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		d.Drain(w.apply)
	})
	return w, nil
}

// Close ends all reports.
func (w *Watch) Close() error { return errors.Join(w.exits.Close(), w.dir.Close()) }

// apply applies one event to the session of the file that it names. The caller holds
// w.mu.
func (w *Watch) apply(e inotify.Event) {
	if e.Overflow() { // every session reads its log
		for _, s := range w.sessions {
			s.grown = true
			s.stir()
		}
		return
	}
	number, kind, _ := strings.Cut(e.Name, ".")
	id, _ := strconv.Atoi(number)
	s := w.sessions[id]
	switch {
	case s == nil:
	case kind == logSuffix && e.Mask&unix.IN_MODIFY != 0:
		s.grown = true
		s.stir()
	case kind == endSuffix && e.Mask&unix.IN_CLOSE_NOWRITE != 0:
		s.ended, s.after = true, s.grown
		s.stir()
	}
}

// add begins the reports on a session's files; each calls stir, which must not block.
func (w *Watch) add(id int, stir func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions[id] = &watched{stir: stir}
}

func (w *Watch) drop(id int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.sessions, id)
}

// take returns what has happened until now since the last take.
func (w *Watch) take(id int) (out happened) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dir.Drain(w.apply)
	if s := w.sessions[id]; s != nil {
		out, s.happened = s.happened, happened{}
	}
	return out
}

// end reports the end of a session's subsystem that the Watch cannot see: the log
// may have grown before it.
func (w *Watch) end(id int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.sessions[id]; s != nil {
		s.ended, s.after = true, true
		s.stir()
	}
}
