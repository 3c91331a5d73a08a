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
	"slices"

	"callhome/internal/device/process"
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
		var lost error
		if rec, lost = rediscover(env.Dir, id); lost != nil {
			return nil, false, errors.Join(err, lost)
		}
		if rec == nil {
			// No process has this log: the session ended, and its record is lost.
			return nil, true, errors.Join(err, env.remove(id))
		}
	}
	if rec.Process.Ended() {
		// The monitor ended or the record is wrong: use a process that has the log.
		if found, _ := rediscover(env.Dir, id); found != nil {
			rec.Process, rec.PID = found.Process, found.PID
		}
	}
	s = newSession(env, *rec)
	waitErr := env.Watch.exits.Await(rec.Process, func() { s.supervisor.exited(-1) })
	switch {
	case errors.Is(waitErr, unix.ESRCH):
		s.supervisor.finish(-1) // reads the rest of the log, publishes the end, removes the files
		return nil, true, err
	case waitErr != nil:
		return nil, false, errors.Join(err, waitErr)
	}
	s.takeSocket(rec.Process)
	if !slices.Contains(beforeLogin, rec.State) {
		s.restoreAcks() // the earlier manager may have ended at the login
	}
	s.rec.Stats = stats(s.sock)
	s.publish(proto.EventRestored, "")
	s.save()
	s.supervisor.begin()
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
	var found process.Identity
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

// headOf returns what the first line of a log says of session id, as it was before
// sshd started; nil without that line.
func headOf(path string, id int) *record {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode() != headMode {
		return nil
	}
	line, err := bufio.NewReader(io.LimitReader(f, maxRecord)).ReadBytes('\n')
	if err != nil {
		return nil
	}
	data, ok := bytes.CutPrefix(line, []byte(logHead))
	var r record
	if !ok || json.Unmarshal(data, &r) != nil || r.Session != id {
		return nil
	}
	return &record{Offset: int64(len(line)), Config: r.Config, Nonce: r.Nonce, SessionInfo: proto.SessionInfo{
		Session: id, Host: r.Host, Port: r.Port, Opaque: r.Opaque, Remote: r.Remote, Local: r.Local, Since: r.Since, Client: r.Client, Endpoint: r.Endpoint, Via: r.Via,
	}}
}
