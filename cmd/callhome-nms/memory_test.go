package main

import (
	"testing"
	"testing/synctest"
	"time"
)

// Memory is given back once after a storm, and not after a few logins.
func TestMemoryIsGivenBackAfterAStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		freed := 0
		s := newStorms(func() { freed++ })
		logins := func(n int, every time.Duration) {
			for range n {
				s.loggedIn()
				time.Sleep(every)
			}
			time.Sleep(2 * quietTime)
			synctest.Wait()
		}
		logins(manyLogins-1, time.Millisecond)
		if freed != 0 {
			t.Error("it was given back after a few logins")
		}
		logins(manyLogins, time.Millisecond)
		logins(10*manyLogins, quietTime/2)
		logins(manyLogins-1, 2*quietTime)
		if freed != 2 {
			t.Errorf("it was given back %d times, want 2", freed)
		}
	})
}
