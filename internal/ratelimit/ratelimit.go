// Package ratelimit bounds what a daemon logs or publishes about events that any
// unauthenticated peer can trigger: the first ones are reported at once, the rest
// are counted and reported with a later one. Packages that warn of refusals or
// publish events use it. It never keeps the text of what it counts.
package ratelimit

import (
	"cmp"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Every is the window of a Limit that sets none, and of Warnings.
const Every = time.Minute

// Limit passes Burst events at once, then Burst in each Window at equal distances,
// and counts those it drops (a token bucket). Its zero value passes one Every. It is
// pure, and belongs to one kind of event:
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
	Burst  int           // 0: 1
	Window time.Duration // 0: Every

	full    time.Time // when all of Burst pass again
	dropped int       // since the last that passed
}

// window and every return the window, and the distance of two events in it.
func (l *Limit) window() (window, every time.Duration) {
	window = cmp.Or(l.Window, Every)
	return window, window / time.Duration(max(l.Burst, 1))
}

// Allow reports whether an event passes now, and how many were dropped since the
// last that did.
func (l *Limit) Allow(now time.Time) (dropped int, ok bool) {
	window, every := l.window()
	// Of a clock that was set back the limit begins anew: otherwise it would drop
	// everything until the clock is where it was.
	if l.full.Before(now) || l.full.Sub(now) > window {
		l.full = now
	}
	if l.Wait(now) > 0 {
		l.dropped++
		return 0, false
	}
	l.full = l.full.Add(every)
	return l.Rest(), true
}

// Wait returns how long it is from now until an event passes.
func (l *Limit) Wait(now time.Time) time.Duration {
	window, every := l.window()
	return max(0, min(every, l.full.Add(every).Sub(now)-window))
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
		l = new(Limit)
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
