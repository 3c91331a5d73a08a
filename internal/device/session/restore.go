package session

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// Restore restores the sessions that an earlier manager left in env.Dir. Running
// ones keep their number, user and age; for those that ended meanwhile it
// publishes the end. It returns the running ones. left are those whose state it
// could not determine, for example without free descriptors: their files stay, for
// RestoreThese. The error says what could not be read; it is not fatal.
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

// restore returns a running session, nil for one that has ended. Where it cannot
// determine which (known is false) it changes nothing.
func restore(env *Env, id int) (s *Session, known bool, err error) {
	data, err := os.ReadFile(recordPath(env.Dir, id))
	var rec *record
	switch {
	case err == nil:
		rec, err = parseRecord(data, id)
	case errors.Is(err, fs.ErrNotExist):
		err = nil // the state file was lost
	default:
		return nil, false, err
	}
	if err != nil || rec == nil {
		found, lost := rediscover(env.Dir, id)
		if lost != nil {
			return nil, false, errors.Join(err, lost)
		}
		if errors.Is(err, errNotStarted) {
			err = nil // the manager ended between sshd's start and writing its process
			if found != nil {
				rec.Process, rec.PID, rec.State = found.Process, found.PID, found.State
				found = rec
			}
		}
		if rec = found; rec == nil {
			// No process has this log: the session ended, and its record is lost.
			return nil, true, errors.Join(err, remove(env.Dir, id))
		}
	}
	if rec.Process.ended() {
		// The monitor ended or the record is wrong: use a process that has the log.
		if found, _ := rediscover(env.Dir, id); found != nil {
			rec.Process, rec.PID = found.Process, found.PID
		}
	}
	pidfd, openErr := rec.Process.open()
	if openErr != nil && !errors.Is(openErr, unix.ESRCH) {
		return nil, false, errors.Join(err, openErr)
	}
	s = newSession(env, *rec)
	exited := make(chan int, 1)
	if openErr != nil {
		exited <- -1
		s.run(exited) // reads the rest of the log, publishes the end, removes the files
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

// rediscover builds the record of a session without a usable state file, from the
// process that has its log as descriptor 2; nil without such a process.
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
		// The oldest of sshd's processes is the one that the manager started.
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

// withLog returns the processes that have the log as descriptor 2.
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
		link := filepath.Join("/proc", p.Name(), "fd/2")
		path, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(filepath.Base(path), log.Name()) || !isFile(link, log) {
			continue
		}
		if id, err := identify(pid); err == nil {
			out = append(out, id)
		}
	}
	return out
}

// headOf returns the record of session id in the first line of a log, nil without
// one.
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

// openLogs returns the numbers of the sessions in dir whose log is descriptor 2 of
// a process, also where the file was removed.
func openLogs(dir string) (ids []int) {
	own, err := os.Stat(dir)
	if err != nil {
		return nil
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/2")
	for _, link := range links {
		path, err := os.Readlink(link)
		if err != nil || filepath.Dir(path) != filepath.Clean(dir) {
			continue
		}
		name, _, ok := strings.Cut(filepath.Base(path), ".log")
		// In a namespace of its own another process can have a file of that path.
		if id, err := strconv.ParseInt(name, 10, 32); ok && err == nil && id > 0 && !slices.Contains(ids, int(id)) && isOwn(link, own) {
			ids = append(ids, int(id))
		}
	}
	return ids
}

// statx describes the file behind a link of /proc without asking a file system that
// may not answer (FUSE, NFS).
func statx(link string) (st unix.Statx_t, err error) {
	err = unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st)
	return st, err
}

// isFile reports whether link leads to that file.
func isFile(link string, file os.FileInfo) bool {
	st, err := statx(link)
	want, ok := file.Sys().(*syscall.Stat_t)
	return err == nil && ok && st.Ino == want.Ino && unix.Mkdev(st.Dev_major, st.Dev_minor) == want.Dev
}

// isOwn reports whether link leads to a regular file of ours, in the file system of
// that directory.
func isOwn(link string, dir os.FileInfo) bool {
	st, err := statx(link)
	want, ok := dir.Sys().(*syscall.Stat_t)
	return err == nil && ok && uint32(st.Mode)&unix.S_IFMT == unix.S_IFREG && int(st.Uid) == os.Geteuid() && unix.Mkdev(st.Dev_major, st.Dev_minor) == want.Dev
}

// Next returns the number of a new session, which no session on disk has, and
// writes it to the file "last".
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
		// A new or damaged file: continue above the highest number in use.
		ids, err := onDisk(dir)
		if err != nil {
			return 0, err
		}
		for _, id := range append(ids, openLogs(dir)...) {
			last = max(last, id)
		}
	}
	if last >= math.MaxInt32 {
		return 0, fmt.Errorf("numbering the session: %d is the last number; remove %s when no session runs", last, path)
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
