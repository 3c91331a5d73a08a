package pubsub

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
)

// following returns what a follower of h gets, and the names that are lost. It calls
// begin before it handles an event, and end after it.
func following(h *Hub[int], begin, end func()) (w *Followers[int], got, lost *[]string) {
	lost, got = new([]string), new([]string)
	w = NewFollowers(func() Source[int] { return h.Follow() }, func(follower string) { *lost = append(*lost, follower) })
	w.Follow("test", func() { *got = append(*got, "missed") }, func(e int) {
		begin()
		*got = append(*got, fmt.Sprint(e))
		end()
	})
	return w, got, lost
}

func nothing() {}

func TestFollow(t *testing.T) {
	for _, tt := range []struct {
		name   string
		events []int // 0: the follower has time
		want   []string
	}{
		{"the manager stops", []int{1, 2}, []string{"1", "2"}},
		{"the manager stops before anything happens", nil, nil},
		{"too slow once", []int{1, 0, 2, 3, 4, 5, 6, 0, 7}, []string{"1", "2", "missed", "5", "6", "7"}},
		{"too slow twice", []int{1, 2, 3, 4, 0, 5, 6, 7, 8}, []string{"1", "missed", "3", "4", "5", "missed", "7", "8"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &Hub[int]{Backlog: func() int { return 2 }}
				time := make(chan struct{}, 1) // the follower has some while a value is here
				w, got, lost := following(h, func() { <-time }, func() { time <- struct{}{} })
				for _, n := range tt.events {
					if n != 0 {
						h.Publish(n)
						synctest.Wait() // it has begun with the first
						continue
					}
					time <- struct{}{}
					synctest.Wait()
					<-time
				}
				time <- struct{}{}
				h.Close()
				w.wg.Wait() // by itself
				if !slices.Equal(*got, tt.want) {
					t.Errorf("got %v, want %v", *got, tt.want)
				}
				if missed := slices.Contains(tt.want, "missed"); slices.Contains(*lost, "test") != missed {
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
		h := new(Hub[int])
		w, got, lost := following(h, nothing, nothing)
		ended := false
		w.Run(func(ctx context.Context) {
			<-ctx.Done()
			ended = true
		})
		h.Publish(1)
		w.End()
		if want := []string{"1"}; !slices.Equal(*got, want) || len(*lost) > 0 || !ended {
			t.Errorf("got %v, want %v, lost %q, the other has ended: %v", *got, want, *lost, ended)
		}
	})
}

// What was published up to the end is handled before what a follower feeds is
// closed.
func TestTheHookGetsTheLastEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := new(Hub[int])
		w, got, _ := following(h, nothing, nothing)
		var seen []string
		w.fed.Go(func() {
			<-w.served.Done()
			seen = slices.Clone(*got)
		})
		for n := range 5 {
			h.Publish(n)
		}
		w.End()
		if want := []string{"0", "1", "2", "3", "4"}; !slices.Equal(seen, want) {
			t.Errorf("before it was closed it saw %v, want %v", seen, want)
		}
	})
}
