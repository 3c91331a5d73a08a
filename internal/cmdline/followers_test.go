package cmdline

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"callhome/internal/proto"

	"github.com/hashicorp/go-hclog"
)

// source is a manager whose subscriptions the test ends.
type source struct {
	subscriptions []chan proto.Event
	stopped       bool
}

func (s *source) Subscribe() (<-chan proto.Event, func()) {
	c := make(chan proto.Event, 10)
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

func (s *source) tell(n int) {
	s.subscriptions[len(s.subscriptions)-1] <- proto.Event{Session: proto.SessionInfo{Session: n}}
}

func (s *source) drop() { close(s.subscriptions[len(s.subscriptions)-1]) }

// following returns what a follower of s is told, in words.
func following(s *source) (w *Followers[proto.Event], told *[]string, log *bytes.Buffer) {
	log = new(bytes.Buffer)
	w = NewFollowers(s.Subscribe, hclog.New(&hclog.LoggerOptions{Output: log}))
	told = new([]string)
	w.Follow("test", func() { *told = append(*told, "missed") }, func(e proto.Event) { *told = append(*told, fmt.Sprint(e.Session.Session)) })
	return w, told, log
}

func TestFollow(t *testing.T) {
	for _, tt := range []struct {
		name  string
		story func(s *source)
		want  []string
	}{
		{"the manager stops", func(s *source) {
			s.tell(1)
			s.tell(2)
			s.stopped = true
			s.drop()
		}, []string{"1", "2"}},
		{"the manager stops before anything happens", func(s *source) {
			s.stopped = true
			s.drop()
		}, nil},
		{"too slow once", func(s *source) {
			s.tell(1)
			s.drop()
			synctest.Wait()
			s.tell(2)
			s.stopped = true
			s.drop()
		}, []string{"1", "missed", "2"}},
		{"too slow twice", func(s *source) {
			for n := range 2 {
				s.tell(n)
				s.drop()
				synctest.Wait()
			}
			s.tell(2)
			s.stopped = true
			s.drop()
		}, []string{"0", "missed", "1", "missed", "2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &source{}
				w, told, log := following(s)
				tt.story(s)
				w.wg.Wait() // by itself
				if !slices.Equal(*told, tt.want) {
					t.Errorf("got %v, want %v", *told, tt.want)
				}
				missed := slices.Contains(tt.want, "missed")
				if logged := strings.Contains(log.String(), "events lost"); logged != missed {
					t.Errorf("logged: %q", log)
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
		w, told, log := following(s)
		s.tell(1)
		w.End()
		if want := []string{"1"}; !slices.Equal(*told, want) || log.Len() > 0 {
			t.Errorf("got %v, want %v, and log %q", *told, want, log)
		}
	})
}

// What was published up to the end is handled before what a follower feeds is
// closed.
func TestTheHookGetsTheLastEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		w, told, _ := following(s)
		var heard []string
		w.fed.Go(func() {
			<-w.served.Done()
			heard = slices.Clone(*told)
		})
		for n := range 5 {
			s.tell(n)
		}
		w.End()
		if want := []string{"0", "1", "2", "3", "4"}; !slices.Equal(heard, want) {
			t.Errorf("before it was closed it heard %v, want %v", heard, want)
		}
	})
}
