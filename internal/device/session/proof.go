package session

import (
	"cmp"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"callhome/internal/device/evidence"
	"callhome/internal/device/subsystem"
	"callhome/internal/printable"
	"callhome/internal/proto"
	"callhome/internal/ratelimit"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// sshd's log proves nothing: sshd writes the user's name, algorithm names and the
// client's disconnect message with the line ends in them, so a peer without a key
// can write whole lines. A login in the log is a claim. The session becomes
// authenticated when package evidence finds a process that exists only after a
// login, and serving when it finds the subsystem's process (docs/security.md).

// claim is the login that a line "Accepted ..." claims.
type claim struct {
	User   string `json:"user"`
	Method string `json:"method,omitempty"`
	Key    string `json:"key,omitempty"`
	Cert   string `json:"cert,omitempty"`
}

// How long the prover looks for evidence after a claim: it is there within 11 ms
// of a login (measured), on a busy machine later. The pauses between looks grow.
const (
	maxLook   = 30 * time.Second
	firstLook = time.Millisecond
	lastLook  = 250 * time.Millisecond
)

// prover looks for evidence. Only the session's goroutine uses it.
type prover struct {
	s      *Session
	since  time.Time // when the current search began; zero: no search
	claims int       // number of claims that the search is about
	serves bool      // the search is for the subsystem's process
}

// look looks once, and returns when to look again, 0 for never.
func (p *prover) look() time.Duration {
	s := p.s
	s.mu.Lock()
	state, claims, started := s.rec.State, len(s.rec.Claims), s.rec.Started
	s.mu.Unlock()
	switch {
	case slices.Contains(beforeLogin, state) && claims > 0:
		if !p.login() {
			return p.next(claims, false)
		}
		return p.look()
	case state == proto.StateAuthenticated && started:
		if !p.subsystem() {
			return p.next(0, true)
		}
	}
	p.since = time.Time{}
	return 0
}

// next returns when to look again for those claims, 0 after maxLook.
func (p *prover) next(claims int, serves bool) time.Duration {
	now := time.Now()
	if p.since.IsZero() || claims != p.claims || serves != p.serves {
		p.since, p.claims, p.serves = now, claims, serves
	}
	on := now.Sub(p.since)
	if on < maxLook {
		return min(max(firstLook, on/4), lastLook)
	}
	if !serves {
		p.end()
	}
	return 0
}

// end drops and reports claims that are not proven.
func (p *prover) end() {
	s := p.s
	s.mu.Lock()
	claims, pending := s.rec.Claims, slices.Contains(beforeLogin, s.rec.State)
	if pending {
		s.rec.Claims = nil
	}
	s.mu.Unlock()
	if pending && len(claims) > 0 {
		s.publish(proto.EventTrouble, fmt.Sprintf("login not confirmed: sshd's log names the user %q, and no process of sshd shows that login", printable.Line(claims[len(claims)-1].User)))
	}
}

// login looks for the process of a login.
func (p *prover) login() bool {
	s := p.s
	s.mu.Lock()
	id, inode, claims := s.rec.Process, inodeOf(s.sock), slices.Clone(s.rec.Claims)
	s.mu.Unlock()
	user, uid, ok := s.env.login(id, inode, claims)
	if !ok {
		return false
	}
	s.mu.Lock()
	agreed := s.rec.loggedIn(user, uid)
	several, method := len(s.rec.Claims) > 1, s.rec.Method
	s.mu.Unlock()
	s.save()
	s.publishState(proto.EventAuthenticated, fmt.Sprintf("%s logged in (%s)", printable.Line(user), cmp.Or(printable.Line(method), "method not known")))
	if several {
		s.publish(proto.EventTrouble, "sshd's log has several logins of the user in this session: the client wrote into the log")
	}
	if !agreed {
		s.publish(proto.EventTrouble, disagreement)
	}
	return true
}

// subsystem looks for the subsystem's process: the one that reported or, without a
// helper, one below the session's sshd with the user's UID.
func (p *prover) subsystem() bool {
	s := p.s
	s.mu.Lock()
	id, uid, report, helped := s.rec.Process, s.rec.UID, s.rec.Subsystem, s.rec.Nonce != ""
	s.mu.Unlock()
	switch {
	case report.PID != 0:
	case helped && (!p.serves || time.Since(p.since) < time.Second):
		return false // the helper's report is still to come, and has more in it
	case !s.env.serves(id, uid):
		return false
	}
	s.mu.Lock()
	s.rec.State = proto.StateServing
	s.mu.Unlock()
	s.save()
	s.publishState(proto.EventSubsystem, "the netconf subsystem was started")
	return true
}

// login returns the user and the UID of the process that proves a login.
func (e *Env) login(sshd Identity, socket uint64, claims []claim) (user string, uid int, ok bool) {
	if e.proven != nil {
		user = claims[len(claims)-1].User
		return user, 0, e.proven(sshd, user)
	}
	if !sshd.runs() {
		return "", 0, false
	}
	user, uid, ok = evidence.System.Login(sshd.PID, socket, func(name string) bool {
		return slices.ContainsFunc(claims, func(c claim) bool { return c.User == name })
	})
	return user, uid, ok && sshd.runs()
}

// serves reports whether a program runs below sshd with the user's UID.
func (e *Env) serves(sshd Identity, uid int) bool {
	if e.proven != nil {
		return e.proven(sshd, "")
	}
	if !sshd.runs() {
		return false
	}
	_, ok := evidence.System.Program(sshd.PID, uid)
	return ok && sshd.runs()
}

// inodeOf returns a socket's inode number, which /proc shows; 0 without a socket.
func inodeOf(sock *os.File) uint64 {
	if sock == nil {
		return 0
	}
	var st unix.Stat_t
	raw, err := sock.SyscallConn()
	if err != nil {
		return 0
	}
	if raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }) != nil || err != nil {
		return 0
	}
	return st.Ino
}

// Report handles a helper's report that the subsystem starts. It relies only on
// the kernel's data: the process must be below the session's sshd. It returns the
// write end of the session's pipe, which the process keeps until it ends and the
// caller closes, or why the report is not evidence.
func (s *Session) Report(r subsystem.Report) (*os.File, error) {
	s.mu.Lock()
	nonce, sshd := s.rec.Nonce, s.rec.Process
	s.mu.Unlock()
	if nonce == "" || subtle.ConstantTimeCompare([]byte(nonce), []byte(r.Nonce)) != 1 {
		return nil, errors.New("unknown nonce")
	}
	id, err := identify(r.PID)
	if err != nil {
		return nil, err
	}
	if _, below := evidence.System.Below(sshd.PID, r.PID); !below {
		return nil, fmt.Errorf("process %d is not below the session's sshd", r.PID)
	}
	if !sshd.runs() || !id.runs() {
		return nil, errors.New("the session's sshd or the helper has ended")
	}
	s.mu.Lock()
	_, allowed := s.reports.Allow(time.Now())
	s.mu.Unlock()
	if !allowed {
		return nil, errors.New("too many reports of this session")
	}
	pipe, err := s.openPipe()
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
	wakeUp(s.reported)
	if !agreed {
		s.publish(proto.EventTrouble, disagreement)
	}
	return pipe, nil
}

const disagreement = "sshd's log and what sshd exposed to the user do not agree on the key of the login"

// firstReport stores what the first helper says of the login; what later ones say
// can be of the user's own making. It reports whether the log agrees.
func (r *record) firstReport(report subsystem.Report) (agreed bool) {
	r.AuthInfo, r.ReportUID = keysOf(report.Auth), report.UID
	if authFile.MatchString(report.AuthFile) {
		r.AuthFile = report.AuthFile
	}
	if r.AuthInfo == (authInfo{}) || !slices.Contains(afterLogin, r.State) {
		return true // chooseClaim follows with the proof of the login
	}
	return r.chooseClaim()
}

// authFile matches the names that sshd gives the file of ExposeAuthInfo.
var authFile = regexp.MustCompile(`^/tmp/sshauth\.[A-Za-z0-9]{1,32}$`)

// reportLimit bounds the reports of a session: its user can start the subsystem
// any number of times.
var reportLimit = ratelimit.Limit{Burst: 100, Window: time.Minute}

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
				break
			}
			if err != nil && err != io.EOF {
				return // closeAtEnd closed it: the session has ended
			}
			time.Sleep(pipePause)
		}
		s.mu.Lock()
		id := s.rec.Subsystem
		s.rec.Orderly = isEstablished(s.sock)
		s.mu.Unlock()
		s.checkEnd(id)
	}()
}

// unfollow ends the following of the pipe, unless a writer has come since.
func (s *Session) unfollow(reader *os.File) bool {
	s.pipe.Lock()
	defer s.pipe.Unlock()
	if _, err := reader.Read(make([]byte, 1)); err != io.EOF {
		return false
	}
	s.followed = false
	return true
}

// endTime is how long a subsystem's process may take from closing its descriptors
// to its end.
const endTime = time.Second

// checkEnd takes an orderly end back if the subsystem's process still runs: it
// closed the pipe, and has not ended.
func (s *Session) checkEnd(id Identity) {
	select {
	case <-s.ctx.Done():
		return
	case <-time.After(endTime):
	}
	if !id.runs() {
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
	if proven && authFile.MatchString(path) && unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && int(st.Uid) == uid {
		_ = os.Remove(path)
	}
}
