package login

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/nms/knownhosts"
	"callhome/internal/nms/sshtest"
	"callhome/internal/nms/wire"
	"callhome/internal/sysexits"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

const patience = time.Minute

type key struct {
	ssh.Signer
	private ed25519.PrivateKey
}

func newKey(t *testing.T) key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key{signer, private}
}

// locked is a key for these tests alone, with the passphrase "open". It was made with
// ssh-keygen -a 1, as the usual 16 rounds take a second.
const locked = `-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABA+J5LTLR
5VALM1e7SZwXlXAAAAAQAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAINSGYQAUgp/d5CE6
+M4+FO6dKfcC6Wo6yUg+qkkLKevEAAAAkNhY6SyNL55gW2kn0uAdDEGzl5Fg1bB1vcCT5J
uJqQjmYlPu0BSFiULu1dJbMqfI+my6BxLLEZJa7+iYifbcLGKxKBYQIZ0dWPojNt7APcvX
X2BAsPWy4ElQQfVCrHF5dNJ1yr+eDMv7uQYzMX+q/glKeFRv+ZNlrQfw3do5l6VhVQtfgo
OfVyOhbCESIowrPA==
-----END OPENSSH PRIVATE KEY-----
`

// file writes the private key as ssh-keygen does.
func (k key) file(t *testing.T, mode os.FileMode) string {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(k.private, "")
	if err != nil {
		t.Fatal(err)
	}
	return write(t, string(pem.EncodeToMemory(block)), mode)
}

func write(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return name
}

// device is an SSH server with one host key. It accepts some keys and one password, and
// has a netconf subsystem that echoes.
type device struct {
	host  key
	users []ssh.PublicKey
}

const password = "sesame"

func (d device) serve(conn net.Conn) {
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
			if c, ok := k.(*ssh.Certificate); ok {
				k = c.Key
			}
			for _, user := range d.users {
				if bytes.Equal(k.Marshal(), user.Marshal()) {
					return nil, nil
				}
			}
			return nil, errors.New("no")
		},
		KeyboardInteractiveCallback: func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			answers, err := ask("", "", []string{"Password: "}, []bool{false})
			if err != nil || answers[0] != password {
				return nil, errors.New("no")
			}
			return nil, nil
		},
	}
	config.AddHostKey(d.host)
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		conn.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				isNetconf := r.Type == "subsystem" && string(r.Payload[4:]) == "netconf"
				_ = r.Reply(isNetconf, nil)
				if isNetconf {
					go func() { _, _ = io.Copy(channel, channel); channel.Close() }()
				}
			}
		}()
	}
}

// call returns the station's end of a call home, whose other end serve has.
func call(t *testing.T, serve func(net.Conn)) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	theirs, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	ours, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close() })
	go serve(theirs)
	return ours
}

func know(t *testing.T, keys ...ssh.PublicKey) *knownhosts.Device {
	t.Helper()
	d, err := knownhosts.New("edge7", knownhosts.Options{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func methods(t *testing.T, c Credentials) []wire.Method {
	t.Helper()
	m, closer, err := c.Methods("op")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closer.Close() })
	return m
}

func try(t *testing.T, serve func(net.Conn), d *knownhosts.Device, c Credentials) (*Client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client, err := Do(ctx, call(t, serve), d, "op", methods(t, c))
	if err == nil {
		t.Cleanup(func() { client.Close() })
	}
	return client, err
}

// agentSocket returns the socket of an ssh-agent that has one key.
func agentSocket(t *testing.T, k key) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: k.private}); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(ring, conn) }()
		}
	}()
	return socket
}

func TestEachWayToLogInLeadsToANetconfChannel(t *testing.T) {
	host, user := newKey(t), newKey(t)
	certificate := &ssh.Certificate{Key: user.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"op"}, ValidBefore: ssh.CertTimeInfinity}
	if err := certificate.SignCert(rand.Reader, newKey(t)); err != nil {
		t.Fatal(err)
	}
	certified := user.file(t, 0o600)
	if err := os.WriteFile(certified+"-cert.pub", ssh.MarshalAuthorizedKey(certificate), 0o644); err != nil {
		t.Fatal(err)
	}
	socket := agentSocket(t, user)
	lockedKey, err := ssh.ParsePrivateKeyWithPassphrase([]byte(locked), []byte("open"))
	if err != nil {
		t.Fatal(err)
	}
	prompt := func(question string) (string, error) {
		if strings.Contains(question, "passphrase") {
			return "open", nil
		}
		return password, nil
	}
	for name, c := range map[string]Credentials{
		"key file":                    {KeyFiles: []string{newKey(t).file(t, 0o600), user.file(t, 0o400)}},
		"key file with a passphrase":  {KeyFiles: []string{write(t, locked, 0o600)}, Prompt: prompt},
		"key file with a certificate": {KeyFiles: []string{certified}},
		"default key":                 {DefaultKeys: []string{"/nonexistent/key", user.file(t, 0o600)}},
		"agent":                       {AgentSocket: socket},
		"password file":               {PasswordFile: write(t, password+"\nmore\n", 0o600)},
		"password asked for":          {Prompt: prompt},
		"password after a wrong key":  {KeyFiles: []string{newKey(t).file(t, 0o600)}, PasswordFile: write(t, password, 0o600)},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := try(t, device{host, []ssh.PublicKey{user.PublicKey(), lockedKey.PublicKey()}}.serve, know(t, host.PublicKey()), c)
			if err != nil {
				t.Fatal(err)
			}
			if client.Fingerprint != ssh.FingerprintSHA256(host.PublicKey()) {
				t.Errorf("fingerprint %s", client.Fingerprint)
			}
			channel, err := client.Netconf(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			echo := make([]byte, 3)
			if _, err := channel.Write([]byte("abc")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(channel, echo); err != nil || string(echo) != "abc" {
				t.Errorf("%q, %v", echo, err)
			}
		})
	}
}

func TestAFailureNamesItsStageAndClosesTheConnection(t *testing.T) {
	host, user := newKey(t), newKey(t)
	good := Credentials{KeyFiles: []string{user.file(t, 0o600)}}
	sends := func(text string) func(net.Conn) {
		return func(c net.Conn) { _, _ = io.WriteString(c, text); c.Close() }
	}
	silent := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for _, row := range []struct {
		name  string
		serve func(net.Conn)
		known key
		creds Credentials
		code  int
		text  string
	}{
		{"another host key", device{host, []ssh.PublicKey{user.PublicKey()}}.serve, newKey(t), good, sysexits.NoPerm, "this is not device edge7"},
		{"wrong user key", device{host, []ssh.PublicKey{user.PublicKey()}}.serve, host, Credentials{KeyFiles: []string{newKey(t).file(t, 0o600)}}, sysexits.NoPerm, "logging in: unable to authenticate"},
		{"wrong password", device{host, nil}.serve, host, Credentials{PasswordFile: write(t, "wrong", 0o600)}, sysexits.NoPerm, "logging in: "},
		{"garbage", sends("HTTP/1.0 400 \x1b[2J\r\n\r\n"), host, good, sysexits.Protocol, `version string: it began with "HTTP/1.0 400 \x1b[2J"`},
		{"garbage without end", func(c net.Conn) { _, _ = io.WriteString(c, strings.Repeat("x", 1<<14)); silent(c) }, host, good, sysexits.Protocol, `it began with "xxx`},
		{"hanging up", sends(""), host, good, sysexits.Protocol, "version string: it closed the connection"},
		{"hanging up after the version", sends("SSH-2.0-x\r\n"), host, good, sysexits.Protocol, "exchanging keys: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			mustFail(t, call(t, row.serve), know(t, row.known.PublicKey()), row.creds, row.code, row.text)
		})
	}
}

func mustFail(t *testing.T, conn net.Conn, known *knownhosts.Device, creds Credentials, code int, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := Do(ctx, conn, known, "op", methods(t, creds))
	if err == nil || sysexits.Code(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("%v (status %d)\nwant %q (%d)", err, sysexits.Code(err), text, code)
	}
	var final *Error
	if errors.As(err, &final) != strings.HasPrefix(text, "logging in") {
		t.Errorf("%v: final is %v", err, final)
	}
	if _, err := conn.Write([]byte("x")); err == nil {
		t.Error("the connection is still open")
	}
}

// In the bubble the time limit comes when all is read that the peer has sent.
func TestALoginThatDoesNotGoOnFailsAtItsLimit(t *testing.T) {
	known, creds := know(t, newKey(t).PublicKey()), Credentials{KeyFiles: []string{newKey(t).file(t, 0o600)}}
	for sent, text := range map[string]string{
		"":                      "version string: it did not answer in time",
		"hello":                 `it began with "hello", and no version string came in time`,
		"X: y\r\nSSH-2.0-x\r\n": "exchanging keys: it did not answer",
	} {
		t.Run(sent, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, theirs := sshtest.Pipe()
				go func() {
					if sent != "" {
						_, _ = io.WriteString(theirs, sent)
					}
					_, _ = io.Copy(io.Discard, theirs)
					theirs.Close()
				}()
				mustFail(t, conn, known, creds, sysexits.Protocol, text)
			})
		})
	}
}

func TestADeviceWithoutTheSubsystemIsAnError(t *testing.T) {
	host, user := newKey(t), newKey(t)
	serve := func(conn net.Conn) {
		config := &ssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(host)
		_, channels, requests, err := ssh.NewServerConn(conn, config)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		for c := range channels {
			if _, requests, err := c.Accept(); err == nil {
				go ssh.DiscardRequests(requests)
			}
		}
	}
	client, err := try(t, serve, know(t, host.PublicKey()), Credentials{KeyFiles: []string{user.file(t, 0o600)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Netconf(t.Context()); sysexits.Code(err) != sysexits.Unavailable || !strings.Contains(err.Error(), "the device has no netconf subsystem") {
		t.Errorf("%v", err)
	}
}

// Close returns although the device does not answer the close of its channel.
func TestCloseDoesNotWait(t *testing.T) {
	host, user := newKey(t), newKey(t)
	done := make(chan struct{})
	defer close(done)
	serve := func(conn net.Conn) {
		config := &ssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(host)
		_, channels, requests, err := ssh.NewServerConn(&stalled{Conn: conn, done: done}, config)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		for c := range channels {
			if _, requests, err := c.Accept(); err == nil {
				go func() {
					for r := range requests {
						_ = r.Reply(true, nil)
						conn.(*net.TCPConn).SetReadDeadline(time.Unix(1, 0)) // from now on it reads nothing
					}
				}()
			}
		}
	}
	client, err := try(t, serve, know(t, host.PublicKey()), Credentials{KeyFiles: []string{user.file(t, 0o600)}})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := client.Netconf(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() { _, err := stream.Read(make([]byte, 1)); read <- err }()
	stream.Close()
	select {
	case err := <-read:
		if err == nil {
			t.Error("a read succeeded")
		}
	case <-time.After(patience):
		t.Error("a read still waits")
	}
}

// stalled is a connection whose Read blocks after its read deadline, until done.
type stalled struct {
	net.Conn
	done chan struct{}
}

func (d *stalled) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		<-d.done
	}
	return n, err
}

func TestKeepAliveClosesAConnectionWithoutAnAnswer(t *testing.T) {
	host, user := newKey(t), newKey(t)
	silent := make(chan struct{})
	defer close(silent)
	serve := func(conn net.Conn) {
		config := &ssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(host)
		_, _, requests, err := ssh.NewServerConn(conn, config)
		if err != nil {
			return
		}
		for i := 0; i < 2; i++ { // two answers, then silence
			if r := <-requests; r != nil {
				_ = r.Reply(false, nil)
			}
		}
		<-silent
	}
	client, err := try(t, serve, know(t, host.PublicKey()), Credentials{KeyFiles: []string{user.file(t, 0o600)}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { client.KeepAlive(20 * time.Millisecond); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the client still waits")
	}
	if err := client.Wait(); err == nil {
		t.Error("the connection ended in order")
	}
	err = client.why(io.EOF)
	if err == nil || err.Error() != "no answer to a keepalive within 20ms" || sysexits.Code(err) != sysexits.Unavailable {
		t.Errorf("the reason is %v", err)
	}
}

func TestCredentialsThatCannotBeUsed(t *testing.T) {
	user := newKey(t)
	other := user.file(t, 0o600)
	if err := os.WriteFile(other+"-cert.pub", ssh.MarshalAuthorizedKey(newKey(t).PublicKey()), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		c    Credentials
		code int
		text string
	}{
		{"nothing", Credentials{}, sysexits.NoInput, "no credential to log in with"},
		{"no such key", Credentials{KeyFiles: []string{"/nonexistent/key"}}, sysexits.NoInput, "/nonexistent/key"},
		{"no key", Credentials{KeyFiles: []string{write(t, "nonsense", 0o600)}}, sysexits.NoInput, "reading the private key"},
		{"a key that all can read", Credentials{KeyFiles: []string{user.file(t, 0o644)}}, sysexits.NoPerm, "others can read"},
		{"a passphrase and no terminal", Credentials{KeyFiles: []string{write(t, locked, 0o600)}}, sysexits.NoInput, "passphrase"},
		{"a certificate for another key", Credentials{KeyFiles: []string{other}}, sysexits.NoInput, "not a certificate for that key"},
		{"an empty password", Credentials{PasswordFile: write(t, "\n", 0o600)}, sysexits.NoInput, "no password"},
		{"a password that all can read", Credentials{PasswordFile: write(t, "x", 0o604)}, sysexits.NoPerm, "others can read"},
		{"an agent that is gone", Credentials{AgentSocket: "/nonexistent/agent"}, sysexits.NoInput, "no credential to log in with"},
	} {
		_, _, err := row.c.Methods("op")
		if sysexits.Code(err) != row.code || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: %v (status %d)", row.name, err, sysexits.Code(err))
		}
	}
}

// info is a file's owner and mode.
type info struct {
	os.FileInfo
	mode     os.FileMode
	uid, gid uint32
}

func (i info) Mode() os.FileMode { return i.mode }
func (i info) Sys() any          { return &syscall.Stat_t{Uid: i.uid, Gid: i.gid} }

func TestASystemdCredentialIsASecret(t *testing.T) {
	for _, test := range []struct {
		what string
		file info
		want bool
	}{
		{"a file of its owner's", info{mode: 0o600, uid: 1000, gid: 1000}, false},
		{"a systemd credential", info{mode: 0o440}, false},
		{"one that all can read", info{mode: 0o444}, true},
		{"one that the group root can write", info{mode: 0o460}, true},
		{"root's, for another group", info{mode: 0o440, gid: 1000}, true},
		{"a user's, for the group root", info{mode: 0o440, uid: 1000}, true},
	} {
		if got := tooOpen(test.file); got != test.want {
			t.Errorf("%s: too open is %v", test.what, got)
		}
	}
}

// A file of credentials is usable or refused, and its text is in no message.
func FuzzCredentials(f *testing.F) {
	for _, s := range []string{"secret-password\n", "\r\n", "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0LXBhc3N3b3Jk\n-----END OPENSSH PRIVATE KEY-----\n",
		"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----", "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, keyErr := Credentials{}.signers(path)
		password, err := Credentials{PasswordFile: path}.password("netconf")
		first, _, _ := bytes.Cut(text, []byte("\n"))
		if empty := len(bytes.TrimSuffix(first, []byte("\r"))) == 0; (err != nil) != empty {
			t.Errorf("%q: %v", text, err)
		}
		if err == nil {
			if got, _ := password(); got != string(bytes.TrimSuffix(first, []byte("\r"))) {
				t.Errorf("%q is read as %q", text, got)
			}
		}
		for _, err := range []error{keyErr, err} {
			if word := string(first); err != nil && len(word) > 12 && !strings.Contains("reading the private key "+path, word) && strings.Contains(err.Error(), word) {
				t.Errorf("%q is in the message %q", word, err)
			}
		}
	})
}
