package handshake

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/sshtest"

	"golang.org/x/crypto/ssh"
)

// pair is a connection on loopback: sshd and the library both write before they
// read, which a pipe without a buffer does not bear.
func pair(t testing.TB) (station, device net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	device, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	station, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { station.Close(); device.Close() })
	return station, device
}

// device is an SSH server that lets one user in with one password, and tells
// who logged in.
func device(conn net.Conn, host ssh.Signer, kex, user, password string) <-chan error {
	config := &ssh.ServerConfig{
		PasswordCallback: func(c ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
			if c.User() != user || string(p) != password {
				return nil, errors.New("wrong")
			}
			return nil, nil
		},
	}
	if kex != "" {
		config.KeyExchanges = []string{kex}
	}
	config.AddHostKey(host)
	done := make(chan error, 1)
	go func() {
		c, channels, requests, err := ssh.NewServerConn(conn, config)
		done <- err
		if err != nil {
			conn.Close()
			return
		}
		go ssh.DiscardRequests(requests)
		for ch := range channels {
			_ = ch.Reject(ssh.Prohibited, "none")
		}
		c.Close()
	}()
	return done
}

func soon() time.Time { return time.Now().Add(20 * time.Second) }

// Every key exchange can be held twice, and the user is chosen by the key.
func TestTheUserIsChosenByTheKey(t *testing.T) {
	hosts := map[string]ssh.Signer{"alice": sshtest.NewSigner(t), "bob": sshtest.NewSigner(t)}
	for user, host := range hosts {
		for _, kex := range keyExchanges {
			t.Run(user+" "+kex, func(t *testing.T) {
				station, other := pair(t)
				served := device(other, host, kex, user, "secret of "+user)
				spoke := 0
				c, err := Do(station, soon(), Options{Spoke: func() { spoke++ }}, func(key ssh.PublicKey) (*Login, error) {
					for name, s := range hosts {
						if bytes.Equal(key.Marshal(), s.PublicKey().Marshal()) {
							return &Login{User: name, Auth: []ssh.AuthMethod{ssh.Password("secret of " + name)}}, nil
						}
					}
					return nil, errors.New("unknown")
				})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if err := <-served; err != nil {
					t.Errorf("the device says %v", err)
				}
				if c.User() != user || spoke != 1 {
					t.Errorf("logged in as %q, spoke %d times", c.User(), spoke)
				}
				if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err != nil {
					t.Errorf("the connection does not work: %v", err)
				}
			})
		}
	}
}

func TestWhatFailsSaysHowFarItCame(t *testing.T) {
	host := sshtest.NewSigner(t)
	unknown := errors.New("unknown key")
	login := func(ssh.PublicKey) (*Login, error) {
		return &Login{User: "u", Auth: []ssh.AuthMethod{ssh.Password("p")}}, nil
	}
	say := func(words string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.WriteString(c, words)
			c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		}
	}
	for _, tt := range []struct {
		name     string
		device   func(net.Conn)
		identify Identify
		stage    Stage
		version  string
		words    string
	}{
		{"gone at once", say(""), login, StageVersion, "", "EOF"},
		{"another protocol", say("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), login, StageExchange, "GET / HTTP/1.1", ""},
		{"a version without end", say("SSH-2.0-" + strings.Repeat("x", 300)), login, StageVersion, "", "version"},
		{"gone after the version", say("SSH-2.0-x\r\n"), login, StageExchange, "SSH-2.0-x", "EOF"},
		{"words before the version", say("I am edge7\r\nSSH-2.0-x\r\n"), login, StageExchange, "SSH-2.0-x", "EOF"},
		{"garbage after the version", say("SSH-2.0-x\r\n" + strings.Repeat("\xff", 64)), login, StageExchange, "SSH-2.0-x", ""},
		{"an unknown key", func(c net.Conn) { device(c, host, "", "u", "p") }, func(ssh.PublicKey) (*Login, error) { return nil, unknown }, StageIdentity, "SSH-2.0-Go", "unknown key"},
		{"a wrong password", func(c net.Conn) { device(c, host, "", "u", "other") }, login, StageLogin, "SSH-2.0-Go", "unable to authenticate"},
		{"another user", func(c net.Conn) { device(c, host, "", "v", "p") }, login, StageLogin, "SSH-2.0-Go", "unable to authenticate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			station, other := pair(t)
			go tt.device(other)
			c, err := Do(station, soon(), Options{}, tt.identify)
			var e *Error
			if c != nil || !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if e.Stage != tt.stage || e.Version != tt.version || !strings.Contains(e.Error(), tt.words) || strings.Contains(e.Error(), "ssh: ") {
				t.Errorf("got %q at %s, version %q", e, e.Stage, e.Version)
			}
			if tt.stage == StageIdentity && !errors.Is(err, unknown) {
				t.Errorf("%v is not Identify's error", err)
			}
			if _, err := station.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the connection is open still: %v", err)
			}
		})
	}
}

// A peer has spoken when its version is there as a whole, in whatever pieces.
func TestOnlyAVersionIsSpeech(t *testing.T) {
	for words, want := range map[string]int{
		"S": 0, "SSH-2.0-x": 0, "hello\nnot SSH-2.0-x\n": 0,
		"SSH-2.0-x\n": 1, "hello\r\nSSH-2.0-x\r\nSSH-2.0-y\r\n": 1,
	} {
		for _, pieces := range []int{1, len(words)} {
			station, device := pair(t)
			spoke := 0
			r := &recording{Conn: station, spoke: func() { spoke++ }}
			if _, err := device.Write([]byte(words)); err != nil {
				t.Fatal(err)
			}
			device.Close()
			for piece := make([]byte, len(words)/pieces); ; {
				if _, err := r.Read(piece); err != nil {
					break
				}
			}
			if spoke != want {
				t.Errorf("%q in %d pieces: spoke %d times, want %d", words, pieces, spoke, want)
			}
		}
	}
}

func TestASilentPeerIsGivenUpAtTheDeadline(t *testing.T) {
	station, _ := pair(t)
	begun := time.Now()
	_, err := Do(station, begun.Add(50*time.Millisecond), Options{}, nil)
	var e *Error
	if !errors.As(err, &e) || e.Stage != StageVersion {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Whatever is written must be what was sent: a library that draws its secrets
// elsewhere must not get through.
func TestAnotherExchangeIsRefused(t *testing.T) {
	station, other := pair(t)
	for _, tt := range []struct {
		name         string
		sent, write  string
		err          error
		passed, left string
	}{
		{"the same", "abc", "abc", nil, "", ""},
		{"a part", "abc", "ab", nil, "", "c"},
		{"the same and more", "abc", "abcde", nil, "de", ""},
		{"another", "abc", "abx", errDiffers, "", "abc"},
		{"nothing was sent", "", "xyz", nil, "xyz", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &replay{Conn: station, out: []byte(tt.sent)}
			n, err := r.Write([]byte(tt.write))
			if err != tt.err || err == nil && n != len(tt.write) || string(r.out) != tt.left {
				t.Fatalf("wrote %d, %v, left %q", n, err, r.out)
			}
			got := make([]byte, len(tt.passed))
			if _, err := io.ReadFull(other, got); err != nil || string(got) != tt.passed {
				t.Errorf("the peer got %q, %v", got, err)
			}
		})
	}
}

// Whatever a peer says, it is not let in and the station goes on.
func FuzzPeer(f *testing.F) {
	f.Add([]byte("SSH-2.0-x\r\n"))
	f.Add([]byte("SSH-2.0-OpenSSH_9.2\r\n\x00\x00\x00\x0c\x0a\x14aaaaaaaaaaaa"))
	f.Add([]byte("hello\r\nSSH-2.0-x\r\n\x00\x00\x00\x04\x01\x01\x01\x01"))
	f.Fuzz(func(t *testing.T, words []byte) {
		station, other := pair(t)
		go func() {
			_, _ = other.Write(words)
			_ = other.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, other)
		}()
		c, err := Do(station, soon(), Options{}, func(ssh.PublicKey) (*Login, error) { return nil, errors.New("unknown") })
		if c != nil || err == nil {
			t.Fatal("logged in to nobody")
		}
	})
}
