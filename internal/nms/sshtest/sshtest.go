// Package sshtest stands in for devices where one sshd for each would cost too much:
// host keys, and an SSH server with a netconf subsystem. Tests and the benchmark use
// it. It is part of no program, and never shows how stock sshd behaves.
package sshtest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"callhome/internal/nms/wire"

	"golang.org/x/crypto/ssh"
)

// NewKey makes an ed25519 key.
func NewKey() (ssh.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(key)
}

// NewSigner is NewKey for a test.
func NewSigner(t testing.TB) ssh.Signer {
	t.Helper()
	s, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// NewRSA makes an RSA key with that many bits.
func NewRSA(t testing.TB, bits int) ssh.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// SigningAs returns a signer that signs with one algorithm only, such as ssh-rsa.
func SigningAs(t testing.TB, s ssh.Signer, algorithm string) ssh.Signer {
	t.Helper()
	out, err := ssh.NewSignerWithAlgorithms(s.(ssh.AlgorithmSigner), []string{algorithm})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Line returns a public key as in a .pub file, without a comment.
func Line(k ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) }

// LetIn returns the configuration of a server that accepts any user with one key.
func LetIn(host ssh.Signer, user ssh.PublicKey) *ssh.ServerConfig {
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if Line(k) != Line(user) {
			return nil, errors.New("another key")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	return config
}

// Server is a device's end of connections.
type Server struct {
	Config *ssh.ServerConfig
	// Netconf is the subsystem, nil if it has none. It returns the exit status.
	Netconf func(ssh.Channel) uint32
	Mute    bool // keepalives get no answer: neither global requests nor channels of other types
	// Unimplemented answers global requests with SSH_MSG_UNIMPLEMENTED.
	Unimplemented bool
	// NoChannels answers channels of other types as little as Mute does.
	NoChannels bool
	// LoggedIn, if set, is called on a goroutine of its own after the login.
	LoggedIn func(ssh.Conn)
	// Ended, if set, is called with why a connection ended, before or after its login.
	Ended func(error)
}

// Echo is a subsystem that sends back what it gets.
func Echo(c ssh.Channel) uint32 {
	_, _ = io.Copy(c, c)
	return 0
}

// Unimplemented is SSH_MSG_UNIMPLEMENTED for a packet with that sequence number.
var Unimplemented = ssh.Marshal(struct {
	Sequence uint32 `sshtype:"3"`
}{7})

// Serve serves a connection, which it owns, to its end.
func (s *Server) Serve(conn net.Conn) {
	defer conn.Close()
	c, channels, requests, err := ssh.NewServerConn(conn, s.Config)
	ended := func(err error) {
		if s.Ended != nil {
			s.Ended(err)
		}
	}
	if err != nil {
		ended(err)
		return
	}
	defer c.Close()
	go func() { ended(c.Wait()) }()
	if s.LoggedIn != nil {
		go s.LoggedIn(c.Conn)
	}
	go func() {
		for r := range requests {
			switch {
			case s.Unimplemented:
				_ = wire.Send(c.Conn, Unimplemented)
			case !s.Mute:
				_ = r.Reply(false, nil)
			}
		}
	}()
	for n := range channels {
		if n.ChannelType() != "session" {
			if !s.Mute && !s.NoChannels {
				_ = n.Reject(ssh.UnknownChannelType, "unknown channel type")
			}
			continue
		}
		ch, requests, err := n.Accept()
		if err != nil {
			return
		}
		go s.session(ch, requests)
	}
}

func (s *Server) session(ch ssh.Channel, requests <-chan *ssh.Request) {
	for r := range requests {
		ok := r.Type == "subsystem" && s.Netconf != nil
		_ = r.Reply(ok, nil)
		if !ok {
			continue
		}
		go func() {
			status := s.Netconf(ch)
			_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
			ch.Close()
		}()
	}
}
