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

// BenchmarkExchange is what one run of a key exchange costs the station, without the
// device's part. A login has two.
func BenchmarkExchange(b *testing.B) {
	for _, kex := range append(slices.Clone(keyExchanges), oldKeyExchange) {
		b.Run(kex, func(b *testing.B) {
			station, other := pair(b)
			device(other, sshtest.NewSigner(b), kex, "u", "p")
			r := &recording{Conn: wire.NewConn(station), deadline: soon()}
			o := Options{OldKeyExchange: true}
			if _, _, err := firstRun(r, o, func(ssh.PublicKey) (*Login, error) { return &Login{}, nil }); err != nil {
				b.Fatal(err)
			}
			if err := r.stop(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				config := config(o, &repeating{first: slices.Clone(r.random.Bytes())})
				config.HostKeyCallback = func(string, net.Addr, ssh.PublicKey) error { return errIdentified }
				if _, _, _, err := ssh.NewClientConn(&replay{Conn: r.Conn, in: r.in, out: r.out}, "", config); !errors.Is(err, errIdentified) {
					b.Fatal(err)
				}
			}
		})
	}
}
