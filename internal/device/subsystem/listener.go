package subsystem

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"callhome/internal/fdpass"

	"golang.org/x/sys/unix"
)

// Report is a helper's message, with the PID and UID of its process from the kernel.
// Only these two are evidence.
type Report struct {
	PID, UID int
	Nonce    string
	// AuthFile is $SSH_USER_AUTH, Auth its content: one line per step of the login, a
	// method or "publickey TYPE KEY". The user could have forged both.
	AuthFile, Auth string
}

// Limits of the socket, to which every user can connect. Processes of a session are
// let in above the first two, up to maxSessions connections in all.
const (
	maxConns    = 64
	maxPerUser  = 16
	maxSessions = 256
	maxMessage  = 512 + maxAuth
)

// Listener receives the reports of helpers.
type Listener struct {
	listener *net.UnixListener
	take     func(Report) (*os.File, error)
	inside   func(pid int) bool

	mu    sync.Mutex  // guards the field that follows
	conns map[int]int // by user; -1 counts all
}

// Listen returns a listener that owns the socket l; call Serve to run it. Each
// report calls take in a goroutine of its own. take returns the file that the helper
// is to hold open, which the listener owns then, or an error for a report that is
// not evidence. inside reports whether a process is below a session's sshd; it is
// asked only when local users have taken all connections.
func Listen(l *net.UnixListener, take func(Report) (*os.File, error), inside func(pid int) bool) *Listener {
	return &Listener{listener: l, take: take, inside: inside, conns: make(map[int]int)}
}

// Close ends Serve and removes the socket.
func (l *Listener) Close() error { return l.listener.Close() }

// Serve receives reports until Close. accept accepts a connection and retries
// temporary errors (daemon.Accept). Serve closes a connection above a limit: its
// helper continues without a report.
func (l *Listener) Serve(accept func() (*net.UnixConn, error)) error {
	for {
		c, err := accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accepting a report of a subsystem: %w", err)
		}
		peer, err := peerOf(c)
		if err != nil || !l.admit(int(peer.Uid), int(peer.Pid)) {
			c.Close()
			continue
		}
		go func() {
			defer l.leave(int(peer.Uid))
			defer c.Close()
			l.serve(c, peer)
		}()
	}
}

// admit counts a connection, or reports false above a limit.
func (l *Listener) admit(uid, pid int) bool {
	return l.enter(uid, maxConns, maxPerUser) || l.inside(pid) && l.enter(uid, maxSessions, maxSessions)
}

func (l *Listener) enter(uid, all, perUser int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if uid != 0 && (l.conns[-1] >= all || l.conns[uid] >= perUser) {
		return false
	}
	l.conns[-1]++
	l.conns[uid]++
	return true
}

func (l *Listener) leave(uid int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[-1]--
	if l.conns[uid]--; l.conns[uid] == 0 {
		delete(l.conns, uid)
	}
}

func peerOf(c *net.UnixConn) (peer *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	if controlErr := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); controlErr != nil {
		return nil, controlErr
	}
	return peer, err
}

// serve receives one report. The helper waits for the answer, so its process exists
// during the call, unless its time-out expired.
func (l *Listener) serve(c *net.UnixConn, peer *unix.Ucred) {
	if c.SetDeadline(time.Now().Add(2*reportTime)) != nil {
		return
	}
	message, err := io.ReadAll(io.LimitReader(c, maxMessage))
	if err != nil {
		return
	}
	nonce, rest, ok := bytes.Cut(message, []byte("\n"))
	file, auth, ok2 := bytes.Cut(rest, []byte("\n"))
	if !ok || !ok2 {
		return
	}
	keep, err := l.take(Report{PID: int(peer.Pid), UID: int(peer.Uid), Nonce: string(nonce), AuthFile: string(file), Auth: string(auth)})
	if err != nil {
		return
	}
	defer keep.Close()
	_ = fdpass.Send(c, []byte{0}, keep) // a helper whose time-out expired continues without the file
}

// Nonce returns a new secret that identifies a session in its report.
func Nonce(session int) string {
	secret := make([]byte, 16)
	_, _ = rand.Read(secret) // it never returns an error
	return strconv.Itoa(session) + "." + hex.EncodeToString(secret)
}

// SessionOf returns the number of the session that a nonce names. The session still
// has to verify the nonce.
func SessionOf(nonce string) (int, bool) {
	number, _, ok := strings.Cut(nonce, ".")
	id, err := strconv.Atoi(number)
	return id, ok && err == nil && id > 0
}
