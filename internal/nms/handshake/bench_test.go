package handshake

import (
	"errors"
	"net"
	"slices"
	"testing"

	"callhome/internal/nms/sshtest"
	"callhome/internal/nms/wire"

	"golang.org/x/crypto/ssh"
)

// errIdentified ends a second run.
var errIdentified = errors.New("identified")

// BenchmarkExchange is what a key exchange costs the station up to the proof of the host
// key, without the device's part: its begin alone, of which a login has two, and the whole,
// of which it has one.
func BenchmarkExchange(b *testing.B) {
	for _, kex := range append(slices.Clone(keyExchanges), oldKeyExchange) {
		station, other := pair(b)
		device(other, sshtest.NewSigner(b), kex, "u", "p")
		r := &recording{Conn: wire.NewConn(station), deadline: soon()}
		o := Options{OldKeyExchange: true}
		if _, err := firstRun(r, o); err != nil {
			b.Fatal(err)
		}
		if err := r.stop(); err != nil {
			b.Fatal(err)
		}
		run := func(b *testing.B, in []byte, want error) {
			for b.Loop() {
				config := config(o, &repeating{first: slices.Clone(r.random.Bytes())})
				config.HostKeyCallback = func(string, net.Addr, ssh.PublicKey) error { return errIdentified }
				if _, _, _, err := ssh.NewClientConn(&replay{Conn: r.Conn, in: in, out: r.out}, "", config); !errors.Is(err, want) {
					b.Fatal(err)
				}
			}
		}
		b.Run(kex+"/whole", func(b *testing.B) { run(b, r.in, errIdentified) })
		b.Run(kex+"/begin", func(b *testing.B) {
			for b.Loop() {
				config := config(o, &repeating{first: slices.Clone(r.random.Bytes())})
				config.HostKeyCallback = func(string, net.Addr, ssh.PublicKey) error { return errIdentified }
				again := &recording{Conn: wire.NewConn(&replayed{Conn: station, in: r.in})}
				if _, _, _, err := ssh.NewClientConn(again, "", config); !errors.Is(err, errClaimed) {
					b.Fatal(err)
				}
			}
		})
	}
}

// replayed is a connection whose peer has sent what it sends.
type replayed struct {
	net.Conn
	in []byte
}

func (r *replayed) Read(p []byte) (int, error) {
	// A packet at a time, as the reply comes after the begin.
	n := copy(p, r.in[:min(len(r.in), 64)])
	r.in = r.in[n:]
	return n, nil
}

func (r *replayed) Write(p []byte) (int, error) { return len(p), nil }
