package session

import (
	"context"
	"fmt"
	"os"
	"time"

	"callhome/internal/device/process"
	"callhome/internal/proto"
)

// openEnd opens the session's end file: empty, and read-only, so its holder can
// write nothing anywhere. The subsystem keeps the descriptor, and the kernel reports
// its last close to the Watch. The caller owns the file.
func (s *Session) openEnd() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec.State == proto.StateClosed { // its files are removed now
		return nil, ErrEnded
	}
	f, err := os.OpenFile(endPath(s.env.Dir, s.id()), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the session's end file: %w", err)
	}
	return f, nil
}

// readLog reads the log, and decides on an end of the subsystem that happened since
// the last call. It returns when to read again, as logReader.read does.
//
// sshd logs that a connection has ended before it closes the subsystem's input. So a
// subsystem that ended first, by the kernel's order, ended by itself: its session
// was closed in order, also where the client closed the connection at once. Only the
// order counts. A line that the user makes sshd write can make an orderly end look
// like a loss, and never the other way round.
func (s *Session) readLog(r *logReader, last bool) (again time.Duration) {
	seen, before := s.env.Watch.take(s.id()), s.closing()
	again = r.read(last)
	if closing := s.closing(); closing && !before {
		// The line may be younger than what was taken: the subsystem's end is then
		// in the queue, before the line.
		late := s.env.Watch.take(s.id())
		late.after = late.after || seen.grown
		if late.ended {
			seen = late
		}
	}
	if seen.ended {
		s.subsystemEnded(!before && !(seen.after && s.closing()))
	}
	return again
}

// closing reports whether sshd has logged the end of the connection.
func (s *Session) closing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec.Cause != ""
}

// subsystemEnded records an end of the subsystem, and whether it was before sshd
// logged the connection's.
func (s *Session) subsystemEnded(first bool) {
	s.mu.Lock()
	s.rec.Orderly = first
	id := s.rec.Subsystem
	confirm := first && s.confirming != id
	var ctx context.Context
	if confirm {
		if s.endConfirm != nil {
			s.endConfirm() // another process is the subsystem now
		}
		s.confirming = id
		ctx, s.endConfirm = context.WithCancel(s.ctx)
	}
	s.mu.Unlock()
	s.save()
	if confirm {
		go s.confirmEnd(ctx, id)
	}
}

// endTime is how long a subsystem's process may take from closing its descriptors
// to its end.
const endTime = time.Second

// confirmEnd takes an orderly end back if the subsystem's process still runs: it has
// closed the end file, as programs do that close all descriptors that they do not
// know. Its end is then that of its pidfd. There is at most one for a session: a user
// can close the file any number of times.
func (s *Session) confirmEnd(ctx context.Context, id process.Identity) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(endTime):
	}
	if id.Ended() {
		return
	}
	pidfd, err := id.Open()
	if err != nil {
		return
	}
	defer pidfd.Close()
	s.mu.Lock()
	if s.rec.Subsystem == id {
		s.rec.Orderly = false
	}
	s.mu.Unlock()
	defer context.AfterFunc(ctx, func() { pidfd.Close() })()
	if process.AwaitExit(pidfd) != nil {
		return
	}
	s.mu.Lock()
	decided := s.rec.Subsystem != id || s.rec.Orderly // by the end file, meanwhile
	s.mu.Unlock()
	if !decided {
		s.env.Watch.end(s.id())
	}
}

// endedUnseen reports whether the subsystem ended while no manager ran.
func (s *Session) endedUnseen() bool {
	s.mu.Lock()
	id, orderly := s.rec.Subsystem, s.rec.Orderly
	s.mu.Unlock()
	return id.PID != 0 && !orderly && id.Ended()
}
