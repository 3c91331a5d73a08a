package session

import (
	"fmt"
	"os"
	"slices"
	"time"

	"callhome/internal/device/sshdlog"
	"callhome/internal/proto"
)

// logReader takes in a session's log. Only the session's goroutine uses it.
type logReader struct {
	s       *Session
	log     logFile
	failing bool      // the log cannot be read, and that was told
	pending []logLine // read, not yet taken in: a login that is not proven waits
	doubt   time.Time
	chatter chatter
}

// How long a login may stay unproven, and how much may be said meanwhile:
// LoginGraceTime is at most what a login takes.
const (
	maxDoubt   = 2 * time.Minute
	maxPending = 1024
)

// Pauses: between two looks for the proof of a login, before a log is tried
// again that could not be read or written, and for breath where much is said.
const (
	firstLook = time.Millisecond
	lastLook  = 250 * time.Millisecond
	troubled  = 5 * time.Second
	breath    = 20 * time.Millisecond
)

func (e *logReader) close() {
	if e.log.file != nil {
		e.log.file.Close()
	}
}

// listen takes in what is new. It returns after what time to listen again even
// if nothing more is said, 0 for not at all. exit is not nil when sshd has
// exited: then this is the last time.
func (e *logReader) listen(exit *int) (again time.Duration) {
	if !e.open() {
		return troubled
	}
	for {
		lines, more, err := e.log.read()
		if err != nil {
			e.trouble(err)
			again = troubled
		}
		e.pending = append(e.pending, lines...)
		if e.takeIn(exit) || e.s.isUnsaved() {
			e.s.save()
		}
		switch {
		case len(e.pending) > 0: // only before the exit
			return e.nextLook()
		case more && exit == nil:
			return breath
		case !more && e.s.isUnsaved():
			return troubled
		case !more:
			return again
		}
	}
}

// open opens the log, unless that is done.
func (e *logReader) open() bool {
	if e.log.file != nil {
		return true
	}
	f, err := os.OpenFile(logPath(e.s.env.Dir, e.s.id()), os.O_RDWR, 0)
	if err != nil {
		e.trouble(fmt.Errorf("reading sshd's log: %w", err))
		return false
	}
	e.log.file, e.failing = f, false
	return true
}

// trouble tells that the log cannot be read, once.
func (e *logReader) trouble(err error) {
	if !e.failing {
		e.failing = true
		e.s.tell(proto.EventTrouble, err.Error())
	}
}

// takeIn takes in the pending lines up to a login that is not proven yet. It
// reports whether there were any.
func (e *logReader) takeIn(exit *int) (any bool) {
	defer func() {
		if any {
			e.log.understood(e.s.rec.Offset)
		}
	}()
	for len(e.pending) > 0 {
		l := e.pending[0]
		if l.Kind == sshdlog.Authenticated && e.s.awaitsLogin() {
			switch {
			case exit == nil && e.s.env.prove(e.s.process(), l.User):
			case exit == nil && e.mayWait():
				return any
			case exit != nil && endedLikeALogin(e.pending[1:], *exit):
			default:
				l.Kind = sshdlog.Unknown
				e.s.tell(proto.EventTrouble, "sshd's log has a login that its processes do not show; it is not believed: "+l.Words)
			}
		}
		e.doubt = time.Time{}
		e.pending = e.pending[1:]
		e.s.hear(l, &e.chatter)
		any = true
	}
	return any
}

// mayWait reports whether the proof of a login may still come.
func (e *logReader) mayWait() bool {
	if e.doubt.IsZero() {
		e.doubt = time.Now()
	}
	return time.Since(e.doubt) < maxDoubt && len(e.pending) < maxPending
}

// nextLook is when to look for the proof again: soon at first, it is there
// within the time that sshd takes to fork.
func (e *logReader) nextLook() time.Duration {
	return min(max(firstLook, time.Since(e.doubt)/4), lastLook)
}

// endedLikeALogin reports whether a session that ended before its login was
// proven had one. sshd ends otherwise with a status of its own, or with a line
// of the process without rights; -1 is a status that is not known.
func endedLikeALogin(after []logLine, exit int) bool {
	return (exit == 0 || exit == 255 || exit == -1) && !slices.ContainsFunc(after, func(l logLine) bool { return l.Preauth })
}

// chatter bounds what is told of lines that nobody understands: a client can
// make sshd write them without end.
type chatter struct {
	since time.Time
	told  int
	left  int
}

// Of a session's lines that mean nothing to us so many are told a minute.
const maxChatter = 200

// tell reports whether one more may be told, and how many were left out before.
func (c *chatter) tell(now time.Time) (ok bool, left int) {
	if now.Sub(c.since) >= time.Minute {
		left = c.left
		*c = chatter{since: now}
	}
	if c.told++; c.told <= maxChatter {
		return true, left
	}
	c.left++
	return false, left
}

// run reads the log until sshd has exited, and the rest of it then.
func (s *Session) run(exited <-chan int) {
	wake := make(chan struct{}, 1)
	s.env.Watch.add(s.id(), wake)
	defer s.env.Watch.drop(s.id())
	e := &logReader{s: s, log: logFile{offset: s.rec.Offset, punched: s.rec.Offset}}
	defer e.close()
	again := time.NewTimer(0) // what is there already
	defer again.Stop()
	for {
		select {
		case <-wake:
		case <-again.C:
		case exit := <-exited:
			e.listen(&exit)
			s.exited(exit)
			return
		}
		if next := e.listen(nil); next > 0 {
			again.Reset(next)
		}
	}
}

// hear takes in a line of the log.
func (s *Session) hear(l logLine, c *chatter) {
	s.mu.Lock()
	before := s.rec.State
	if before == proto.StateCalling && l.Remote != "" {
		// The program of Execute has its connection now.
		s.rec.State = proto.StateStarting
	}
	events := s.rec.apply(l.Line)
	after := s.rec.State
	needSock := s.sock == nil && after != proto.StateCalling
	id := s.rec.Process
	s.rec.Offset = l.end
	s.mu.Unlock()
	if needSock {
		s.setSock(socketOf(id))
	}
	if before == proto.StateCalling && after != before {
		s.tell(proto.EventConnected, "")
	}
	for _, e := range events {
		if e == proto.EventLog {
			ok, left := c.tell(time.Now())
			if left > 0 {
				s.tell(proto.EventLog, fmt.Sprintf("%d lines of sshd's were left out here", left))
			}
			if !ok {
				continue
			}
		}
		s.tell(e, l.Words)
	}
	if before != after {
		s.wake()
	}
}

// awaitsLogin reports whether a login would count now.
func (s *Session) awaitsLogin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(beforeLogin, s.rec.State)
}
