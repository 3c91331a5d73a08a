package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

func (*source) Sessions() []proto.SessionInfo { return nil }
func (*source) Clients() []proto.ClientStatus { return nil }

func (s *source) tell(n int) {
	s.subscriptions[len(s.subscriptions)-1] <- proto.Event{Session: proto.SessionInfo{Session: n}}
}

func (s *source) drop() { close(s.subscriptions[len(s.subscriptions)-1]) }

// following returns what a follower of s is told, in words.
func following(s *source) (w *watchers, told *[]string, log *bytes.Buffer) {
	log = new(bytes.Buffer)
	w = newWatchers(s, hclog.New(&hclog.LoggerOptions{Output: log}))
	told = new([]string)
	w.follow("test", func() { *told = append(*told, "missed") }, func(e proto.Event) { *told = append(*told, fmt.Sprint(e.Session.Session)) })
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
				if logged := strings.Contains(log.String(), "events were missed"); logged != missed {
					t.Errorf("logged: %q", log)
				}
				w.end()
			})
		})
	}
}

// The daemon can end without the manager's stopping: where its API fails.
func TestWatchersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		w, told, log := following(s)
		s.tell(1)
		w.end()
		if want := []string{"1"}; !slices.Equal(*told, want) || log.Len() > 0 {
			t.Errorf("got %v, want %v, and log %q", *told, want, log)
		}
	})
}

// What happened up to the end is told before what a watcher feeds is closed.
func TestTheHookHearsUntilTheEnd(t *testing.T) {
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
		w.end()
		if want := []string{"0", "1", "2", "3", "4"}; !slices.Equal(heard, want) {
			t.Errorf("before it was closed it heard %v, want %v", heard, want)
		}
	})
}

func TestLogEvent(t *testing.T) {
	later := time.Now().Add(time.Hour + 20*time.Millisecond)
	nms := &proto.ClientStatus{Client: "n\nms", NextAttempt: &later}
	ended := proto.SessionInfo{Session: 7, Host: "nms.example", Port: 4334, Client: "n\nms", Endpoint: "a", Stage: proto.StageTCP, Cause: "refused"}
	for _, tt := range []struct {
		e    proto.Event
		want string // "" where it is not logged at info
	}{
		{proto.Event{Event: proto.EventRefused, Words: "Failed none for a\nb", Session: proto.SessionInfo{
			Session: 7, Host: "nms.example", Port: 4334, User: "x\x1b[2J", Stage: proto.StageAuth,
		}}, `[WARN]  login-refused: session=7 host=nms.example port=4334 user=x\x1b[2J stage=authentication words="Failed none for a\nb"`},
		{proto.Event{Event: proto.EventAttemptFailed, Client: nms, Session: ended},
			`[WARN]  attempt-failed: session=7 host=nms.example port=4334 client=n\nms endpoint=a next-attempt-in=1h0m0s stage=tcp cause=refused`},
		{proto.Event{Event: proto.EventFailed, Session: ended}, ""}, // attempt-failed says it
		{proto.Event{Event: proto.EventFailed, Session: proto.SessionInfo{Session: 7, Host: "h", Port: 1}}, `[WARN]  failed: session=7 host=h port=1`},
		{proto.Event{Event: proto.EventRecovered, Client: &proto.ClientStatus{Client: "b"}, Outage: 1234567 * time.Microsecond},
			`[INFO]  recovered: outage=1.235s client=b`},
		{proto.Event{Event: proto.EventLost, Client: &proto.ClientStatus{Client: "b"}}, `[WARN]  lost: client=b`},
		{proto.Event{Event: proto.EventGivenUp, Client: &proto.ClientStatus{Client: "b"}}, `[ERROR] given-up: client=b`},
		{proto.Event{Event: proto.EventAllExhausted, Client: &proto.ClientStatus{Client: "b"}}, `[WARN]  all-endpoints-exhausted: client=b`},
		{proto.Event{Event: proto.EventConfigApplied, Words: "2 clients"}, `[INFO]  configuration-applied: words="2 clients"`},
		{proto.Event{Event: proto.EventConfigRefused, Words: "line 1: x\nline 2: y"}, `[ERROR] configuration-refused: words="line 1: x\nline 2: y"`},
		{proto.Event{Event: proto.EventLog, Session: proto.SessionInfo{Session: 7}, Words: "x"}, ""},
	} {
		var log bytes.Buffer
		logEvent(hclog.New(&hclog.LoggerOptions{Output: &log, DisableTime: true}), tt.e)
		if got := strings.TrimSuffix(log.String(), "\n"); got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.e.Event, got, tt.want)
		}
	}
}
