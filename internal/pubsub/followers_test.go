package pubsub

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
)

// source is a manager whose subscriptions the test ends.
type source struct {
	subscriptions []chan int
	stopped       bool
}

func (s *source) Subscribe() (<-chan int, func()) {
	c := make(chan int, 10)
	if s.stopped {
		close(c)
		return c, func() {}
	}
	s.subscriptions = append(s.subscriptions, c)
	open := true
	return c, func() {
		if open {
			open = false
			close(c)
		}
	}
}

func (s *source) add(n int) {
	s.subscriptions[len(s.subscriptions)-1] <- n
}

func (s *source) drop() { close(s.subscriptions[len(s.subscriptions)-1]) }

// following returns what a follower of s gets, and the names that are lost.
func following(s *source) (w *Followers[int], got *[]string, lost *[]string) {
	lost = new([]string)
	w = NewFollowers(s.Subscribe, func(follower string) { *lost = append(*lost, follower) })
	got = new([]string)
	w.Follow("test", func() { *got = append(*got, "missed") }, func(e int) { *got = append(*got, fmt.Sprint(e)) })
	return w, got, lost
}

func TestFollow(t *testing.T) {
	for _, tt := range []struct {
		name  string
		story func(s *source)
		want  []string
	}{
		{"the manager stops", func(s *source) {
			s.add(1)
			s.add(2)
			s.stopped = true
			s.drop()
		}, []string{"1", "2"}},
		{"the manager stops before anything happens", func(s *source) {
			s.stopped = true
			s.drop()
		}, nil},
		{"too slow once", func(s *source) {
			s.add(1)
			s.drop()
			synctest.Wait()
			s.add(2)
			s.stopped = true
			s.drop()
		}, []string{"1", "missed", "2"}},
		{"too slow twice", func(s *source) {
			for n := range 2 {
				s.add(n)
				s.drop()
				synctest.Wait()
			}
			s.add(2)
			s.stopped = true
			s.drop()
		}, []string{"0", "missed", "1", "missed", "2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &source{}
				w, got, lost := following(s)
				tt.story(s)
				w.wg.Wait() // by itself
				if !slices.Equal(*got, tt.want) {
					t.Errorf("got %v, want %v", *got, tt.want)
				}
				missed := slices.Contains(tt.want, "missed")
				if slices.Contains(*lost, "test") != missed {
					t.Errorf("lost: %q", *lost)
				}
				w.End()
			})
		})
	}
}

// A daemon can end while its publisher still runs: when its API fails.
func TestFollowersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		w, got, lost := following(s)
		s.add(1)
		w.End()
		if want := []string{"1"}; !slices.Equal(*got, want) || len(*lost) > 0 {
			t.Errorf("got %v, want %v, and lost %q", *got, want, *lost)
		}
	})
}

// What was published up to the end is handled before what a follower feeds is
// closed.
func TestTheHookGetsTheLastEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		w, got, _ := following(s)
		var seen []string
		w.fed.Go(func() {
			<-w.served.Done()
			seen = slices.Clone(*got)
		})
		for n := range 5 {
			s.add(n)
		}
		w.End()
		if want := []string{"0", "1", "2", "3", "4"}; !slices.Equal(seen, want) {
			t.Errorf("before it was closed it saw %v, want %v", seen, want)
		}
	})
}
