package session

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// Restore finds the sessions again that a former manager left in env.Dir:
// those that run go on, with their number, user and age, and those that ended
// meanwhile tell how. It returns the running ones. An error beside them says
// what could not be read; nothing of it is fatal.
func Restore(env *Env) ([]*Session, error) {
	ids, err := onDisk(env.Dir)
	if err != nil {
		return nil, err
	}
	var out []*Session
	var errs []error
	for _, id := range ids {
		s, err := restore(env, id)
		if err != nil {
			errs = append(errs, fmt.Errorf("restoring session %d: %w", id, err))
		}
		if s != nil {
			out = append(out, s)
		}
	}
	return out, errors.Join(errs...)
}

func restore(env *Env, id int) (*Session, error) {
	data, err := os.ReadFile(recordPath(env.Dir, id))
	var rec *record
	if err == nil {
		rec, err = parseRecord(data, id)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // it was lost
	}
	if err != nil || rec == nil {
		found := rediscover(env.Dir, id)
		if errors.Is(err, errNotStarted) {
			err = nil // ended between the start of sshd and the note of it
			if found != nil {
				rec.Process, rec.PID, rec.State = found.Process, found.PID, found.State
				found = rec
			}
		}
		if rec = found; rec == nil {
			// Nobody writes this log: the session ended, and who it was is lost.
			return nil, errors.Join(err, remove(env.Dir, id))
		}
	}
	s := &Session{env: env, rec: *rec, done: make(chan struct{}), changed: make(chan struct{})}
	exited := make(chan int, 1)
	pidfd, openErr := rec.Process.open()
	if openErr != nil {
		exited <- -1
		s.run(exited) // reads the rest of the log, tells, removes the files
		return nil, err
	}
	s.sock = socketOf(rec.Process)
	s.rec.Stats = stats(s.sock)
	s.tell(proto.EventRestored, "")
	s.save()
	go func() {
		defer pidfd.Close()
		_ = awaitExit(pidfd)
		exited <- -1
	}()
	go s.run(exited)
	return s, err
}

// rediscover builds the record of a session from the process that has its log
// for descriptor 2, where the state file cannot tell.
func rediscover(dir string, id int) *record {
	log, err := os.Stat(logPath(dir, id))
	if err != nil {
		return nil
	}
	paths, _ := filepath.Glob("/proc/[0-9]*/fd/2")
	var found Identity
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil || !os.SameFile(info, log) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(p))))
		// Of sshd's processes the first is the one that was started.
		if id, err := identify(pid); err == nil && (found.PID == 0 || id.StartTime < found.StartTime || id.StartTime == found.StartTime && id.PID < found.PID) {
			found = id
		}
	}
	if found.PID == 0 {
		return nil
	}
	return &record{Version: recordVersion, Process: found, SessionInfo: proto.SessionInfo{
		Session: id, State: proto.StateStarting, PID: found.PID, Since: log.ModTime().UTC(), Via: "found",
	}}
}

// Next returns a number for a new session that none on disk has, and notes it.
func Next(dir string) (int, error) {
	path := filepath.Join(dir, "last")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, fmt.Errorf("numbering the session: %w", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return 0, fmt.Errorf("numbering the session: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0, fmt.Errorf("numbering the session: %w", err)
	}
	last, err := strconv.Atoi(string(text))
	if err != nil || last < 0 {
		// New, or not to be trusted: go on above what is there.
		ids, err := onDisk(dir)
		if err != nil {
			return 0, err
		}
		for _, id := range ids {
			last = max(last, id)
		}
	}
	next := []byte(strconv.Itoa(last + 1))
	if _, err := f.WriteAt(next, 0); err != nil {
		return 0, fmt.Errorf("numbering the session: %w", err)
	}
	if err := f.Truncate(int64(len(next))); err != nil {
		return 0, fmt.Errorf("numbering the session: %w", err)
	}
	return last + 1, nil
}
