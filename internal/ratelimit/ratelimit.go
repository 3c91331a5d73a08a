// Package ratelimit bounds what a daemon logs or publishes about events that any
// unauthenticated peer can trigger: the first ones are reported at once, the rest
// are counted and reported with a later one. The rooms that warn of refusals and
// that publish events use it. It never keeps the text of what it counts.
package ratelimit

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Every is the window of Warnings.
const Every = time.Minute

// Limit passes at most Burst events in each Window, and counts those it drops.
// It is pure, and belongs to one kind of event:
//
//	l := ratelimit.Limit{Burst: 20, Window: 10 * time.Second}
//	...
//	if dropped, ok := l.Allow(time.Now()); ok {
//		publish(event, dropped) // dropped: how many were not published before it
//	}
//
// The caller locks it where several goroutines use it. At the end, Rest returns
// what was dropped since the last event that passed.
type Limit struct {
	Burst  int
	Window time.Duration

	begun   time.Time // of the window
	passed  int       // in the window
	dropped int       // since the last that passed
}

// Allow reports whether an event passes now, and how many were dropped since the
// last that did.
func (l *Limit) Allow(now time.Time) (dropped int, ok bool) {
	// A clock that was set back begins a window: otherwise the limit would drop
	// everything until the clock is where it was.
	if now.Sub(l.begun) >= l.Window || now.Before(l.begun) {
		l.begun, l.passed = now, 0
	}
	if l.passed >= l.Burst {
		l.dropped++
		return 0, false
	}
	l.passed++
	return l.Rest(), true
}

// Wait returns how long it is from now to the end of the window, when events pass
// again.
func (l *Limit) Wait(now time.Time) time.Duration {
	return max(0, min(l.Window, l.begun.Add(l.Window).Sub(now)))
}

// Rest returns how many were dropped since the last that passed, and counts anew.
func (l *Limit) Rest() int {
	n := l.dropped
	l.dropped = 0
	return n
}

// Warnings rate-limits log messages: each is logged at once the first time, then
// at most once a minute with the count. Its methods may be called by several
// goroutines.
type Warnings struct {
	log hclog.Logger
	mu  sync.Mutex // guards of
	of  map[string]*Limit
}

// NewWarnings returns warnings that go to log.
func NewWarnings(log hclog.Logger) *Warnings {
	return &Warnings{log: log, of: make(map[string]*Limit)}
}

// Warn logs message with the fields of this occurrence and with how many there
// were since it was last logged ("times"). message is a constant: each has a
// limit that stays in memory.
func (w *Warnings) Warn(message string, fields ...any) {
	w.mu.Lock()
	l := w.of[message]
	if l == nil {
		l = &Limit{Burst: 1, Window: Every}
		w.of[message] = l
	}
	dropped, ok := l.Allow(time.Now())
	w.mu.Unlock()
	if ok {
		w.log.Warn(message, append(fields, "times", dropped+1)...)
	}
}

// Rest logs at the end what was counted and not logged yet.
func (w *Warnings) Rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for message, l := range w.of {
		if n := l.Rest(); n > 0 {
			w.log.Warn(message, "times", n)
		}
	}
}
