package session

import (
	"os"
	"time"

	"callhome/internal/device/hostsaccess"
	"callhome/internal/device/process"
	"callhome/internal/device/sshdlog"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// order is a request to end a session: the end and the cause to publish.
type order struct {
	end   proto.End
	cause string
}

// Fail ends a session that has no connection, unless it has ended already.
func (s *Session) Fail(stage proto.Stage, cause string) {
	s.finish(func(r *record) string {
		r.Stage, r.Cause, r.End = stage, cause, proto.EndNoConnection
		if stage == proto.StageHandover {
			r.End = proto.EndSshd
		}
		return proto.EventFailed
	})
}

// Kill ends the session for the named peer, as End does.
func (s *Session) Kill(peer string) { s.End(proto.EndKilled, "ended by "+peer) }

// EndSoon is End without waiting. Ending is true when it returns.
func (s *Session) EndSoon(end proto.End, cause string) {
	s.mu.Lock()
	s.request(end, cause)
	s.mu.Unlock()
	go s.End(end, cause)
}

// Ending reports whether the end of the session was requested.
func (s *Session) Ending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.order.end != ""
}

// request records the first request to end the session, and returns it. The caller
// holds s.mu.
func (s *Session) request(end proto.End, cause string) order {
	if s.order.end == "" {
		s.order = order{end, cause}
	}
	return s.order
}

// End ends the session: sshd, its process group, the subsystem, and the
// connection. It returns when all have ended. The first end and cause given are
// the ones published.
func (s *Session) End(end proto.End, cause string) {
	s.begin.Lock()
	s.mu.Lock()
	id := s.rec.Process
	o := s.request(end, cause)
	s.mu.Unlock()
	if id.PID == 0 {
		// No process was started, and none will be: Start finds the session ended.
		s.finish(func(r *record) string {
			r.Stage, r.Cause, r.End = proto.StageTCP, o.cause, o.end
			return proto.EventFailed
		})
		s.begin.Unlock()
		return
	}
	s.begin.Unlock()
	for id.EndTree() != nil {
		select { // for example no free descriptors
		case <-s.Done():
			return
		case <-time.After(retryPause):
		}
	}
	s.shutdown()
	<-s.Done()
}

// shutdown ends the connection, also where other processes hold the socket.
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

// stageOfExit is the failed stage by the exit status of an executable that got no
// connection, if it follows sysexits(3) as callhome-trigger does.
var stageOfExit = map[int]proto.Stage{
	sysexits.NoHost: proto.StageName, sysexits.NoInput: proto.StageHandover,
	sysexits.Config: proto.StageHandover, sysexits.NoPerm: proto.StageHandover,
}

// sweep ends the remaining processes of a session whose sshd did not exit by
// itself: after a SIGKILL of sshd's monitor the user's sshd, shell and subsystem
// keep running and hold the connection. The session's processes have its log as
// descriptor 2; the subsystem's is the one that reported, or that was found.
func (s *Session) sweep() {
	s.mu.Lock()
	sub, program := s.rec.Subsystem, s.rec.Program
	s.mu.Unlock()
	left := append(sub.Tree(), program.Tree()...) // none of those that are not known
	if log, err := os.Stat(logPath(s.env.Dir, s.id())); err == nil {
		for _, id := range withLog(log) {
			left = append(left, id.Tree()...)
		}
	}
	s.shutdown()      // then the user's sshd exits, and its children get another parent
	process.End(left) // one that cannot be signalled has no connection at least
}

// exited records sshd's exit, which ends the session.
func (s *Session) exited(exit int) {
	s.finish(func(r *record) string {
		reached := r.State
		if exit == 0 && r.silent() {
			if cause := hostsaccess.Cause(hostsaccess.Dir); cause != "" {
				r.Cause, r.LastText = string(sshdlog.Prohibited), cause
			}
		}
		event := r.end(exit, s.order)
		if stage, ok := stageOfExit[exit]; ok && reached == proto.StateCalling {
			r.Stage = stage
		}
		return event
	})
}

// finish ends the session, once: finalize completes the record and returns the
// event to publish; the session's files are removed and waiters released. A later
// call returns when that is done.
func (s *Session) finish(finalize func(*record) (event string)) {
	s.finishing.Do(func() {
		s.mu.Lock()
		now := stamp()
		event := finalize(&s.rec)
		s.rec.State, s.rec.Ended = proto.StateClosed, &now
		s.rec.SessionInfo.Stats = stats(s.sock)
		sock := s.sock
		s.sock = nil
		s.mu.Unlock()
		if sock != nil {
			// Not under the lock: who handed the socket over can still set SO_LINGER
			// (socket(7)), and the last close then waits for the peer.
			if raw, err := sock.SyscallConn(); err == nil {
				_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{}) })
			}
			sock.Close()
		}
		s.removeAuthInfo() // an sshd that a signal ended leaves it
		err := s.env.remove(s.id())
		s.publish(event, "")
		if err != nil {
			s.publish(proto.EventTrouble, err.Error())
		}
		s.wake()
		s.cancel()
	})
}
