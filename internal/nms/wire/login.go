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

// Method is a way to log in, with its name in SSH (RFC 4252).
type Method struct {
	Name string
	ssh.AuthMethod
}

// Login observes a login of the library, and selects its methods.
type Login struct {
	mu   sync.Mutex // guards the fields that follow
	auth []Method
	conn ssh.ConnMetadata
}

// Types of messages in a login (RFC 4252 section 6).
const (
	msgFailure = 51
	msgBanner  = 53
)

// maxBanners bounds the banners of one login that the library cannot parse.
const maxBanners = 16

// Watch sets the callback of a configuration without methods, and returns the Login that
// observes it. The methods, in order of preference, may also come later, by Use.
//
// A banner with bytes after its last field ends the library's request "none" with an
// error, before it reads the answer to that request (v0.58: handleBannerResponse).
// OpenSSH's client ignores such bytes, and so does the library from v0.59 on: with it
// skipBanners has nothing to do, and can be removed. Servers send their banner with the
// first answer, so it is here that the callback reads up to that answer.
func Watch(config *ssh.ClientConfig, auth ...Method) *Login {
	l := &Login{auth: auth}
	config.AuthCallback = l.next
	return l
}

// Use sets the methods. It must be called before the library asks for the first, such as
// in the callback for the host key.
func (l *Login) Use(auth []Method) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.auth = auth
}

// next is called before each method, and returns the first that has not failed and that
// the server allows, as the library does with those of a configuration; nil if there is
// none. While the library does not know what the server allows, each is tried.
func (l *Login) next(ctx *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	l.mu.Lock()
	l.conn = ctx.Metadata
	auth := l.auth
	l.mu.Unlock()
	if ctx.AllowedMethods == nil && len(auth) > 0 && slices.Equal(ctx.TriedMethods, []string{"none"}) {
		if err := skipBanners(ctx.Metadata); err != nil {
			return nil, err
		}
	}
	for _, m := range auth {
		if !slices.Contains(ctx.TriedMethods, m.Name) && (ctx.AllowedMethods == nil || slices.Contains(ctx.AllowedMethods, m.Name)) {
			return m.AuthMethod, nil
		}
	}
	return nil, nil
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
