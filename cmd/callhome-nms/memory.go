package main

import (
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// collectPercent is GOGC where the environment sets none. Held connections are most of the
// heap, and live long: with Go's 100 a storm of logins would take half as much memory
// again, for garbage.
const collectPercent = 50

// After manyLogins without another one for quietTime, memory is given back.
const (
	manyLogins = 256
	quietTime  = 10 * time.Second
)

// storms finds the end of a storm of logins. Each leaves garbage and grown stacks, which
// the runtime would keep for minutes.
type storms struct {
	mu     sync.Mutex // guards the fields that follow
	logins int        // since the last storm
	quiet  *time.Timer
}

func newStorms(freeMemory func()) *storms {
	s := &storms{}
	s.quiet = time.AfterFunc(quietTime, func() {
		s.mu.Lock()
		many := s.logins >= manyLogins
		s.logins = 0
		s.mu.Unlock()
		if many {
			freeMemory()
		}
	})
	return s
}

// loggedIn must be called at each login.
func (s *storms) loggedIn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins++
	s.quiet.Reset(quietTime)
}

// freeMemory returns unused memory to the kernel. A collection halves a stack of which
// less than a quarter is used; that of a login shrinks in three.
func freeMemory() {
	for range 3 {
		debug.FreeOSMemory()
	}
}

func limitGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectPercent)
	}
}
