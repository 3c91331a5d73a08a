package session

import (
	"os"
	"time"

	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// order is that a session shall end, how that is called, and why.
type order struct {
	end   proto.End
	cause string
}

// Fail ends a session that never got a connection, unless it was ended before.
func (s *Session) Fail(stage proto.Stage, cause string) {
	s.finish(func(r *record) string {
		r.Stage, r.Cause, r.End = stage, cause, proto.EndNoConnection
		if stage == proto.StageHandover {
			r.End = proto.EndSshd
		}
		return proto.EventFailed
	})
}

// Kill ends the session for the named caller, as End does.
func (s *Session) Kill(who string) { s.End(proto.EndKilled, "ended by "+who) }

// End ends the session: sshd, its group, the subsystem, and the connection. It
// returns when all are gone. The first reason that is given is the one told.
func (s *Session) End(end proto.End, cause string) {
	s.begin.Lock()
	s.mu.Lock()
	id := s.rec.Process
	if s.order.end == "" {
		s.order = order{end, cause}
	}
	o := s.order
	s.mu.Unlock()
	if id.PID == 0 {
		// Nothing was started, and nothing will be: Start finds it ended.
		s.finish(func(r *record) string {
			r.Stage, r.Cause, r.End = proto.StageTCP, o.cause, o.end
			return proto.EventFailed
		})
		s.begin.Unlock()
		return
	}
	s.begin.Unlock()
	for endTree(id) != nil {
		select { // for want of descriptors, say
		case <-s.Done():
			return
		case <-time.After(troubled):
		}
	}
	s.shutdown()
	<-s.Done()
}

// shutdown ends the connection, whatever still has the socket open.
func (s *Session) shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sock == nil {
		return
	}
	if raw, err := s.sock.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
}

// stageOfExit is what the exit status of an executable says that never got a
// connection, where it follows sysexits(3) as callhome-trigger does.
var stageOfExit = map[int]proto.Stage{
	sysexits.NoHost: proto.StageName, sysexits.NoInput: proto.StageHandover,
	sysexits.Config: proto.StageHandover, sysexits.NoPerm: proto.StageHandover,
}

// sweep ends what is left of a session whose sshd did not end by itself: after a
// SIGKILL of its monitor the user's sshd, shell and subsystem live on and hold the
// connection. What belongs to the session has its log for descriptor 2, or is the
// subsystem's process that reported.
func (s *Session) sweep() {
	s.mu.Lock()
	left := []Identity{s.rec.Subsystem}
	s.mu.Unlock()
	if log, err := os.Stat(logPath(s.env.Dir, s.id())); err == nil {
		for _, id := range withLog(log) {
			left = append(append(left, id), descendants(id.PID)...)
		}
	}
	s.shutdown() // after it the user's sshd ends, and its children have another parent
	for _, id := range left {
		if id.PID != 0 {
			_ = endTree(id) // what cannot be ended has no connection any more
		}
	}
}

// exited records sshd's exit, which is the session's end.
func (s *Session) exited(exit int) {
	s.finish(func(r *record) string {
		reached := r.State
		event := r.end(exit, s.order)
		if stage, ok := stageOfExit[exit]; ok && reached == proto.StateCalling {
			r.Stage = stage
		}
		return event
	})
}

// finish ends the session, once: close closes the books and returns the event
// that tells of it, what the session had is removed, and those who wait are let
// go. A later call returns when that is done.
func (s *Session) finish(close func(*record) (event string)) {
	s.over.Do(func() {
		s.mu.Lock()
		now := stamp()
		event := close(&s.rec)
		s.rec.State, s.rec.Ended = proto.StateClosed, &now
		s.rec.SessionInfo.Stats = stats(s.sock)
		sock := s.sock
		s.sock = nil
		s.mu.Unlock()
		if sock != nil {
			sock.Close() // not under the lock: it can take its time (SO_LINGER, socket(7))
		}
		s.removeAuthInfo() // sshd that was ended by a signal leaves it
		err := remove(s.env.Dir, s.id())
		s.publish(event, "")
		if err != nil {
			s.publish(proto.EventTrouble, err.Error())
		}
		s.wake()
		s.cancel()
	})
}
