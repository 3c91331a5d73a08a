package session

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"callhome/internal/atomicfile"
	"callhome/internal/device/process"
	"callhome/internal/proto"
)

// recordVersion is the version of the state file's format. A file of another
// version is ignored: the session is restored from its process and its log.
const recordVersion = 1

// record is the state of a session, and what a later manager needs to restore it.
// It is written whenever the session's state changes.
type record struct {
	Version int `json:"version"`
	proto.SessionInfo
	Process process.Identity `json:"process"`
	// Config is Owner.Config.
	Config string `json:"config,omitempty"`
	// Offset is how many bytes of the log have been processed.
	Offset int64 `json:"offset"`
	// Claims are the distinct logins in the log until one is proven, at most
	// maxClaims: a user can add lines to the log, before and after the true one.
	Claims []claim `json:"claims,omitempty"`
	// ClaimsDropped says that there were more: none of those that are left counts by
	// itself then.
	ClaimsDropped bool `json:"claims-dropped,omitempty"`
	// UID is the user's UID, once the login is proven.
	UID int `json:"uid,omitempty"`
	// Nonce must be in the helper's report of the subsystem; "" without helper.
	Nonce string `json:"nonce,omitempty"`
	// Started says that the log or a report has the start of the subsystem;
	// Subsystem is the process that reported.
	Started   bool             `json:"started,omitempty"`
	Subsystem process.Identity `json:"subsystem-process,omitzero"`
	// Program is the process that proved the subsystem where none had reported.
	Program process.Identity `json:"program,omitzero"`
	// Orderly says that the subsystem ended before sshd logged the connection's end.
	Orderly bool `json:"orderly,omitempty"`
	// AuthInfo and AuthFile are from the first report, of a process of ReportUID.
	AuthInfo  authInfo `json:"auth-info,omitzero"`
	AuthFile  string   `json:"auth-file,omitempty"`
	ReportUID int      `json:"report-uid,omitempty"`
	// KeyExchanged, NoSubsystem and Broken record lines that change no state.
	KeyExchanged bool `json:"key-exchanged,omitempty"`
	NoSubsystem  bool `json:"no-subsystem,omitempty"`
	Broken       bool `json:"broken,omitempty"`
	// ClientReason is the client's own text in SSH_MSG_DISCONNECT: untrusted.
	ClientReason string `json:"client-reason,omitempty"`
	// Unintended says that the client's reason code is not that of an intended end.
	Unintended bool `json:"unintended,omitempty"`
	// LastText is the last line that reports a failure.
	LastText string `json:"last-words,omitempty"`
	// LastLine is the last unknown line before the login, or the last ones before
	// sshd took the connection: it is the cause where sshd logged no other.
	LastLine string `json:"last-line,omitempty"`
}

// Names of a session's files behind its number: sshd's log, and the file whose
// descriptor shows the end of the subsystem.
const (
	logSuffix = "log"
	endSuffix = "end"
)

func recordPath(dir string, id int) string { return sessionPath(dir, id, "json") }
func logPath(dir string, id int) string    { return sessionPath(dir, id, logSuffix) }
func endPath(dir string, id int) string    { return sessionPath(dir, id, endSuffix) }

func sessionPath(dir string, id int, suffix string) string {
	return filepath.Join(dir, strconv.Itoa(id)+"."+suffix)
}

// write writes the record's file atomically.
func (r *record) write(dir string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("writing the state of session %d: %w", r.Session, err)
	}
	// The second line is a checksum: a damaged record could name another process or
	// another owner.
	data = append(append(data, '\n'), checksum(data)...)
	if err := atomicfile.Write(recordPath(dir, r.Session), data, atomicfile.Options{Mode: 0o600}); err != nil {
		return fmt.Errorf("writing the state of session %d: %w", r.Session, err)
	}
	return nil
}

// checksum returns the SHA-256 of a record, in hexadecimal.
func checksum(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

// maxRecord bounds a state file, in bytes: claims and lines of the log, escaped.
const maxRecord = 1 << 20

// parseRecord parses the state file of session id. Any doubt is an error.
func parseRecord(data []byte, id int) (*record, error) {
	if len(data) > maxRecord {
		return nil, errors.New("the file is too large")
	}
	// A version before checksums wrote one line.
	text, sum, summed := bytes.Cut(data, []byte("\n"))
	if summed && string(sum) != checksum(text) {
		return nil, errors.New("its checksum is wrong")
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	switch {
	case r.Version != recordVersion:
		return nil, fmt.Errorf("version %d, expected %d", r.Version, recordVersion)
	case r.Session != id:
		return nil, fmt.Errorf("session %d in the file of session %d", r.Session, id)
	case r.Process.PID <= 1 || r.Process.StartTime == 0 || r.Offset < 0:
		return nil, errors.New("the record's process or offset is invalid")
	}
	return &r, nil
}

// remains are the ended sessions whose files could not be removed, as on a disk that
// is read-only for a while.
type remains struct {
	mu  sync.Mutex
	ids map[int]bool // guarded by mu
}

// remove removes a session's files. Those that cannot be removed now are removed with
// those of a later session.
func (e *Env) remove(id int) error {
	e.removeRemains()
	err := removeFiles(e.Dir, id)
	if err != nil {
		e.remains.mu.Lock()
		defer e.remains.mu.Unlock()
		if e.remains.ids == nil {
			e.remains.ids = make(map[int]bool)
		}
		e.remains.ids[id] = true
	}
	return err
}

func (e *Env) removeRemains() {
	e.remains.mu.Lock()
	defer e.remains.mu.Unlock()
	for id := range e.remains.ids {
		if removeFiles(e.Dir, id) == nil {
			delete(e.remains.ids, id)
		}
	}
}

func removeFiles(dir string, id int) error {
	var errs []error
	for _, f := range []string{recordPath(dir, id), atomicfile.Temporary(recordPath(dir, id)), logPath(dir, id), endPath(dir, id)} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// stamp returns the time without the monotonic clock reading, which JSON has no
// place for.
func stamp() time.Time { return time.Now().Round(0).UTC() }
