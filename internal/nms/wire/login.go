package wire

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"callhome/internal/printable"

	"golang.org/x/crypto/ssh"
)

// Login observes a login of the library.
type Login struct {
	auth []ssh.AuthMethod

	mu   sync.Mutex // guards conn
	conn ssh.ConnMetadata
}

// Types of messages in a login (RFC 4252 section 6).
const (
	msgFailure = 51
	msgBanner  = 53
)

// maxBanners bounds the banners of one login that the library cannot parse.
const maxBanners = 16

// Watch sets the callback of a configuration with its methods, and returns the Login
// that observes it.
//
// A banner with bytes after its last field ends the library's request "none" with an
// error, before it reads the answer to that request (v0.58: handleBannerResponse).
// OpenSSH's client ignores such bytes, and so does the library from v0.59 on: with it
// skipBanners has nothing to do, and can be removed. Servers send their banner with the
// first answer, so it is here that the callback reads up to that answer.
func Watch(config *ssh.ClientConfig) *Login {
	l := &Login{auth: config.Auth}
	config.AuthCallback = l.next
	return l
}

// next is called before each method. It returns nil for the library's own choice. While
// the library does not know which methods the server allows, they are tried in order.
func (l *Login) next(ctx *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	l.mu.Lock()
	l.conn = ctx.Metadata
	l.mu.Unlock()
	if ctx.AllowedMethods != nil || len(l.auth) == 0 {
		return nil, nil
	}
	if slices.Equal(ctx.TriedMethods, []string{"none"}) {
		if err := skipBanners(ctx.Metadata); err != nil {
			return nil, err
		}
	}
	method := l.auth[0]
	l.auth = l.auth[1:]
	return method, nil
}

// skipBanners reads up to the answer to a request.
func skipBanners(c ssh.ConnMetadata) error {
	for range maxBanners {
		packet, err := receive(c)
		switch {
		case err != nil:
			return err
		case packet[0] == msgFailure:
			return nil
		case packet[0] != msgBanner:
			return fmt.Errorf("message %d during the login", packet[0])
		}
	}
	return errors.New("too many banners")
}

// Refuse sends SSH_MSG_DISCONNECT after a login that failed, and closes the connection
// when the peer has closed it, or after a second. It returns then.
func (l *Login) Refuse(conn net.Conn, d Disconnect) {
	l.mu.Lock()
	c := l.conn
	l.mu.Unlock()
	if c != nil { // the login was begun
		leave(conn, func() error { return Send(c, d.packet()) })
	}
	conn.Close()
}

// loginErrors are the errors of the library that name numbers of messages.
var loginErrors = map[string]string{
	"unexpected message type 51 (expected 60)": "the device refused the password: it ended keyboard-interactive without a prompt",
	"unexpected message type 60 (expected 52)": "the device demands that the user changes the password",
}

// LoginError returns the text of a login's error without the library's prefixes and
// numbers.
func LoginError(err error) string {
	text := printable.SSHError(err)
	if known, ok := loginErrors[text]; ok {
		return known
	}
	return text
}
