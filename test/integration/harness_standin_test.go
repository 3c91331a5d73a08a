//go:build integration

package integration

import (
	"context"
	"net"
	"testing"
	"time"

	"callhome/internal/nms/sshtest"

	"golang.org/x/crypto/ssh"
)

// standIns are devices that cost less than an sshd each: SSH servers in this
// process. Their subsystem sends back what it gets.
type standIns struct {
	t       *testing.T
	nms     *nms // whose network they call from
	servers []*sshtest.Server
	keys    []string // public host keys
}

// newStandIns makes devices that let the station's key in.
func newStandIns(t *testing.T, many int, n *nms) *standIns {
	t.Helper()
	user, _, _, _, err := ssh.ParseAuthorizedKey([]byte(publicKey(t, n.key)))
	if err != nil {
		t.Fatal(err)
	}
	s := &standIns{t: t, nms: n}
	for range many {
		host := sshtest.NewSigner(t)
		s.servers = append(s.servers, &sshtest.Server{Config: sshtest.LetIn(host, user), Netconf: sshtest.Echo})
		s.keys = append(s.keys, sshtest.Line(host.PublicKey()))
	}
	return s
}

// KeepCalling has each of them call, and call again whenever its connection is
// over, until the story ends.
func (s *standIns) KeepCalling(addr string) {
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	s.keepCalling(ctx, addr)
}

func (s *standIns) keepCalling(ctx context.Context, addr string) {
	for i, server := range s.servers {
		go func() {
			for wait := time.Duration(i) * 5 * time.Millisecond; ; wait = 500 * time.Millisecond {
				select {
				case <-ctx.Done():
					return
				case <-time.After(wait):
				}
				if conn, err := s.nms.Dial(ctx, &net.Dialer{}, addr); err == nil {
					stop := context.AfterFunc(ctx, func() { conn.Close() })
					server.Serve(conn)
					stop()
				}
			}
		}()
	}
}
