package session

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"callhome/internal/device/process"

	"golang.org/x/sys/unix"
)

func pipePath(dir string, id int) string { return logPath(dir, id) + ".pipe" }

// openPipe opens and follows the pipe whose end of file shows the end of the
// subsystem. It is a named pipe, so that a later manager can open it too. The caller
// owns the write end.
func (s *Session) openPipe() (*os.File, error) {
	path := pipePath(s.env.Dir, s.id())
	s.pipe.Lock()
	defer s.pipe.Unlock()
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("creating the session's pipe: %w", err)
	}
	if s.ctx.Err() != nil { // its files are removed already
		_ = os.Remove(path)
		return nil, ErrEnded
	}
	var reader *os.File
	if !s.followed { // one reader for all subsystems of a connection
		var err error
		if reader, err = os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
			return nil, fmt.Errorf("opening the session's pipe: %w", err)
		}
	}
	writer, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		if reader != nil {
			reader.Close()
		}
		return nil, fmt.Errorf("opening the session's pipe: %w", err)
	}
	if reader != nil {
		s.followPipe(reader)
	}
	return writer, nil
}

// pipePause follows each read of the pipe: a user can write there without end, and
// nothing that is written counts.
const pipePause = 10 * time.Millisecond

// followPipe owns reader. It discards what the subsystem writes there. At the end
// of file the subsystem has ended; if the connection is then still open in both
// directions, the NETCONF session was closed in order, before the connection. The
// caller holds s.pipe.
func (s *Session) followPipe(reader *os.File) {
	s.followed = true
	go func() {
		defer reader.Close()
		defer s.closeAtEnd(reader)()
		buf := make([]byte, 64<<10)
		for {
			_, err := reader.Read(buf)
			if err == io.EOF && s.unfollow(reader) {
				return
			}
			if err != nil && err != io.EOF {
				return // closeAtEnd closed it: the session has ended
			}
			time.Sleep(pipePause)
		}
	}()
}

// unfollow records the end of the subsystem and ends the following, unless a writer
// has come since.
func (s *Session) unfollow(reader *os.File) bool {
	s.pipe.Lock()
	defer s.pipe.Unlock()
	if _, err := reader.Read(make([]byte, 1)); err != io.EOF {
		return false
	}
	s.followed = false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rec.Orderly = isEstablished(s.sock)
	go s.checkEnd(s.rec.Subsystem)
	return true
}

// endTime is how long a subsystem's process may take from closing its descriptors
// to its end.
const endTime = time.Second

// checkEnd takes an orderly end back if the subsystem's process still runs: it
// closed the pipe, and has not ended.
func (s *Session) checkEnd(id process.Identity) {
	select {
	case <-s.ctx.Done():
		return
	case <-time.After(endTime):
	}
	if id.Ended() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec.Subsystem == id {
		s.rec.Orderly = false
	}
}

// closeAtEnd closes reader when the session ends.
func (s *Session) closeAtEnd(reader *os.File) (stop func()) {
	done := make(chan struct{})
	go func() {
		select {
		case <-s.ctx.Done():
			reader.Close()
		case <-done:
		}
	}()
	return func() { close(done) }
}

// reopenPipe follows the pipe of a session that an earlier manager started.
func (s *Session) reopenPipe() {
	if reader, err := os.OpenFile(pipePath(s.env.Dir, s.id()), os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
		s.pipe.Lock()
		defer s.pipe.Unlock()
		s.followPipe(reader)
	}
}
