package session

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// Restore finds the sessions again that a former manager left in env.Dir:
// those that run go on, with their number, user and age, and those that ended
// meanwhile tell how. It returns the running ones. Left are those of which it
// could not be found out, for want of descriptors say: their files stay, for
// RestoreThese. The error says what could not be read; nothing of it is fatal.
func Restore(env *Env) (found []*Session, left []int, err error) {
	ids, err := onDisk(env.Dir)
	if err != nil {
		return nil, nil, err
	}
	return RestoreThese(env, ids)
}

// RestoreThese is Restore for the sessions of these numbers.
func RestoreThese(env *Env, ids []int) (found []*Session, left []int, err error) {
	var errs []error
	for _, id := range ids {
		s, known, err := restore(env, id)
		if err != nil {
			errs = append(errs, fmt.Errorf("restoring session %d: %w", id, err))
		}
		if !known {
			left = append(left, id)
		}
		if s != nil {
			found = append(found, s)
		}
	}
	return found, left, errors.Join(errs...)
}

// restore returns a session that goes on, nil for one that has ended. Where
// that is not known it changes nothing.
func restore(env *Env, id int) (s *Session, known bool, err error) {
	data, err := os.ReadFile(recordPath(env.Dir, id))
	var rec *record
	switch {
	case err == nil:
		rec, err = parseRecord(data, id)
	case errors.Is(err, fs.ErrNotExist):
		err = nil // it was lost
	default:
		return nil, false, err
	}
	if err != nil || rec == nil {
		found, lost := rediscover(env.Dir, id)
		if lost != nil {
			return nil, false, errors.Join(err, lost)
		}
		if errors.Is(err, errNotStarted) {
			err = nil // ended between the start of sshd and the note of it
			if found != nil {
				rec.Process, rec.PID, rec.State = found.Process, found.PID, found.State
				found = rec
			}
		}
		if rec = found; rec == nil {
			// Nobody writes this log: the session ended, and who it was is lost.
			return nil, true, errors.Join(err, remove(env.Dir, id))
		}
	}
	if rec.Process.ended() {
		// Its monitor ended, or the record is wrong: what has the log goes on.
		if found, _ := rediscover(env.Dir, id); found != nil {
			rec.Process, rec.PID = found.Process, found.PID
		}
	}
	pidfd, openErr := rec.Process.open()
	if openErr != nil && !errors.Is(openErr, unix.ESRCH) {
		return nil, false, errors.Join(err, openErr)
	}
	s = of(env, *rec)
	exited := make(chan int, 1)
	if openErr != nil {
		exited <- -1
		s.run(exited) // reads the rest of the log, tells, removes the files
		return nil, true, err
	}
	s.takeSocket(rec.Process)
	s.rec.Stats = stats(s.sock)
	s.reopenPipe()
	s.publish(proto.EventRestored, "")
	s.save()
	go func() {
		defer pidfd.Close()
		_ = awaitExit(pidfd)
		exited <- -1
	}()
	go s.run(exited)
	return s, true, err
}

// rediscover builds the record of a session from the process that has its log
// for descriptor 2, where the state file cannot tell; nil where there is none.
func rediscover(dir string, id int) (*record, error) {
	log, err := os.Stat(logPath(dir, id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found Identity
	for _, id := range withLog(log) {
		// Of sshd's processes the first is the one that was started.
		if found.PID == 0 || id.StartTime < found.StartTime || id.StartTime == found.StartTime && id.PID < found.PID {
			found = id
		}
	}
	if found.PID == 0 {
		return nil, nil
	}
	rec := headOf(logPath(dir, id), id)
	if rec == nil {
		rec = &record{SessionInfo: proto.SessionInfo{Session: id, Since: log.ModTime().UTC(), Via: proto.ViaFound}}
	}
	rec.Version, rec.Process, rec.PID, rec.State = recordVersion, found, found.PID, proto.StateStarting
	return rec, nil
}

// withLog returns the processes that have a log for descriptor 2.
func withLog(log os.FileInfo) (out []Identity) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		info, err := os.Stat(filepath.Join("/proc", p.Name(), "fd/2"))
		if err != nil || !os.SameFile(info, log) {
			continue
		}
		if id, err := identify(pid); err == nil {
			out = append(out, id)
		}
	}
	return out
}

// headOf returns the record in the first line of a log; nil where there is none
// of that session.
func headOf(path string, id int) *record {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, maxRecord)).ReadBytes('\n')
	if err != nil {
		return nil
	}
	data, ok := bytes.CutPrefix(line, []byte(logHead))
	var r record
	if !ok || json.Unmarshal(data, &r) != nil || r.Session != id {
		return nil
	}
	r.Offset = int64(len(line))
	return &r
}

// openLogs returns the numbers of the sessions in dir whose log some process has
// for descriptor 2, also where the file was removed.
func openLogs(dir string) (ids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/2")
	for _, link := range links {
		path, err := os.Readlink(link)
		if err != nil || filepath.Dir(path) != filepath.Clean(dir) {
			continue
		}
		name, _, ok := strings.Cut(filepath.Base(path), ".log")
		if id, err := strconv.Atoi(name); ok && err == nil && id > 0 && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
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
		for _, id := range append(ids, openLogs(dir)...) {
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
