package session

import (
	"fmt"
	"os"
	"time"

	"callhome/internal/device/sshdlog"
	"callhome/internal/proto"
	"callhome/internal/ratelimit"
)

// logReader processes a session's log. Only the session's supervisor uses it.
type logReader struct {
	s       *Session
	log     logFile
	failing bool // the log cannot be read, and that was reported
	// limits rate-limit the events of each kind: a peer can make sshd write any
	// number of lines, before the login and after it.
	limits map[string]*ratelimit.Limit
}

// eventLimit rate-limits each kind of event of a session.
var eventLimit = ratelimit.Limit{Burst: 200, Window: time.Minute}

// Pauses: before the retry of a failed read or write, and between two reads of a
// log that keeps growing.
const (
	retryPause = 5 * time.Second
	busyPause  = 20 * time.Millisecond
)

func (r *logReader) close() {
	if r.log.file != nil {
		r.log.file.Close()
	}
}

// read processes the new lines. It returns when to read again even if the log does
// not grow, 0 for never. last says that sshd has exited.
func (r *logReader) read(last bool) (again time.Duration) {
	if !r.open() {
		return retryPause
	}
	for {
		lines, more, err := r.log.read()
		if err != nil {
			r.trouble(err)
			again = retryPause
		}
		for _, l := range lines {
			r.process(l)
		}
		if len(lines) > 0 {
			r.log.release(r.s.rec.Offset)
		}
		if len(lines) > 0 || r.s.isUnsaved() {
			r.s.save()
		}
		switch {
		case more && !last:
			return busyPause
		case !more && r.s.isUnsaved():
			return retryPause
		case !more:
			return again
		}
	}
}

// open opens the log, unless it is open.
func (r *logReader) open() bool {
	if r.log.file != nil {
		return true
	}
	f, err := os.OpenFile(logPath(r.s.env.Dir, r.s.id()), os.O_RDWR, 0)
	if err != nil {
		r.trouble(fmt.Errorf("reading sshd's log: %w", err))
		return false
	}
	r.log.file, r.failing = f, false
	return true
}

// trouble publishes once that the log cannot be read.
func (r *logReader) trouble(err error) {
	if !r.failing {
		r.failing = true
		r.s.publish(proto.EventTrouble, err.Error())
	}
}

// process applies one line to the session and publishes its events.
func (r *logReader) process(l logLine) {
	s := r.s
	s.mu.Lock()
	before := s.rec.State
	if before == proto.StateCalling && l.Kind == sshdlog.Connected {
		// The executable of Execute has its connection now.
		s.rec.State = proto.StateStarting
	}
	events := s.rec.apply(l.Line)
	after := s.rec.State
	needSock := s.sock == nil && after != proto.StateCalling
	id := s.rec.Process
	s.rec.Offset = l.end
	s.mu.Unlock()
	if needSock {
		s.takeSocket(id)
	}
	if before == proto.StateCalling && after != before {
		s.publish(proto.EventConnected, "")
	}
	for _, name := range events {
		r.publish(name, l.Text)
	}
	if before != after {
		s.wake()
	}
}

// publish publishes an event of a line within the rate limit of its kind.
func (r *logReader) publish(name, line string) {
	if r.limits == nil {
		r.limits = make(map[string]*ratelimit.Limit)
	}
	l := r.limits[name]
	if l == nil {
		fresh := eventLimit
		l = &fresh
		r.limits[name] = l
	}
	dropped, ok := l.Allow(time.Now())
	if !ok {
		return
	}
	if dropped > 0 {
		r.s.publish(proto.EventLog, fmt.Sprintf("events %q dropped here by the rate limit: %d", name, dropped))
	}
	r.s.publish(name, line)
}
