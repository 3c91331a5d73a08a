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
	"strings"
	"time"

	"callhome/internal/proto"
)

// recordVersion is the form of the state file. A file of another version is
// not read: the session is found again by its process and its log.
const recordVersion = 1

// record is what is known of a session, and what a later manager needs to go
// on with it. It is written whenever the session's state changes.
type record struct {
	Version int `json:"version"`
	proto.SessionInfo
	Process Identity `json:"process"`
	// Config is Owner's.
	Config string `json:"config,omitempty"`
	// Offset is how much of the log has been understood.
	Offset int64 `json:"offset"`
	// Claim is the last login in the log that is not proven yet.
	Claim *claim `json:"claim,omitempty"`
	// UID is the user's number, once the login is proven.
	UID int `json:"uid,omitempty"`
	// Nonce is what the helper's report of the subsystem has; "" without helper.
	Nonce string `json:"nonce,omitempty"`
	// Started says that the log or a report has a start of the subsystem;
	// Subsystem is the process that reported.
	Started   bool     `json:"started,omitempty"`
	Subsystem Identity `json:"subsystem-process,omitzero"`
	// Orderly says that the subsystem ended while the connection was open.
	Orderly  bool     `json:"orderly,omitempty"`
	AuthInfo authInfo `json:"auth-info,omitzero"`
	AuthFile string   `json:"auth-file,omitempty"`
	// KeyExchanged, NoSubsystem and Broken remember lines that name no state.
	KeyExchanged bool `json:"key-exchanged,omitempty"`
	NoSubsystem  bool `json:"no-subsystem,omitempty"`
	Broken       bool `json:"broken,omitempty"`
	// LastText is the last line that told of something going wrong.
	LastText string `json:"last-words,omitempty"`
	// LastLine is the last line before the login that is not understood: it is
	// the cause where sshd ended without another one.
	LastLine string `json:"last-line,omitempty"`
}

func recordPath(dir string, id int) string { return filepath.Join(dir, strconv.Itoa(id)+".json") }
func logPath(dir string, id int) string    { return filepath.Join(dir, strconv.Itoa(id)+".log") }

// write puts the record in its file, whole or not at all.
func (r *record) write(dir string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("writing the state of session %d: %w", r.Session, err)
	}
	// The second line is a checksum: a record with a wrong digit could name another
	// process or another owner.
	data = append(append(data, '\n'), checksum(data)...)
	tmp := recordPath(dir, r.Session) + ".tmp"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("writing the state of session %d: %w", r.Session, err)
	}
	if err := os.Rename(tmp, recordPath(dir, r.Session)); err != nil {
		return fmt.Errorf("writing the state of session %d: %w", r.Session, err)
	}
	return nil
}

// checksum is that of a record, in hexadecimal.
func checksum(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }

// maxRecord bounds a state file, in bytes.
const maxRecord = 64 << 10

// errNotStarted says that a session's file is from before its process.
var errNotStarted = errors.New("no process in it")

// parseRecord reads a state file for session id. Whatever it is not sure of is
// an error; with errNotStarted the rest is sure.
func parseRecord(data []byte, id int) (*record, error) {
	if len(data) > maxRecord {
		return nil, errors.New("the file is too large")
	}
	// A record of a version before checksums has one line.
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
	case r.Process == (Identity{}) && r.PID == 0:
		return &r, errNotStarted
	case r.Process.PID <= 1 || r.Process.StartTime == 0 || r.Offset < 0:
		return nil, errors.New("a wrong process in it")
	}
	return &r, nil
}

// onDisk returns the numbers of the sessions that have a file in dir.
func onDisk(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing the sessions: %w", err)
	}
	seen := make(map[int]bool)
	var ids []int
	for _, e := range entries {
		name, _, _ := strings.Cut(e.Name(), ".")
		id, err := strconv.Atoi(name)
		if err == nil && id > 0 && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// remove takes the session's files away.
func remove(dir string, id int) error {
	var errs []error
	for _, f := range []string{recordPath(dir, id), recordPath(dir, id) + ".tmp", logPath(dir, id), pipePath(dir, id)} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// stamp is when something happened, without the monotonic part that no file
// can carry.
func stamp() time.Time { return time.Now().Round(0).UTC() }
