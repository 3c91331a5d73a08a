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
