package session

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"callhome/internal/device/evidence"
	"callhome/internal/device/subsystem"
	"callhome/internal/printable"
	"callhome/internal/proto"

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
	s       *Session
	since   time.Time // when the current search began; zero: no search
	claimed claim
	serves  bool // the search is for the subsystem's process
}

// look looks once, and returns when to look again, 0 for never.
func (p *prover) look() time.Duration {
	s := p.s
	s.mu.Lock()
	state, claimed, started := s.rec.State, s.rec.Claim, s.rec.Started
	s.mu.Unlock()
	switch {
	case slices.Contains(beforeLogin, state) && claimed != nil:
		if !p.login(*claimed) {
			return p.next(*claimed, false)
		}
		return p.look()
	case state == proto.StateAuthenticated && started:
		if !p.subsystem() {
			return p.next(claim{}, true)
		}
	}
	p.since = time.Time{}
	return 0
}

// next returns when to look again for that claim, 0 after maxLook.
func (p *prover) next(c claim, serves bool) time.Duration {
	now := time.Now()
	if p.since.IsZero() || c != p.claimed || serves != p.serves {
		p.since, p.claimed, p.serves = now, c, serves
	}
	on := now.Sub(p.since)
	if on < maxLook {
		return min(max(firstLook, on/4), lastLook)
	}
	if !serves {
		p.unconfirmed(c)
	}
	return 0
}

// unconfirmed drops a claim and reports it.
func (p *prover) unconfirmed(c claim) {
	s := p.s
	s.mu.Lock()
	s.rec.Claim = nil
	s.mu.Unlock()
	s.publish(proto.EventTrouble, fmt.Sprintf("login not confirmed: sshd's log names the user %q, and no process of sshd shows that login", printable.Line(c.User)))
}

// end drops and reports a claim that was not proven when sshd exited.
func (p *prover) end() {
	s := p.s
	s.mu.Lock()
	c, pending := s.rec.Claim, slices.Contains(beforeLogin, s.rec.State)
	s.mu.Unlock()
	if pending && c != nil {
		p.unconfirmed(*c)
	}
}

// login looks for the process of a login.
func (p *prover) login(c claim) bool {
	s := p.s
	s.mu.Lock()
	id, inode := s.rec.Process, inodeOf(s.sock)
	s.mu.Unlock()
	uid, ok := s.env.login(id, inode, c.User)
	if !ok {
		return false
	}
	s.mu.Lock()
	s.rec.loggedIn(uid)
	s.mu.Unlock()
	s.save()
	s.publishState(proto.EventAuthenticated, fmt.Sprintf("%s logged in (%s)", printable.Line(c.User), printable.Line(c.Method)))
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

// login returns the UID of the process that proves a login.
func (e *Env) login(sshd Identity, socket uint64, user string) (uid int, ok bool) {
	if e.proven != nil {
		return 0, e.proven(sshd, user)
	}
	p, ok := evidence.System.Login(sshd.PID, socket, user)
	return p.UIDs[0], ok
}

// serves reports whether a program runs below sshd with the user's UID.
func (e *Env) serves(sshd Identity, uid int) bool {
	if e.proven != nil {
		return e.proven(sshd, "")
	}
	_, ok := evidence.System.Program(sshd.PID, uid)
	return ok
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
	if now, err := identify(sshd.PID); err != nil || now != sshd {
		return nil, errors.New("the session's sshd has ended")
	}
	if _, below := evidence.System.Below(sshd.PID, r.PID); !below {
		return nil, fmt.Errorf("process %d is not below the session's sshd", r.PID)
	}
	id, err := identify(r.PID)
	if err != nil {
		return nil, err
	}
	pipe, err := s.openPipe()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.rec.Subsystem, s.rec.Started, s.rec.Graceful, s.rec.Orderly = id, true, false, false
	s.rec.AuthInfo, s.rec.AuthFile = keysOf(r.Auth), r.AuthFile
	s.rec.useAuthInfo()
	s.mu.Unlock()
	wakeUp(s.reported)
	return pipe, nil
}

func pipePath(dir string, id int) string { return logPath(dir, id) + ".pipe" }

// openPipe opens and follows the pipe whose end of file shows the end of the
// subsystem. It is a named pipe, so that a later manager can open it too. The caller
// owns the write end.
func (s *Session) openPipe() (*os.File, error) {
	path := pipePath(s.env.Dir, s.id())
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("creating the session's pipe: %w", err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the session's pipe: %w", err)
	}
	writer, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		reader.Close()
		return nil, fmt.Errorf("opening the session's pipe: %w", err)
	}
	s.followPipe(reader)
	return writer, nil
}

// followPipe owns reader. It discards what the subsystem writes there. At the end
// of file the subsystem has ended; if the connection is then still open in both
// directions, the NETCONF session was closed in order, before the connection.
func (s *Session) followPipe(reader *os.File) {
	go func() {
		defer reader.Close()
		defer s.closeAtEnd(reader)()
		if _, err := io.Copy(io.Discard, reader); err != nil {
			return // closeAtEnd closed it: the session has ended
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rec.Orderly = isEstablished(s.sock)
	}()
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
		s.followPipe(reader)
	}
}

// authInfo is the key of a login from sshd's ExposeAuthInfo.
type authInfo struct {
	Key  string `json:"key,omitempty"`
	Cert string `json:"cert,omitempty"`
}

// keysOf reads the last key of sshd's authentication information
// (sshd_config(5), ExposeAuthInfo): one line "publickey TYPE KEY" per step.
func keysOf(text string) (out authInfo) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
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
		out = authInfo{Key: ssh.FingerprintSHA256(key)}
		if cert, ok := key.(*ssh.Certificate); ok {
			out = authInfo{Key: ssh.FingerprintSHA256(cert.Key), Cert: printable.Line(cert.KeyId)}
		}
	}
	return out
}

// removeAuthInfo removes the file that a killed sshd leaves: a regular file of the
// user's, named as only sshd names it.
func (s *Session) removeAuthInfo() {
	s.mu.Lock()
	path, uid := s.rec.AuthFile, s.rec.UID
	s.mu.Unlock()
	if dir, name := filepath.Split(path); dir != "/tmp/" || !strings.HasPrefix(name, "sshauth.") {
		return
	}
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && int(st.Uid) == uid {
		_ = os.Remove(path)
	}
}
