// Package handshake logs in to a device as SSH client on an accepted connection, where
// only the host key identifies the device, and so selects which user and credential to use.
// Package station calls it. It never decides about keys, and never looks at an address.
//
// golang.org/x/crypto/ssh needs the user before the connection begins: it copies
// ClientConfig first, and reads User from the copy after the key exchange (client.go,
// client_auth.go in v0.58). So no callback can set it. A second key exchange on the same
// connection would keep the user of the first. Therefore the library runs twice over one
// key exchange, and computes its result once:
//
//	first run   version, KEXINIT, KEX_INIT ──▶ device
//	            ◀── version, KEXINIT, KEX_REPLY with host key and signature
//	            the run ends here, before the library has seen KEX_REPLY.
//	            User finds the user name for the key that the device claims to have
//	second run  the same bytes, without sending them: each write is compared with
//	            the first run's, each read returns the first run's bytes;
//	            the library verifies the signature, so the device has proven the key.
//	            Identify finds the login, which must have that user name;
//	            then NEWKEYS and the login go to the device
//
// The user name leaves the station after the proof, in the encrypted login. A device that
// claims a key which it does not have learns nothing: its signature fails.
//
// The second run gets the random numbers of the first, and so makes the same key pair.
// Each number is sent once, and only the second run computes the shared secret. A key
// exchange can begin twice only if its secrets come from ssh.Config.Rand. If a later
// version of the library draws one from elsewhere, the comparison fails, and so does the
// login.
//
// One run would be enough only with the library's own copy of the configuration: it is a
// variable of ssh.NewClientConn, and no callback, reader or connection that the library
// calls gets a pointer to it. What is left is to make the library's unexported connection
// by its layout in memory, and to call its unexported handshake and mux. A change of that
// layout would not be seen at the build, and the connection is what decides about keys. The
// first run costs about a third of a login's key exchange.
package handshake

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"callhome/internal/nms/wire"
	"callhome/internal/printable"

	"golang.org/x/crypto/ssh"
)

// keyExchanges are those that can run twice, in order of preference: post-quantum for
// OpenSSH 9.9 and later, and one that OpenSSH has since 6.5 and libssh since 0.6. Those
// on NIST curves cannot: Go draws their secrets from elsewhere than ssh.Config.Rand.
var keyExchanges = []string{
	ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519, "curve25519-sha256@libssh.org",
}

// oldKeyExchange costs the station up to 20 times as much as the others (BenchmarkExchange),
// and a peer chooses it before it has shown a key. Other groups of Diffie-Hellman cost a
// multiple of that.
const oldKeyExchange = ssh.KeyExchangeDH14SHA256

// Login is how to log in to a device.
type Login struct {
	User string
	Auth []wire.Method
}

// User returns the user name for the device that claims that host key, "" if no device has
// it. Nothing is proven: it must have no effect.
type User func(claimed ssh.PublicKey) string

// Identify returns the login for the device with that host key, or an error. The peer
// has proven that it holds the key; the fields of a certificate are not checked.
type Identify func(key ssh.PublicKey) (*Login, error)

// Conn is an authenticated connection. The caller must serve Requests and Channels.
type Conn struct {
	ssh.Conn
	Channels  <-chan ssh.NewChannel
	Requests  <-chan *ssh.Request
	Keepalive *wire.Keepalive
}

// Stage is how far a handshake came.
type Stage string

// The stages, in their order.
const (
	StageVersion  Stage = "version"        // the peer's first line
	StageExchange Stage = "key-exchange"   // up to its host key
	StageIdentity Stage = "identity"       // Identify
	StageLogin    Stage = "authentication" // user authentication
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
	// HostKeys are the host key algorithms to offer, in order of preference.
	HostKeys []string
	// OldKeyExchange also offers diffie-hellman-group14-sha256, as the last one.
	OldKeyExchange bool
	// Rekey, if set, is called with each key exchange after the login, and ends the
	// connection with its error. The library has computed then.
	Rekey func() error
	// GotVersion, if set, is called when the peer's whole version string has come.
	GotVersion func()
	// Disconnect, if set, returns the reason that SSH_MSG_DISCONNECT gives the peer for an
	// error of StageIdentity or StageLogin.
	Disconnect func(*Error) wire.Disconnect
}

// Do logs in until the deadline. It closes the connection on error; otherwise it
// removes the deadline. Errors are *Error.
func Do(conn net.Conn, deadline time.Time, o Options, user User, identify Identify) (*Conn, error) {
	if err := conn.SetDeadline(deadline); err != nil {
		conn.Close()
		return nil, &Error{StageVersion, "", err}
	}
	under := wire.NewConn(conn)
	under.GotVersion = o.GotVersion
	r := &recording{Conn: under, deadline: deadline}
	claimed, failed := firstRun(r, o)
	if failed != nil {
		conn.Close()
		return nil, failed
	}
	name := ""
	if claimed != nil {
		name = user(claimed)
	}
	out, failed := secondRun(r, o, claimed, name, identify)
	if failed != nil {
		conn.Close()
		return nil, failed
	}
	return out, nil
}

// errChanged ends a login whose user is another one than that for the claimed key.
var errChanged = errors.New("the device's entry was changed during its login")

func secondRun(r *recording, o Options, claimed ssh.PublicKey, user string, identify Identify) (*Conn, *Error) {
	if err := r.stop(); err != nil {
		return nil, &Error{StageExchange, r.version(), err}
	}
	config := config(o, &repeating{first: r.random.Bytes()})
	config.User = user
	watched := wire.Watch(config)
	k := &keys{claimed: claimed, rekey: o.Rekey, identify: func(key ssh.PublicKey) error {
		login, err := identify(key)
		switch {
		case err != nil:
			return err
		case login.User != user:
			return errChanged
		}
		watched.Use(login.Auth)
		return nil
	}}
	config.HostKeyCallback = k.check
	r.Hold(true)
	conn, channels, requests, err := ssh.NewClientConn(&replay{Conn: r.Conn, in: r.in, out: r.out}, "", config)
	r.Hold(false)
	watched.Use(nil) // the library keeps the configuration, but needs no credential any more
	if err == nil {
		err = r.SetDeadline(time.Time{})
	}
	switch {
	case err == nil:
		return &Conn{conn, channels, requests, wire.NewKeepalive(conn, r.Conn)}, nil
	case k.refused != nil:
		failed := &Error{StageIdentity, r.version(), k.refused}
		if o.Disconnect != nil {
			wire.Refuse(r.Conn, o.Disconnect(failed)) // nothing is encrypted yet
		}
		return nil, failed
	case !k.proven:
		return nil, &Error{StageExchange, r.version(), plain(err)}
	}
	failed := &Error{StageLogin, r.version(), &plainError{wire.LoginError(err), err}}
	if o.Disconnect != nil {
		watched.Refuse(r.Conn, o.Disconnect(failed))
	}
	return nil, failed
}

// keys decides about the host key of each key exchange on a connection. The library makes
// one at a time, and calls check when it has verified the signature.
type keys struct {
	claimed  ssh.PublicKey
	identify func(ssh.PublicKey) error // nil after the first key exchange
	rekey    func() error              // unless nil, for each later one
	proven   bool                      // the device has proven the claimed key
	refused  error                     // by identify
}

func (k *keys) check(name string, from net.Addr, key ssh.PublicKey) error {
	if err := ssh.FixedHostKey(k.claimed)(name, from, key); err != nil {
		return err
	}
	if !k.proven {
		k.proven = true
		k.refused = k.identify(k.claimed) // which is the same, and shares no packet's memory
		k.identify = nil
		return k.refused
	}
	if k.rekey == nil {
		return nil
	}
	return k.rekey()
}

func config(o Options, random io.Reader) *ssh.ClientConfig {
	offer := keyExchanges
	if o.OldKeyExchange {
		offer = append(slices.Clone(offer), oldKeyExchange)
	}
	return &ssh.ClientConfig{
		Config:            ssh.Config{Rand: random, KeyExchanges: offer},
		HostKeyAlgorithms: o.HostKeys,
		ClientVersion:     wire.ClientVersion,
	}
}

// errClaimed ends the first run.
var errClaimed = errors.New("the host key has come")

// firstRun returns the host key that the peer claims, nil if it is malformed.
func firstRun(r *recording, o Options) (claimed ssh.PublicKey, failed *Error) {
	config := config(o, io.TeeReader(rand.Reader, &r.random))
	config.HostKeyCallback = func(string, net.Addr, ssh.PublicKey) error { return errClaimed } // it is not called
	_, _, _, err := ssh.NewClientConn(r, "", config)
	switch {
	case r.isAnswered():
		// A key shares the bytes that it is parsed from. The second run has the error.
		claimed, _ = ssh.ParsePublicKey(bytes.Clone(r.packets.hostKey))
		return claimed, nil
	case !r.IsSSH():
		return nil, &Error{StageVersion, r.version(), plain(err)}
	}
	return nil, &Error{StageExchange, r.version(), plain(err)}
}

// plain returns err with a text that lacks the library's prefixes.
func plain(err error) error { return &plainError{printable.SSHError(err), err} }

type plainError struct {
	text string
	err  error
}

func (e *plainError) Error() string { return e.text }

func (e *plainError) Unwrap() error { return e.err }

// maxExchange bounds the kept bytes of a key exchange, and each of its messages. ML-KEM
// with an RSA certificate of 4096 bits needs some 4 KiB; a peer may send other messages
// between.
const maxExchange = 32 << 10

// errEarly ends the first run: with its reply before KEX_INIT a peer would end the run
// while it writes.
var errEarly = errors.New("the reply of the key exchange came before its begin")

// recording is the connection of the first run.
type recording struct {
	*wire.Conn
	deadline time.Time
	random   bytes.Buffer

	reading sync.Mutex // held while a read is under way
	mu      sync.Mutex // guards the fields that follow
	in, out []byte
	packets packets
	begun   bool // KEX_INIT was sent
	// answered is set when the reply has come after KEX_INIT: nothing is written any more.
	answered bool
	closed   bool
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
	if err := r.packets.check(r.in); err != nil {
		return 0, err
	}
	switch {
	case r.packets.replied && r.begun:
		r.answered = true
		return 0, errClaimed
	case r.packets.replied:
		return 0, errEarly
	}
	return n, err
}

func (r *recording) Write(p []byte) (int, error) {
	if r.isClosed() {
		return 0, net.ErrClosed
	}
	n, err := r.Conn.Write(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out = append(r.out, p[:n]...)
	r.begun = r.begun || n > 5 && p[5] == msgKexInit
	return n, err
}

func (r *recording) isAnswered() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answered
}

func (r *recording) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// Close ends the first run and leaves the connection open.
func (r *recording) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return nil
}

// stop waits until the first run does not read any more: it must not take bytes of
// the second.
func (r *recording) stop() error {
	r.Close()
	if err := r.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	r.reading.Lock()
	defer r.reading.Unlock()
	return r.SetReadDeadline(r.deadline)
}

// version returns the peer's version string or its first line, "" while that is not
// whole.
func (r *recording) version() string {
	if text, whole := r.Version(); whole {
		return text
	}
	return ""
}

// errDiffers is a bug of this package, or comes with another version of the library.
var errDiffers = errors.New("BUG: the second run of the key exchange differs from the first")

// replay is the connection of the second run. It returns the bytes that the first run
// read, and compares writes with the bytes that the first run sent, before it reads
// from and writes to the device.
type replay struct {
	*wire.Conn
	in, out []byte // the remaining bytes; one goroutine at a time uses each
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

// repeating returns the random numbers of the first run, and then new ones.
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
	if r.first = r.first[n:]; len(r.first) == 0 {
		r.first = nil
	}
	return n, nil
}
