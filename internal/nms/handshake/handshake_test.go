package handshake

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/sshtest"
	"callhome/internal/nms/wire"

	"golang.org/x/crypto/ssh"
)

// pair returns both ends of a connection on loopback. A net.Pipe has no buffer: there
// both ends would block, as SSH's two sides write before they read.
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

// device is an SSH server that accepts one user with one password. The channel gets
// the error of the login.
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

// userU is the user "u" for each key.
func userU(ssh.PublicKey) string { return "u" }

func soon() time.Time { return time.Now().Add(20 * time.Second) }

// Every key exchange can run twice, and the host key determines the user.
func TestTheHostKeyDeterminesTheUser(t *testing.T) {
	hosts := map[string]ssh.Signer{"alice": sshtest.NewSigner(t), "bob": sshtest.NewSigner(t)}
	for user, host := range hosts {
		for _, kex := range append(slices.Clone(keyExchanges), oldKeyExchange) {
			t.Run(user+" "+kex, func(t *testing.T) {
				station, other := pair(t)
				served := device(other, host, kex, user, "secret of "+user)
				versions := 0
				of := func(key ssh.PublicKey) string {
					for name, s := range hosts {
						if bytes.Equal(key.Marshal(), s.PublicKey().Marshal()) {
							return name
						}
					}
					return ""
				}
				c, err := Do(station, soon(), Options{OldKeyExchange: kex == oldKeyExchange, GotVersion: func() { versions++ }}, of, func(key ssh.PublicKey) (*Login, error) {
					if name := of(key); name != "" {
						return &Login{User: name, Auth: []wire.Method{{Name: "password", AuthMethod: ssh.Password("secret of " + name)}}}, nil
					}
					return nil, errors.New("unknown")
				})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if err := <-served; err != nil {
					t.Errorf("the device reports %v", err)
				}
				if c.User() != user || versions != 1 {
					t.Errorf("logged in as %q, %d versions", c.User(), versions)
				}
				if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err != nil {
					t.Errorf("the connection does not work: %v", err)
				}
			})
		}
	}
}

// What costs most is offered only where the operator wants it, or never.
func TestAPeerCannotChooseAnExpensiveKeyExchange(t *testing.T) {
	for _, tt := range []struct {
		kex string
		old bool
	}{{oldKeyExchange, false}, {ssh.KeyExchangeDH16SHA512, true}, {ssh.KeyExchangeDHGEXSHA256, true}} {
		station, other := pair(t)
		device(other, sshtest.NewSigner(t), tt.kex, "u", "p")
		_, err := Do(station, soon(), Options{OldKeyExchange: tt.old}, userU, func(ssh.PublicKey) (*Login, error) {
			t.Errorf("%s was used", tt.kex)
			return nil, errors.New("used")
		})
		var e *Error
		if !errors.As(err, &e) || e.Stage != StageExchange || !strings.Contains(err.Error(), "no common algorithm for key exchange") {
			t.Errorf("%s: got %v", tt.kex, err)
		}
	}
}

func TestAFailureNamesItsStage(t *testing.T) {
	host := sshtest.NewSigner(t)
	unknown := errors.New("unknown key")
	login := func(ssh.PublicKey) (*Login, error) {
		return &Login{User: "u", Auth: []wire.Method{{Name: "password", AuthMethod: ssh.Password("p")}}}, nil
	}
	send := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.WriteString(c, text)
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
		text     string
	}{
		{"gone at once", send(""), login, StageVersion, "", "EOF"},
		{"another protocol", send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), login, StageVersion, "GET / HTTP/1.1", "EOF"},
		{"a version without end", send("SSH-2.0-" + strings.Repeat("x", 300)), login, StageVersion, "", "version"},
		{"gone after the version", send("SSH-2.0-x\r\n"), login, StageExchange, "SSH-2.0-x", "EOF"},
		{"a line before the version", send("I am edge7\r\nSSH-2.0-x\r\n"), login, StageExchange, "SSH-2.0-x", "EOF"},
		{"garbage after the version", send("SSH-2.0-x\r\n" + strings.Repeat("\xff", 64)), login, StageExchange, "SSH-2.0-x", ""},
		{"an unknown key", func(c net.Conn) { device(c, host, "", "u", "p") }, func(ssh.PublicKey) (*Login, error) { return nil, unknown }, StageIdentity, "SSH-2.0-Go", "unknown key"},
		{"a wrong password", func(c net.Conn) { device(c, host, "", "u", "other") }, login, StageLogin, "SSH-2.0-Go", "unable to authenticate"},
		{"another user", func(c net.Conn) { device(c, host, "", "v", "p") }, login, StageLogin, "SSH-2.0-Go", "unable to authenticate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			station, other := pair(t)
			go tt.device(other)
			c, err := Do(station, soon(), Options{}, userU, tt.identify)
			var e *Error
			if c != nil || !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if e.Stage != tt.stage || e.Version != tt.version || !strings.Contains(e.Error(), tt.text) || strings.Contains(e.Error(), "ssh: ") {
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

// GotVersion is called for a whole version string, also if it comes in pieces.
func TestOnlyAWholeVersionCounts(t *testing.T) {
	for text, want := range map[string]int{
		"S": 0, "SSH-2.0-x": 0, "hello\nnot SSH-2.0-x\n": 0,
		"SSH-2.0-x\n": 1, "hello\r\nSSH-2.0-x\r\nSSH-2.0-y\r\n": 1,
	} {
		for _, pieces := range []int{1, len(text)} {
			station, device := pair(t)
			got := 0
			under := wire.NewConn(station)
			under.GotVersion = func() { got++ }
			r := &recording{Conn: under}
			if _, err := device.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			device.Close()
			for piece := make([]byte, len(text)/pieces); ; {
				if _, err := r.Read(piece); err != nil {
					break
				}
			}
			if got != want {
				t.Errorf("%q in %d pieces: %d versions, want %d", text, pieces, got, want)
			}
		}
	}
}

func TestASilentPeerFailsAtTheDeadline(t *testing.T) {
	station, _ := pair(t)
	begun := time.Now()
	_, err := Do(station, begun.Add(50*time.Millisecond), Options{}, nil, nil)
	var e *Error
	if !errors.As(err, &e) || e.Stage != StageVersion {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// The second run must write the bytes of the first: a library that draws its secrets
// elsewhere must fail.
func TestASecondRunThatDiffersIsRefused(t *testing.T) {
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
			r := &replay{Conn: wire.NewConn(station), out: []byte(tt.sent)}
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

// No input of a peer logs in or panics.
func FuzzPeer(f *testing.F) {
	f.Add([]byte("SSH-2.0-x\r\n"))
	f.Add([]byte("SSH-2.0-OpenSSH_9.2\r\n\x00\x00\x00\x0c\x0a\x14aaaaaaaaaaaa"))
	f.Add([]byte("\r\nSSH-2.0\r\n\x00\x00\x00\x00\x7f\x1f"))
	f.Add([]byte("hello\r\nSSH-2.0-x\r\n\x00\x00\x00\x04\x01\x01\x01\x01"))
	f.Fuzz(func(t *testing.T, input []byte) {
		station, other := pair(t)
		go func() {
			_, _ = other.Write(input)
			_ = other.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, other)
		}()
		c, err := Do(station, soon(), Options{}, userU, func(ssh.PublicKey) (*Login, error) { return nil, errors.New("unknown") })
		if c != nil || err == nil {
			t.Fatal("logged in to an unknown device")
		}
	})
}

// ignore is SSH_MSG_IGNORE in the clear.
const ignore = "\x00\x00\x00\x0c\x0a\x02" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00"

// A peer must not make the library allocate much with a few bytes, and the bytes that
// are kept are bounded.
func TestALargeExchangeIsRefusedAtOnce(t *testing.T) {
	for _, tt := range []struct{ name, sends, text string }{
		{"a packet that is announced", "SSH-2.0-x\r\n\x00\x03\xff\xff", "a packet of 262143 bytes, the maximum is 32768"},
		{"a packet without a type", "SSH-2.0-x\r\n\x00\x00\x00\x00\x04\x1f", "a packet of 0 bytes, which has no type"},
		{"a packet without a type, of one byte", "SSH-2.0-x\r\n\x00\x00\x00\x01\x04\x1f", "a packet of 1 bytes, which has no type"},
		{"a reply that ends after its type", "SSH-2.0-x\r\n\x00\x00\x00\x02\x04\x1f", "came before its begin"},
		{"after a line", "I am edge7\r\nSSH-2.0-x\r\n\x00\x03\xff\xff\x04", "a packet of 262143 bytes"},
		{"the second one", "SSH-2.0-x\r\n" + kexInit(t) + "\xff\xff\xff\xff", "a packet of 4294967295 bytes"},
		{"a reply before its question", "SSH-2.0-x\r\n" + string(packetOf(msgKexReply, 100)), "came before its begin"},
		{"packets without end", "SSH-2.0-x\r\n" + strings.Repeat(ignore, maxExchange/len(ignore)+1), "more than the maximum of 32768 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			station, other := pair(t)
			go func() {
				_, _ = io.WriteString(other, tt.sends)
				_, _ = io.Copy(io.Discard, other)
			}()
			begun := time.Now()
			_, err := Do(station, soon(), Options{}, nil, nil)
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %q", err, tt.text)
			}
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// kexInit is the first packet of the library's server.
func kexInit(t *testing.T) string {
	t.Helper()
	client, other := pair(t)
	device(other, sshtest.NewSigner(t), "", "u", "p")
	if _, err := io.WriteString(client, "SSH-2.0-x\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(client)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	head, err := in.Peek(4)
	if err != nil {
		t.Fatal(err)
	}
	packet := make([]byte, 4+binary.BigEndian.Uint32(head))
	if _, err := io.ReadFull(in, packet); err != nil {
		t.Fatal(err)
	}
	return string(packet)
}

// packetOf is a packet of zeros.
func packetOf(kind byte, length int) []byte {
	p := make([]byte, 4+length)
	binary.BigEndian.PutUint32(p, uint32(length))
	p[5] = kind
	return p
}

// Lengths are read up to the last packet in the clear, in pieces of any size, and the host
// key is found.
func TestPacketsAreFollowedToTheLastInTheClear(t *testing.T) {
	reply := packetOf(msgKexReply, 3000)
	copy(reply[6:], "\x00\x00\x00\x03key")
	in := slices.Concat([]byte("SSH-2.0-x\r\n"), packetOf(20, 1000), reply, packetOf(msgNewKeys, 12), bytes.Repeat([]byte{0xff}, 100))
	for _, step := range []int{1, 7, 4096, len(in)} {
		var p packets
		for n := 0; n < len(in); {
			n = min(len(in), n+step)
			if err := p.check(in[:n]); err != nil {
				t.Errorf("in steps of %d: after %d bytes: %v", step, n, err)
				break
			}
		}
		if !p.encrypted || !p.replied || string(p.hostKey) != "key" {
			t.Errorf("in steps of %d: the last packet was not found, or host key %q", step, p.hostKey)
		}
	}
	for _, length := range []string{"\x00\x00\x0b\xb8", "\xff\xff\xff\xff"} {
		copy(reply[6:], length)
		p := packets{version: true}
		if err := p.check(reply); err != nil || !p.replied || p.hostKey != nil {
			t.Errorf("a host key of length %q: %v, %q", length, err, p.hostKey)
		}
	}
}

// liar shows the key of another device, and signs with its own.
type liar struct {
	ssh.Signer
	claims ssh.PublicKey
}

func (l liar) PublicKey() ssh.PublicKey { return l.claims }

// A peer that claims the key of a device and does not have it has no effect, and is not
// told the user.
func TestAClaimIsNoProof(t *testing.T) {
	station, other := pair(t)
	device, liar := sshtest.NewSigner(t), liar{Signer: sshtest.NewSigner(t)}
	liar.claims = device.PublicKey()
	var heard bytes.Buffer
	served := func() <-chan error {
		config := &ssh.ServerConfig{PasswordCallback: func(c ssh.ConnMetadata, _ []byte) (*ssh.Permissions, error) {
			t.Errorf("it was told the user %q", c.User())
			return nil, nil
		}}
		config.AddHostKey(liar)
		done := make(chan error, 1)
		go func() {
			_, _, _, err := ssh.NewServerConn(hearing{other, &heard}, config)
			done <- err
		}()
		return done
	}()
	claims := 0
	_, err := Do(station, soon(), Options{}, func(k ssh.PublicKey) string {
		if !bytes.Equal(k.Marshal(), device.PublicKey().Marshal()) {
			t.Errorf("it claimed %v", k)
		}
		claims++
		return "u-of-the-device"
	}, func(ssh.PublicKey) (*Login, error) {
		t.Error("it was identified")
		return nil, errors.New("identified")
	})
	var e *Error
	if !errors.As(err, &e) || e.Stage != StageExchange || claims != 1 {
		t.Errorf("got %v after %d claims", err, claims)
	}
	<-served
	if strings.Contains(heard.String(), "u-of-the-device") {
		t.Error("the peer got the user")
	}
}

// hearing keeps what is read.
type hearing struct {
	net.Conn
	to *bytes.Buffer
}

func (h hearing) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.to.Write(p[:n])
	return n, err
}

// The user belongs to the claim, and the credential to the proof: where the registry was
// changed between them there is no login.
func TestADeviceWhoseEntryChangesIsNotLoggedIn(t *testing.T) {
	station, other := pair(t)
	served := device(other, sshtest.NewSigner(t), "", "u", "p")
	_, err := Do(station, soon(), Options{}, userU, func(ssh.PublicKey) (*Login, error) {
		return &Login{User: "v", Auth: []wire.Method{{Name: "password", AuthMethod: ssh.Password("p")}}}, nil
	})
	if !errors.Is(err, errChanged) {
		t.Errorf("got %v", err)
	}
	if err := <-served; err == nil {
		t.Error("the device has let it in")
	}
}

// rsaHost returns an RSA host key of 4096 bits with a certificate. The key is its own
// CA, as making keys takes long.
func rsaHost(t *testing.T) ssh.Signer {
	t.Helper()
	host := sshtest.NewRSA(t, 4096)
	c := &ssh.Certificate{Key: host.PublicKey(), CertType: ssh.HostCert, KeyId: "edge7", ValidPrincipals: []string{"edge7", "edge7.example"}, ValidBefore: ssh.CertTimeInfinity}
	if err := c.SignCert(rand.Reader, host); err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewCertSigner(c, host)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The largest exchange in practice needs at most a quarter of the limit.
func TestALargeExchangeFits(t *testing.T) {
	station, other := pair(t)
	host := rsaHost(t)
	device(other, host, ssh.KeyExchangeMLKEM768X25519, "u", "p")
	r := &recording{Conn: wire.NewConn(station), deadline: soon()}
	if err := station.SetDeadline(r.deadline); err != nil {
		t.Fatal(err)
	}
	o := Options{HostKeys: []string{ssh.CertAlgoRSASHA512v01}}
	key, failed := firstRun(r, o)
	if failed != nil || key.Type() != ssh.CertAlgoRSAv01 {
		t.Fatalf("got %v, %v", key, failed)
	}
	t.Logf("%d bytes", len(r.in))
	if len(r.in) > maxExchange/4 {
		t.Errorf("the exchange has %d bytes, the maximum is %d", len(r.in), maxExchange)
	}
}
