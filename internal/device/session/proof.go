package session

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"time"

	"callhome/internal/device/evidence"
	"callhome/internal/device/process"
	"callhome/internal/printable"
	"callhome/internal/proto"

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

// prover looks for evidence. Only the session's supervisor uses it.
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
	state, claims, started, reported := s.rec.State, len(s.rec.Claims), s.rec.Started, s.rec.Subsystem.PID != 0
	s.mu.Unlock()
	switch {
	// The log may lack the line of the login, as on a full disk. A helper's report
	// needs none; method and key are then not known.
	case slices.Contains(beforeLogin, state) && (claims > 0 || reported):
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
	several, method := len(s.rec.Claims) > 1 || s.rec.ClaimsDropped, s.rec.Method
	s.restoreAcks()
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
	var program process.Identity
	switch {
	case report.PID != 0:
	case helped && (!p.serves || time.Since(p.since) < time.Second):
		return false // the helper's report is still to come, and has more in it
	default:
		var ok bool
		if program, ok = s.env.serves(id, uid); !ok {
			return false
		}
	}
	s.mu.Lock()
	s.rec.State, s.rec.Program = proto.StateServing, program
	s.mu.Unlock()
	s.save()
	s.publishState(proto.EventSubsystem, "the netconf subsystem was started")
	return true
}

// login returns the user and the UID of the process that proves a login.
func (e *Env) login(sshd process.Identity, socket uint64, claims []claim) (user string, uid int, ok bool) {
	if e.proven != nil {
		user = "netconf"
		if len(claims) > 0 {
			user = claims[len(claims)-1].User
		}
		return user, os.Getuid(), e.proven(sshd, user)
	}
	if !sshd.Runs() {
		return "", 0, false
	}
	user, uid, ok = evidence.System.Login(sshd.PID, socket, func(name string) bool {
		return slices.ContainsFunc(claims, func(c claim) bool { return c.User == name })
	})
	return user, uid, ok && sshd.Runs()
}

// serves returns the process below sshd that runs a program with the user's UID.
func (e *Env) serves(sshd process.Identity, uid int) (program process.Identity, ok bool) {
	if e.proven != nil {
		return process.Identity{}, e.proven(sshd, "")
	}
	if !sshd.Runs() {
		return process.Identity{}, false
	}
	p, ok := evidence.System.Program(sshd.PID, uid)
	if !ok {
		return process.Identity{}, false
	}
	program, err := process.Identify(p.PID)
	return program, err == nil && sshd.Runs()
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
