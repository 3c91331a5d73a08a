package station

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/registry"
	"callhome/internal/nms/sshtest"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

func socketpair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		c, err := net.FileConn(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns[i] = c.(*net.UnixConn)
	}
	return conns[0], conns[1]
}

// The device that called last is kept and listed first, also after the clock was
// set back.
func TestAClockSetBackDropsNoNewUnknownDevice(t *testing.T) {
	s := make(unknownDevices)
	now := time.Now()
	for range maxUnknown {
		s.note(sshtest.NewSigner(t).PublicKey(), "a", "b", now)
	}
	now = now.Add(-24 * time.Hour)
	first, second := sshtest.NewSigner(t).PublicKey(), sshtest.NewSigner(t).PublicKey()
	s.note(first, "a", "b", now)
	s.note(second, "a", "b", now)
	list := s.list()
	if len(list) != maxUnknown || list[0].HostKey != ssh.FingerprintSHA256(second) || list[1].HostKey != ssh.FingerprintSHA256(first) {
		t.Errorf("%d are kept, at the top %+v", len(list), list[:2])
	}
}

// Any peer can make new keys, so the list of unknown devices is bounded.
func TestUnknownDevicesAreBounded(t *testing.T) {
	s := make(unknownDevices)
	first := sshtest.NewSigner(t).PublicKey()
	now := time.Now()
	s.note(first, "a", "b", now)
	for n := range maxUnknown {
		s.note(sshtest.NewSigner(t).PublicKey(), "a", "b", now.Add(time.Duration(n+1)*time.Second))
	}
	if len(s) != maxUnknown || s[ssh.FingerprintSHA256(first)] != nil {
		t.Errorf("%d are kept, the first: %v", len(s), s[ssh.FingerprintSHA256(first)])
	}
	list := s.list()
	for i := range list[1:] {
		if list[i].Last.Before(list[i+1].Last) {
			t.Fatal("the list is not in order")
		}
	}
}

func TestTheEntrysCredentialComesBeforeTheStations(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	password := file("password", "secret\n", 0o600)
	entry := func(change func(*registry.Entry)) *registry.Entry {
		e := &registry.Entry{ID: "edge7"}
		change(e)
		return e
	}
	full := Credential{User: "default", PasswordFile: password}
	for _, tt := range []struct {
		name  string
		c     Credential
		entry func(*registry.Entry)
		user  string
		err   string
	}{
		{"the default", full, func(*registry.Entry) {}, "default", ""},
		{"the entry's user", full, func(e *registry.Entry) { e.User = "own" }, "own", ""},
		{"no user", Credential{PasswordFile: password}, func(*registry.Entry) {}, "", "no user: the entry of edge7"},
		{"no credential", Credential{User: "u"}, func(*registry.Entry) {}, "", "no credential: the entry of edge7"},
		{"every user can read it", full, func(e *registry.Entry) { e.PasswordFile = file("loose", "x", 0o644) }, "", "others can read"},
		{"empty", full, func(e *registry.Entry) { e.PasswordFile = file("none", "\n", 0o600) }, "", "there is no password"},
		{"no key", full, func(e *registry.Entry) { e.KeyFile = file("key", "hello", 0o600) }, "", "no key found"},
		{"a directory", full, func(e *registry.Entry) { e.KeyFile = dir }, "", "is a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			login, err := tt.c.loginFor(entry(tt.entry))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || login.User != tt.user || len(login.Auth) == 0 {
				t.Errorf("got %+v, %v", login, err)
			}
		})
	}
}

// The bytes after a PROXY header are passed on whole, and anything but a header is
// an error.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.9 10.0.0.1 1234 4334\r\nSSH-2.0-x\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x09\x0a\x00\x00\x01\x04\xd2\x10\xeeSSH"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8" + strings.Repeat("x", 216)))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\xff\xff"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		conn, from, err := readHeader(&bytesConn{r: bytes.NewReader(sent)})
		if err != nil {
			if conn != nil || from.IsValid() || strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("%v with %v, %v", err, conn, from)
			}
			return
		}
		if !from.IsValid() || from.Addr().Is4In6() {
			t.Fatalf("the address is %v", from)
		}
		rest, err := io.ReadAll(bufio.NewReader(conn))
		if err != nil || !bytes.HasSuffix(sent, rest) || len(rest) == len(sent) {
			t.Fatalf("after the header: %q, %v", rest, err)
		}
	})
}

// bytesConn is a connection from which given bytes are read.
type bytesConn struct {
	net.Conn
	r io.Reader
}

func (c *bytesConn) Read(p []byte) (int, error) { return c.r.Read(p) }
