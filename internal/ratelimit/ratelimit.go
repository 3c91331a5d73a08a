// Package ratelimit decides how often to speak of what anybody can cause at any
// rate: at the first time, and then once in a while, with how many there were.
// The daemons' rooms that warn of refusals use it. It keeps no words of what it
// counts.
package ratelimit

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Every is how often one thing is spoken of.
const Every = time.Minute

// Ration is of one thing. It is pure, and ready for use as it is.
type Ration struct {
	unsaid int
	said   time.Time
}

// Add counts one and returns how many to speak of now, or 0.
func (r *Ration) Add(now time.Time) int {
	r.unsaid++
	if !r.said.IsZero() && now.Sub(r.said) < Every {
		return 0
	}
	r.said = now
	return r.Rest()
}

// Rest returns how many were not spoken of, and forgets them.
func (r *Ration) Rest() int {
	n := r.unsaid
	r.unsaid = 0
	return n
}

// Warnings has a ration for each warning. Its methods may be called by several
// goroutines.
type Warnings struct {
	log hclog.Logger
	mu  sync.Mutex // guards of
	of  map[string]*Ration
}

// NewWarnings returns warnings that go to log.
func NewWarnings(log hclog.Logger) *Warnings {
	return &Warnings{log: log, of: make(map[string]*Ration)}
}

// Warn logs what, which must be one of few words of ours, with fields of the
// last one and with how many there were ("times").
func (w *Warnings) Warn(what string, fields ...any) {
	w.mu.Lock()
	r := w.of[what]
	if r == nil {
		r = new(Ration)
		w.of[what] = r
	}
	n := r.Add(time.Now())
	w.mu.Unlock()
	if n > 0 {
		w.log.Warn(what, append(fields, "times", n)...)
	}
}

// Rest logs what was not spoken of yet, at the end.
func (w *Warnings) Rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for what, r := range w.of {
		if n := r.Rest(); n > 0 {
			w.log.Warn(what, "times", n)
		}
	}
}
