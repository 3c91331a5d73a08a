// Package handshake logs in to a device over the connection that it made: SSH
// client on an accepted socket, where who the device is, and so which user and
// credential are right, is known from its host key alone. Package station calls
// it. It knows no registry, decides nothing about keys and never looks at an
// address.
//
// golang.org/x/crypto/ssh wants the user before the connection begins: it
// copies ClientConfig first and reads User from the copy after the key exchange
// (client.go, client_auth.go in v0.58), so no callback can set it. A second key
// exchange on the same connection does not help, since the user goes with the
// first library's run. Therefore the run is held twice over one exchange:
//
//	rehearsal    version, KEXINIT, KEX_INIT ──▶ device
//	             ◀── version, KEXINIT, KEX_REPLY with host key and signature
//	             who is it? the run ends here, before NEWKEYS
//	performance  the same bytes once more, but to nobody: what the library
//	             writes is compared with what was sent, what it reads was read
//	             before; then NEWKEYS and the login go to the device
//
// Both runs draw the same random numbers, as the second is given those of the
// first, and so make the same key exchange. Each number is used on the wire
// once, and only the second run gets as far as using the secret. The signature
// over the exchange is verified in both. Only key exchanges whose secrets come
// from ssh.Config.Rand can be held twice; should a later library draw one from
// elsewhere, the comparison fails and so does the login.
package handshake

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// keyExchanges are those that can be held twice, the best first: post-quantum
// for OpenSSH 9.9 and later, and one that every version has.
var keyExchanges = []string{
	ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519, "curve25519-sha256@libssh.org",
	ssh.KeyExchangeDH16SHA512, ssh.KeyExchangeDH14SHA256,
}

// Login is how to log in to a device.
type Login struct {
	User string
	Auth []ssh.AuthMethod
}

// Identify says who has that host key, or returns an error. The peer has proven
// that it holds the key; of a certificate nothing else has been checked.
type Identify func(key ssh.PublicKey) (*Login, error)

// Conn is a connection that is logged in. Requests and Channels have to be
// served.
type Conn struct {
	ssh.Conn
	Channels <-chan ssh.NewChannel
	Requests <-chan *ssh.Request
}

// Stage is how far a handshake came.
type Stage string

// The stages, in their order.
const (
	StageVersion  Stage = "version"        // the peer's first line
	StageExchange Stage = "key-exchange"   // up to its host key
	StageIdentity Stage = "identity"       // Identify's verdict
	StageLogin    Stage = "authentication" // the rest
)

// Error is a handshake that failed. Err of StageIdentity is Identify's own.
type Error struct {
	Stage   Stage
	Version string // the peer's, as far as it sent one
	Err     error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Options of a handshake.
type Options struct {
	// HostKeys are the host key algorithms to ask for, the best first.
	HostKeys []string
	// Spoke, if set, is called when the peer's version has come, the whole line.
	Spoke func()
}

// Do logs in until the deadline. The connection is closed on error; otherwise it
// has no deadline any more. Errors are *Error.
func Do(conn net.Conn, deadline time.Time, o Options, identify Identify) (*Conn, error) {
	c, err := do(conn, deadline, o, identify)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func do(conn net.Conn, deadline time.Time, o Options, identify Identify) (*Conn, error) {
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, &Error{StageVersion, "", err}
	}
	r := &recording{Conn: conn, deadline: deadline, spoke: o.Spoke}
	login, key, err := rehearse(r, o, identify)
	if err != nil {
		return nil, err
	}
	if err := r.stop(); err != nil {
		return nil, &Error{StageExchange, r.version(), err}
	}
	config := config(o, &repeating{first: r.random.Bytes()})
	config.User, config.Auth, config.HostKeyCallback = login.User, login.Auth, ssh.FixedHostKey(key)
	var out Conn
	out.Conn, out.Channels, out.Requests, err = ssh.NewClientConn(&replay{Conn: conn, in: r.in, out: r.out}, "", config)
	if err != nil {
		return nil, &Error{StageLogin, r.version(), plain(err)}
	}
	return &out, conn.SetDeadline(time.Time{})
}

func config(o Options, random io.Reader) *ssh.ClientConfig {
	return &ssh.ClientConfig{
		Config:            ssh.Config{Rand: random, KeyExchanges: keyExchanges},
		HostKeyAlgorithms: o.HostKeys,
		ClientVersion:     "SSH-2.0-callhome-nms",
	}
}

// errIdentified ends the rehearsal.
var errIdentified = errors.New("identified")

func rehearse(r *recording, o Options, identify Identify) (login *Login, key ssh.PublicKey, err error) {
	config := config(o, io.TeeReader(rand.Reader, &r.random))
	var verdict error
	config.HostKeyCallback = func(_ string, _ net.Addr, k ssh.PublicKey) error {
		key = k
		login, verdict = identify(k)
		return errIdentified
	}
	_, _, _, err = ssh.NewClientConn(r, "", config)
	switch {
	case verdict != nil:
		return nil, nil, &Error{StageIdentity, r.version(), verdict}
	case login != nil:
		return login, key, nil
	case r.version() == "":
		return nil, nil, &Error{StageVersion, "", plain(err)}
	}
	return nil, nil, &Error{StageExchange, r.version(), plain(err)}
}

// plain takes the library's own prefixes from an error.
func plain(err error) error {
	text := err.Error()
	for _, prefix := range []string{"ssh: handshake failed: ", "ssh: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return &plainError{text, err}
}

type plainError struct {
	text string
	err  error
}

func (e *plainError) Error() string { return e.text }

func (e *plainError) Unwrap() error { return e.err }

// maxExchange bounds what is kept of a key exchange, in bytes, and each message
// of it. Some 4 KiB are what ML-KEM and an RSA certificate of 4096 bits need; a
// peer may put others between.
const maxExchange = 32 << 10

// recording is the connection of the rehearsal.
type recording struct {
	net.Conn
	deadline time.Time
	spoke    func()
	random   bytes.Buffer

	reading sync.Mutex // held while a read is under way
	mu      sync.Mutex // guards the fields that follow
	in, out []byte
	line    int // where the line of in begins that is not all there
	packets packets
	closed  bool
}

func (r *recording) Read(p []byte) (int, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	if r.isClosed() {
		return 0, net.ErrClosed
	}
	n, err := r.Conn.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.in = append(r.in, p[:n]...)
	if r.spoke != nil && r.saidVersion() {
		r.spoke()
		r.spoke = nil
	}
	if err := r.packets.check(r.in); err != nil {
		return 0, err
	}
	return n, err
}

// saidVersion reports whether one of the lines that came since it was asked last
// is an SSH version. It is called with mu held.
func (r *recording) saidVersion() bool {
	for {
		line, _, whole := bytes.Cut(r.in[r.line:], []byte("\n"))
		if !whole {
			return false
		}
		r.line += len(line) + 1
		if bytes.HasPrefix(line, []byte("SSH-")) {
			return true
		}
	}
}

func (r *recording) Write(p []byte) (int, error) {
	if r.isClosed() {
		return 0, net.ErrClosed
	}
	n, err := r.Conn.Write(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out = append(r.out, p[:n]...)
	return n, err
}

func (r *recording) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// Close ends the rehearsal and leaves the connection open.
func (r *recording) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return nil
}

// stop waits until the rehearsal reads no more, so that no byte is lost to it.
func (r *recording) stop() error {
	r.Close()
	if err := r.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	return r.SetReadDeadline(r.deadline)
}

// version is the peer's version, or else its first line, "" as long as it is not
// all there: a device may say something before its version (RFC 4253 section
// 4.2).
func (r *recording) version() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := ""
	for rest := r.in; ; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		if !whole || len(line) > 255 {
			return first
		}
		text := strings.TrimSuffix(string(line), "\r")
		if strings.HasPrefix(text, "SSH-") {
			return text
		}
		if first == "" {
			first = text
		}
		rest = after
	}
}

// errDiffers is a fault of ours or a change in the library.
var errDiffers = errors.New("BUG: the key exchange cannot be held twice")

// replay is the connection of the performance: what was read and written in the
// rehearsal is read and written once more, the latter to nobody.
type replay struct {
	net.Conn
	in, out []byte // what is left of it; each belongs to one goroutine at a time
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.in) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.in)
	if r.in = r.in[n:]; len(r.in) == 0 {
		r.in = nil
	}
	return n, nil
}

func (r *replay) Write(p []byte) (int, error) {
	n := min(len(p), len(r.out))
	if !bytes.Equal(p[:n], r.out[:n]) {
		return 0, errDiffers
	}
	if r.out = r.out[n:]; len(r.out) == 0 {
		r.out = nil
	}
	if n == len(p) {
		return n, nil
	}
	m, err := r.Conn.Write(p[n:])
	return n + m, err
}

// repeating gives the numbers that were drawn before and then new ones.
type repeating struct {
	mu    sync.Mutex // guards first
	first []byte
}

func (r *repeating) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.first) == 0 {
		return rand.Read(p)
	}
	n := copy(p, r.first)
	clear(r.first[:n])
	r.first = r.first[n:]
	return n, nil
}
