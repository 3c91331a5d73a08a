package session

import (
	"fmt"
	"os"
	"time"

	"callhome/internal/device/sshdlog"
	"callhome/internal/proto"
	"callhome/internal/ratelimit"
)

// logReader takes in a session's log. Only the session's goroutine uses it.
type logReader struct {
	s       *Session
	log     logFile
	failing bool // the log cannot be read, and that was reported
	// limits bound how many events of a kind a session publishes: a peer can make
	// sshd write lines without end, before the login and after it.
	limits map[string]*ratelimit.Limit
}

// eventLimit bounds each kind of event of a session.
var eventLimit = ratelimit.Limit{Burst: 200, Window: time.Minute}

// Pauses: before a log is tried again that could not be read or written, and
// between two readings of a log that grows without end.
const (
	troubled = 5 * time.Second
	busy     = 20 * time.Millisecond
)

func (e *logReader) close() {
	if e.log.file != nil {
		e.log.file.Close()
	}
}

// read takes in what is new. It returns after what time to read again even if
// nothing more is written, 0 for not at all. last says that sshd has exited.
func (e *logReader) read(last bool) (again time.Duration) {
	if !e.open() {
		return troubled
	}
	for {
		lines, more, err := e.log.read()
		if err != nil {
			e.trouble(err)
			again = troubled
		}
		for _, l := range lines {
			e.take(l)
		}
		if len(lines) > 0 {
			e.log.understood(e.s.rec.Offset)
		}
		if len(lines) > 0 || e.s.isUnsaved() {
			e.s.save()
		}
		switch {
		case more && !last:
			return busy
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

// trouble reports that the log cannot be read, once.
func (e *logReader) trouble(err error) {
	if !e.failing {
		e.failing = true
		e.s.publish(proto.EventTrouble, err.Error())
	}
}

// take takes in one line.
func (e *logReader) take(l logLine) {
	s := e.s
	s.mu.Lock()
	before := s.rec.State
	if before == proto.StateCalling && l.Kind == sshdlog.Connected {
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
		s.takeSocket(id)
	}
	if before == proto.StateCalling && after != before {
		s.publish(proto.EventConnected, "")
	}
	for _, name := range events {
		e.publish(name, l.Text)
	}
	if before != after {
		s.wake()
	}
}

// publish publishes an event of a line, unless the session has published too many
// of the kind.
func (e *logReader) publish(name, line string) {
	if e.limits == nil {
		e.limits = make(map[string]*ratelimit.Limit)
	}
	l := e.limits[name]
	if l == nil {
		fresh := eventLimit
		l = &fresh
		e.limits[name] = l
	}
	dropped, ok := l.Allow(time.Now())
	if !ok {
		return
	}
	if dropped > 0 {
		e.s.publish(proto.EventLog, fmt.Sprintf("%d events %q were left out here", dropped, name))
	}
	e.s.publish(name, line)
}

// run reads the log until sshd has exited, and the rest of it then. Between the
// lines it looks for the evidence of a login and of the subsystem.
func (s *Session) run(exited <-chan int) {
	wake := make(chan struct{}, 1)
	s.env.Watch.add(s.id(), wake)
	defer s.env.Watch.drop(s.id())
	e := &logReader{s: s, log: logFile{offset: s.rec.Offset, punched: s.rec.Offset}}
	defer e.close()
	proof := &prover{s: s}
	again := time.NewTimer(0) // what is there already
	defer again.Stop()
	for {
		select {
		case <-wake:
		case <-again.C:
		case <-s.reported:
		case exit := <-exited:
			e.read(false)
			proof.look() // what is left may still show a login
			if exit < 0 {
				s.sweep()
			}
			e.read(true)
			proof.end()
			s.exited(exit)
			return
		}
		next := e.read(false)
		if look := proof.look(); look > 0 && (next == 0 || look < next) {
			next = look
		}
		if next > 0 {
			again.Reset(next)
		}
	}
}
