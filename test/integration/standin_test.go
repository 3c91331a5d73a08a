//go:build integration

package integration

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// standIns are devices that cost less than an sshd each: SSH servers in this
// process. Their subsystem sends back what it gets.
type standIns struct {
	t       *testing.T
	configs []*ssh.ServerConfig
	keys    []string // public host keys
}

// newStandIns makes devices that let the station's key in.
func newStandIns(t *testing.T, many int, n *nms) *standIns {
	t.Helper()
	wanted := publicKey(t, n.key)
	s := &standIns{t: t}
	for range many {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		host, err := ssh.NewSignerFromKey(key)
		if err != nil {
			t.Fatal(err)
		}
		config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
			if strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) != wanted {
				return nil, errors.New("unknown")
			}
			return nil, nil
		}}
		config.AddHostKey(host)
		s.configs = append(s.configs, config)
		s.keys = append(s.keys, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(host.PublicKey()))))
	}
	return s
}

// KeepCalling has each of them call, and call again whenever its connection is
// over, until the story ends.
func (s *standIns) KeepCalling(addr string) {
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	for i, config := range s.configs {
		go func() {
			for wait := time.Duration(i) * 5 * time.Millisecond; ; wait = 500 * time.Millisecond {
				select {
				case <-ctx.Done():
					return
				case <-time.After(wait):
				}
				if conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr); err == nil {
					stop := context.AfterFunc(ctx, func() { conn.Close() })
					serveStandIn(conn, config)
					stop()
				}
			}
		}()
	}
}

func serveStandIn(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	c, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	defer c.Close()
	go ssh.DiscardRequests(requests)
	for n := range channels {
		ch, requests, err := n.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				_ = r.Reply(r.Type == "subsystem", nil)
			}
		}()
		go func() {
			_, _ = io.Copy(ch, ch)
			_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
			ch.Close()
		}()
	}
}
