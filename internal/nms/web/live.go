package web

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Limits of the streams of server-sent events. A browser opens one for the page that it
// shows; the script closes it when the page is hidden.
const (
	maxStreams        = 64
	maxStreamsPerUser = 16
	heartbeat         = 15 * time.Second
	streamTime        = time.Hour // a browser connects again
	writeTime         = 10 * time.Second
)

// streams counts the streams.
type streams struct {
	mu    sync.Mutex
	users map[string]int
	all   int
}

func (s *streams) enter(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxStreams || s.users[name] >= maxStreamsPerUser {
		return false
	}
	if s.users == nil {
		s.users = make(map[string]int)
	}
	s.users[name]++
	s.all++
	return true
}

func (s *streams) leave(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.users[name]--; s.users[name] == 0 {
		delete(s.users, name)
	}
}

// live sends the number of each new copy of the fleet. The script then loads the part
// of its page that can have changed.
func (s *Server) live(w http.ResponseWriter, r *http.Request, u *user) {
	if !s.streams.enter(u.Name) {
		http.Error(w, "too many streams", http.StatusServiceUnavailable)
		return
	}
	defer s.streams.leave(u.Name)
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // for nginx
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	end := time.NewTimer(streamTime)
	defer end.Stop()
	send := func(format string, args ...any) bool {
		_ = c.SetWriteDeadline(time.Now().Add(writeTime))
		_, err := fmt.Fprintf(w, format, args...)
		return err == nil && c.Flush() == nil
	}
	last, changed := s.fleet.next()
	for ok := send("retry: 3000\ndata: %d\n\n", last.Number); ok; {
		select {
		case <-r.Context().Done():
			return
		case <-s.ctx.Done():
			return
		case <-end.C:
			return
		case <-beat.C:
			s.fleet.watch()
			ok = s.users.valid(u, time.Now()) && send(": still here\n\n")
		case <-changed:
			last, changed = s.fleet.next()
			ok = s.users.valid(u, time.Now()) && send("data: %d\n\n", last.Number)
		}
	}
}
