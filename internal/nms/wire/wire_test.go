package wire_test

import (
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/sshtest"
	"callhome/internal/nms/wire"

	"golang.org/x/crypto/ssh"
)

// pair returns both ends of a connection on loopback.
func pair(t testing.TB) (station, device net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if device, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if station, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { station.Close(); device.Close() })
	return station, device
}

// pieces returns its bytes in pieces of a size.
type pieces struct {
	net.Conn
	text string
	size int
}

func (p *pieces) Read(to []byte) (int, error) {
	if p.text == "" {
		return 0, io.EOF
	}
	n := copy(to[:min(len(to), p.size)], p.text)
	p.text = p.text[n:]
	return n, nil
}

// What comes before the version string is dropped within OpenSSH's bounds, in pieces of
// any size.
func TestLinesBeforeTheVersionString(t *testing.T) {
	const version = "SSH-2.0-x comment\r\n\x00\x01SSH-\n"
	junos := "MSG-ID: DEVICE-CONN-INFO\r\nMSG-VER: V1\r\nDEVICE-ID: edge7\r\nHOST-KEY: ssh-rsa " + strings.Repeat("A", 372) + "\r\nHMAC: 0123456789abcdef\r\n"
	for _, row := range []struct{ name, before, err, first string }{
		{"none", "", "", ""},
		{"outbound-ssh of Junos", junos, "", ""},
		{"empty lines", "\r\n\n\r\n", "", ""},
		{"lines that look like a part of one", "S\nSS\nSSH\nSSH_\nx SSH-2.0-y\n", "", ""},
		{"not text", "\x00\xff\x1b[2J\n", "", ""},
		{"as many lines as are taken", strings.Repeat("hello\n", 1024), "", ""},
		{"more lines", strings.Repeat("hello\n", 1025), "there is no SSH version string in its first 1024 lines", "hello"},
		{"as long a line as is taken", strings.Repeat("x", 8192) + "\n", "", ""},
		{"a longer one", strings.Repeat("x", 8193), "a line before the SSH version string has more than 8192 bytes", strings.Repeat("x", 255)},
		{"all that is taken", strings.Repeat(strings.Repeat("x", 8191)+"\n", 1024), "", ""},
	} {
		for _, size := range []int{1, 3, 511, 4096} {
			if len(row.before) > 1<<20 && size == 1 {
				continue
			}
			versions := 0
			c := wire.NewConn(&pieces{text: row.before + version, size: size})
			c.GotVersion = func() { versions++ }
			got, err := io.ReadAll(c)
			first, whole := c.Version()
			switch {
			case row.err != "":
				if err == nil || err.Error() != row.err || first != row.first || c.IsSSH() || versions != 0 {
					t.Errorf("%s by %d: %v, %q", row.name, size, err, first)
				}
			case err != nil || string(got) != version || first != "SSH-2.0-x comment" || !whole || !c.IsSSH() || versions != 1:
				t.Errorf("%s by %d: %.60q, version %q, %d, %v", row.name, size, got, first, versions, err)
			}
		}
	}
}

// A peer that sends much holds no more memory than a silent one.
func TestLinesBeforeTheVersionStringAreNotKept(t *testing.T) {
	c := wire.NewConn(&pieces{text: strings.Repeat(strings.Repeat("x", 8191)+"\n", 1024), size: 512})
	if n := testing.AllocsPerRun(1, func() { _, _ = c.Read(make([]byte, 1)) }); n > 2*1024*8192/512 {
		t.Errorf("%v allocations", n)
	}
	if first, _ := c.Version(); len(first) != 255 {
		t.Errorf("%d bytes are kept", len(first))
	}
}

// device serves one connection and reports its end.
func device(conn net.Conn, s *sshtest.Server) <-chan error {
	ended := make(chan error, 1)
	s.Ended = func(err error) { ended <- err }
	go s.Serve(conn)
	return ended
}

// client logs in over conn.
func client(t *testing.T, conn net.Conn, user ssh.Signer, auth ...wire.Method) (ssh.Conn, *wire.Conn, *wire.Login, error) {
	t.Helper()
	config := &ssh.ClientConfig{User: "op", HostKeyCallback: ssh.InsecureIgnoreHostKey()}
	login := wire.Watch(config, append([]wire.Method{{Name: "publickey", AuthMethod: ssh.PublicKeys(user)}}, auth...)...)
	under := wire.NewConn(conn)
	under.Hold(true)
	c, channels, requests, err := ssh.NewClientConn(under, "", config)
	under.Hold(false)
	if err == nil {
		go ssh.DiscardRequests(requests)
		go func() {
			for ch := range channels {
				_ = ch.Reject(ssh.Prohibited, "none")
			}
		}()
	}
	return c, under, login, err
}

func mustEnd(t *testing.T, ended <-chan error, want string) {
	t.Helper()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the device's end: %v, want %q", err, want)
		}
	case <-time.After(20 * time.Second):
		t.Error("the connection has not ended")
	}
}

// The device gets the reason, whether the connection is encrypted or not.
func TestDisconnectNamesItsReason(t *testing.T) {
	host, user := sshtest.NewSigner(t), sshtest.NewSigner(t)
	why := wire.Disconnect{Reason: wire.TooManyConnections, Text: "edge7 is connected\nalready"}
	const got = `disconnect, reason 12: "edge7 is connected?already"`
	t.Run("before the version strings", func(t *testing.T) {
		station, other := pair(t)
		ended := device(other, &sshtest.Server{Config: sshtest.LetIn(host, user.PublicKey())})
		wire.RefuseAtOnce(station, why)
		mustEnd(t, ended, got)
	})
	t.Run("after the host key", func(t *testing.T) {
		station, other := pair(t)
		ended := device(other, &sshtest.Server{Config: sshtest.LetIn(host, user.PublicKey())})
		under := wire.NewConn(station)
		under.Hold(true)
		config := &ssh.ClientConfig{User: "op", HostKeyCallback: func(string, net.Addr, ssh.PublicKey) error { return errors.New("unknown") }}
		if _, _, _, err := ssh.NewClientConn(under, "", config); err == nil {
			t.Fatal("logged in")
		}
		wire.Refuse(station, why)
		mustEnd(t, ended, got)
	})
	t.Run("after a refused login", func(t *testing.T) {
		station, other := pair(t)
		ended := device(other, &sshtest.Server{Config: sshtest.LetIn(host, user.PublicKey())})
		_, _, login, err := client(t, station, sshtest.NewSigner(t))
		if err == nil {
			t.Fatal("logged in")
		}
		login.Refuse(station, why)
		mustEnd(t, ended, got)
	})
	t.Run("after the login", func(t *testing.T) {
		station, other := pair(t)
		ended := device(other, &sshtest.Server{Config: sshtest.LetIn(host, user.PublicKey())})
		c, _, _, err := client(t, station, user)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		wire.Leave(c, why)
		mustEnd(t, ended, got)
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// A connection that the library did not make is an error.
func TestAnotherTransportIsAnError(t *testing.T) {
	for _, c := range []ssh.ConnMetadata{nil, struct{ ssh.Conn }{}, &struct{ ssh.Conn }{}, (*ssh.ServerConn)(nil), &ssh.Client{}} {
		if err := wire.Send(c, sshtest.Unimplemented); err == nil {
			t.Errorf("%T was sent a packet", c)
		}
	}
}

// banner is a banner with bytes after its last field.
var banner = append(ssh.Marshal(struct {
	Text, Language string `sshtype:"53"`
}{"Welcome", "en"}), 0, 0, 0, 1, 'x')

// A banner that the library cannot parse does not end a login, as with ssh.
func TestABannerWithTrailingBytes(t *testing.T) {
	for _, row := range []struct {
		name    string
		banners int
		auth    func(user ssh.Signer) []wire.Method
		err     string
	}{
		{"key", 1, nil, ""},
		{"several banners", 5, nil, ""},
		{"password after a refused key", 1, func(ssh.Signer) []wire.Method {
			return []wire.Method{{Name: "password", AuthMethod: ssh.Password("sesame")}}
		}, ""},
		{"refused", 1, func(ssh.Signer) []wire.Method { return nil }, "unable to authenticate"},
		{"banners without end", 100, nil, "too many banners"}, // v0.59 logs in
	} {
		t.Run(row.name, func(t *testing.T) {
			host, user := sshtest.NewSigner(t), sshtest.NewSigner(t)
			config := sshtest.LetIn(host, user.PublicKey())
			config.PasswordCallback = func(_ ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
				if string(p) != "sesame" {
					return nil, errors.New("wrong")
				}
				return nil, nil
			}
			config.NoClientAuth = true
			config.NoClientAuthCallback = func(c ssh.ConnMetadata) (*ssh.Permissions, error) {
				for range row.banners {
					if err := wire.Send(c, banner); err != nil {
						return nil, err
					}
				}
				return nil, errors.New("a credential is needed")
			}
			station, other := pair(t)
			device(other, &sshtest.Server{Config: config})
			var auth []wire.Method
			if row.auth != nil {
				auth = row.auth(user)
				user = sshtest.NewSigner(t) // another key
			}
			c, _, _, err := client(t, station, user, auth...)
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		})
	}
}

// Every answer to a keepalive shows a live peer, and so does anything else that it sends.
func TestKeepalive(t *testing.T) {
	const limit = 4 * time.Second
	for _, row := range []struct {
		name   string
		device sshtest.Server
		busy   bool // sends requests of its own
		want   error
	}{
		{"OpenSSH", sshtest.Server{Config: &ssh.ServerConfig{ServerVersion: "SSH-2.0-OpenSSH_9.2"}}, false, nil},
		{"OpenSSH that answers nothing", sshtest.Server{Config: &ssh.ServerConfig{ServerVersion: "SSH-2.0-OpenSSH_9.2"}, Mute: true}, false, wire.ErrSilent},
		{"answers", sshtest.Server{}, false, nil},
		{"answers a global request with SSH_MSG_UNIMPLEMENTED", sshtest.Server{Unimplemented: true}, false, nil},
		{"answers nothing and sends", sshtest.Server{Mute: true}, true, nil},
		{"answers nothing", sshtest.Server{Mute: true}, false, wire.ErrSilent},
		{"answers global requests only", sshtest.Server{NoChannels: true}, false, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			host, user := sshtest.NewSigner(t), sshtest.NewSigner(t)
			synctest.Test(t, func(t *testing.T) {
				station, other := sshtest.Pipe()
				config := sshtest.LetIn(host, user.PublicKey())
				if row.device.Config != nil {
					config.ServerVersion = row.device.Config.ServerVersion
				}
				row.device.Config = config
				gone := make(chan struct{})
				row.device.LoggedIn = func(c ssh.Conn) {
					defer close(gone)
					for row.busy {
						time.Sleep(limit / 8)
						if _, _, err := c.SendRequest("x", false, nil); err != nil {
							return
						}
					}
				}
				go row.device.Serve(other)
				c, under, _, err := client(t, station, user)
				if err != nil {
					t.Fatal(err)
				}
				k := wire.NewKeepalive(c, under)
				for range 5 {
					begun := time.Now()
					if err := k.Ask(limit); !errors.Is(err, row.want) {
						t.Errorf("got %v, want %v", err, row.want)
					}
					if took := time.Since(begun); took > limit {
						t.Errorf("it took %v", took)
					}
				}
				c.Close()
				synctest.Wait() // what was under way has come
				if err := k.Ask(limit); err == nil || row.want == nil && errors.Is(err, wire.ErrSilent) {
					t.Errorf("after the end: %v", err)
				}
				<-gone // no goroutine may outlive the bubble
			})
		})
	}
}

// A keepalive to OpenSSH costs no goroutine that waits for the answer.
func TestAKeepaliveLeavesNoGoroutine(t *testing.T) {
	host, user := sshtest.NewSigner(t), sshtest.NewSigner(t)
	synctest.Test(t, func(t *testing.T) {
		station, other := sshtest.Pipe()
		config := sshtest.LetIn(host, user.PublicKey())
		config.ServerVersion = "SSH-2.0-OpenSSH_9.2"
		go (&sshtest.Server{Config: config, Mute: true}).Serve(other)
		c, under, _, err := client(t, station, user)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		k, before := wire.NewKeepalive(c, under), runtime.NumGoroutine()
		const keepalives = 20
		for range keepalives {
			send, wait, err := k.Begin(time.Minute).Next()
			if send == nil || wait != time.Minute || err != nil {
				t.Fatalf("got %v, %v", wait, err)
			}
			if err := send(); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if n := runtime.NumGoroutine(); n >= before+keepalives { // the runtime starts some of its own
			t.Errorf("%d goroutines more", n-before)
		}
		c.Close()
	})
}

func TestLoginErrorsAreInWords(t *testing.T) {
	host, user := sshtest.NewSigner(t), sshtest.NewSigner(t)
	config := sshtest.LetIn(host, user.PublicKey())
	config.PublicKeyCallback = nil
	config.KeyboardInteractiveCallback = func(ssh.ConnMetadata, ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
		return nil, errors.New("no")
	}
	station, other := pair(t)
	device(other, &sshtest.Server{Config: config})
	_, _, _, err := client(t, station, user, wire.Method{Name: "keyboard-interactive", AuthMethod: ssh.KeyboardInteractive(func(string, string, []string, []bool) ([]string, error) { return nil, nil })})
	if err == nil || wire.LoginError(err) != "the device refused the password: it ended keyboard-interactive without a prompt" {
		t.Errorf("got %v", err)
	}
}
