//go:build integration

package integration

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
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
	seeds   [][]byte // of the private ones
	user    string   // public key that they let in
}

// newStandIns makes devices that let the station's key in.
func newStandIns(t *testing.T, many int, n *nms) *standIns {
	t.Helper()
	s := &standIns{t: t, nms: n, user: publicKey(t, n.key)}
	for range many {
		seed := make([]byte, ed25519.SeedSize)
		_, _ = rand.Read(seed)
		server, key, err := standIn(seed, s.user)
		if err != nil {
			t.Fatal(err)
		}
		s.servers, s.keys, s.seeds = append(s.servers, server), append(s.keys, sshtest.Line(key)), append(s.seeds, seed)
	}
	return s
}

// standIn makes the server of one from the seed of its host key, which is the same in
// each process.
func standIn(seed []byte, user string) (*sshtest.Server, ssh.PublicKey, error) {
	in, _, _, _, err := ssh.ParseAuthorizedKey([]byte(user))
	if err != nil {
		return nil, nil, err
	}
	host, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		return nil, nil, err
	}
	return &sshtest.Server{Config: sshtest.LetIn(host, in), Netconf: sshtest.Echo}, host.PublicKey(), nil
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
