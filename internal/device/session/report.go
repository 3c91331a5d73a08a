package session

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"callhome/internal/device/evidence"
	"callhome/internal/device/process"
	"callhome/internal/device/subsystem"
	"callhome/internal/lazyregexp"
	"callhome/internal/proto"
	"callhome/internal/ratelimit"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// Report handles a helper's report that the subsystem starts. It relies only on
// the kernel's data: the process must be below the session's sshd. It returns the
// session's end file, which the process keeps until it ends and the caller closes, or
// why the report is not evidence.
func (s *Session) Report(r subsystem.Report) (*os.File, error) {
	s.mu.Lock()
	nonce, sshd := s.rec.Nonce, s.rec.Process
	user, proven := s.rec.UID, slices.Contains(afterLogin, s.rec.State)
	s.mu.Unlock()
	if nonce == "" || subtle.ConstantTimeCompare([]byte(nonce), []byte(r.Nonce)) != 1 {
		return nil, errors.New("unknown nonce")
	}
	id, err := process.Identify(r.PID)
	if err != nil {
		return nil, err
	}
	// SO_PEERCRED has the number of a process that may have ended: another user's
	// process could have it now.
	if now, err := evidence.System.Look(r.PID, 0); err != nil || now.UIDs != [4]int{r.UID, r.UID, r.UID, r.UID} {
		return nil, fmt.Errorf("process %d is not user %d's", r.PID, r.UID)
	}
	if proven && r.UID != user {
		return nil, fmt.Errorf("the report is user %d's, the session user %d's", r.UID, user)
	}
	if !process.System.Below(sshd.PID, r.PID) {
		return nil, fmt.Errorf("process %d is not below the session's sshd", r.PID)
	}
	if !sshd.Runs() || !id.Runs() {
		return nil, errors.New("the session's sshd or the helper has ended")
	}
	s.mu.Lock()
	_, allowed := s.reports.Allow(time.Now())
	s.mu.Unlock()
	if !allowed {
		return nil, errors.New("too many reports of this session")
	}
	end, err := s.openEnd()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	first := s.rec.Subsystem.PID == 0
	s.rec.Subsystem, s.rec.Started, s.rec.Graceful, s.rec.Orderly = id, true, false, false
	agreed := true
	if first {
		agreed = s.rec.firstReport(r)
	}
	s.mu.Unlock()
	s.supervisor.reported.Store(true)
	s.supervisor.stir()
	if !agreed {
		s.publish(proto.EventTrouble, disagreement)
	}
	return end, nil
}

const disagreement = "sshd's log and what sshd exposed to the user do not agree on the key of the login"

// firstReport stores what the first helper says of the login; what later ones say
// can be of the user's own making. It reports whether the log agrees.
func (r *record) firstReport(report subsystem.Report) (agreed bool) {
	r.AuthInfo, r.ReportUID = keysOf(report.Auth), report.UID
	if authFile().MatchString(report.AuthFile) {
		r.AuthFile = report.AuthFile
	}
	if r.AuthInfo == (authInfo{}) || !slices.Contains(afterLogin, r.State) {
		return true // chooseClaim follows with the proof of the login
	}
	return r.chooseClaim()
}

// authFile matches the names that sshd gives the file of ExposeAuthInfo.
var authFile = lazyregexp.New(`^/tmp/sshauth\.[A-Za-z0-9]{1,32}$`)

// reportLimit bounds the reports of a session: its user can start the subsystem
// any number of times.
var reportLimit = ratelimit.Limit{Burst: 100, Window: time.Minute}

// authInfo is the last step of a login from sshd's ExposeAuthInfo.
type authInfo struct {
	Method string `json:"method,omitempty"`
	Key    string `json:"key,omitempty"` // of the method publickey
}

// shows reports whether a claim is of that step.
func (a authInfo) shows(c claim) bool {
	return c.Method == a.Method && (a.Key == "" || c.Key == a.Key)
}

// keysOf reads the last step of sshd's authentication information
// (sshd_config(5), ExposeAuthInfo): one line "publickey TYPE KEY" or the method per
// step.
func keysOf(text string) (out authInfo) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 1 && slices.Contains(otherMethods, fields[0]) {
			out = authInfo{Method: fields[0]}
		}
		if len(fields) != 3 || fields[0] != "publickey" {
			continue
		}
		blob, err := base64.StdEncoding.DecodeString(fields[2])
		if err != nil {
			continue
		}
		key, err := ssh.ParsePublicKey(blob)
		if err != nil {
			continue
		}
		if cert, ok := key.(*ssh.Certificate); ok {
			key = cert.Key
		}
		out = authInfo{Method: fields[0], Key: ssh.FingerprintSHA256(key)}
	}
	return out
}

// otherMethods are sshd's methods without a key (RFC 4252, 4256, 4462).
var otherMethods = []string{"password", "keyboard-interactive", "hostbased", "gssapi-with-mic", "none"}

// removeAuthInfo removes the file that a killed sshd leaves: a regular file of the
// proven user's, named as only sshd names it.
func (s *Session) removeAuthInfo() {
	s.mu.Lock()
	path, uid, proven := s.rec.AuthFile, s.rec.UID, s.rec.User != "" && s.rec.ReportUID == s.rec.UID
	s.mu.Unlock()
	var st unix.Stat_t
	if proven && authFile().MatchString(path) && unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && int(st.Uid) == uid {
		_ = os.Remove(path)
	}
}
