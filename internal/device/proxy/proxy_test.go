package proxy

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"callhome/internal/device/settings"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// socketpair stands for the connection to the proxy. A Unix socket will do:
// nothing here depends on TCP.
func socketpair(t *testing.T) (ours, proxys *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, proxys = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "the proxy's")
	t.Cleanup(func() { ours.Close(); proxys.Close() })
	return ours, proxys
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	// Go's poller opens its own with the first use of one, and keeps them.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// turn is what a proxy hears, to the byte, and what it then says.
type turn struct{ hears, says string }

// play runs a proxy and returns what was wrong. The proxy closes its end when
// its last turn is over.
func play(end *os.File, turns []turn) <-chan error {
	done := make(chan error, 1)
	go func() {
		defer end.Close()
		for _, turn := range turns {
			heard := make([]byte, len(turn.hears))
			if _, err := io.ReadFull(end, heard); err != nil || string(heard) != turn.hears {
				done <- errors.Join(err, errors.New("heard "+strings.ToValidUTF8(string(heard), "?")))
				return
			}
			if _, err := io.WriteString(end, turn.says); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	return done
}

func credentials(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	// banner is what the NETCONF client may say as soon as it is connected.
	banner = "SSH-2.0-client\r\n"

	httpAsk  = "CONNECT nms.example:4334 HTTP/1.1\r\nHost: nms.example:4334\r\n\r\n"
	httpAuth = "CONNECT nms.example:4334 HTTP/1.1\r\nHost: nms.example:4334\r\nProxy-Authorization: Basic dXNlcjpzMzpjcmV0\r\n\r\n"

	// RFC 1928 and 1929.
	socksHello     = "\x05\x01\x00"
	socksHelloAuth = "\x05\x02\x00\x02"
	socksLogin     = "\x01\x04user\x07s3:cret"
	socksAsk       = "\x05\x01\x00\x03\x0bnms.example\x10\xee"
	socks4Ask      = "\x04\x01\x03\x3e\xc0\x00\x02\x01\x00"
	socks4aAsk     = "\x04\x01\x10\xee\x00\x00\x00\x01\x00nms.example\x00"
	socks4Done     = "\x00\x5a\x00\x00\x00\x00\x00\x00"
	socksDone      = "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
)

var (
	nms = settings.Target{Host: "nms.example", Port: 4334}
	us  = &Auth{User: "user", Password: "s3:cret"}
)

func proxyOf(scheme string) settings.Proxy {
	return settings.Proxy{Scheme: scheme, Target: settings.Target{Host: "proxy.example", Port: 3128}}
}

// What the NETCONF client says behind the proxy's answer, also in the same
// packet, is still in the socket.
func TestConnectLeavesTheRestInTheSocket(t *testing.T) {
	for _, tt := range []struct {
		name, scheme string
		auth         *Auth
		target       settings.Target
		turns        []turn
	}{
		{"HTTP", "http", nil, nms, []turn{{httpAsk, "HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"}}},
		{"HTTP, no text behind the status", "http", nil, nms, []turn{{httpAsk, "HTTP/1.0 200\r\n\r\n"}}},
		{"HTTP, another 2xx", "http", nil, nms, []turn{{httpAsk, "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n"}}},
		{"HTTP, lines that end with LF alone", "http", nil, nms, []turn{{httpAsk, "HTTP/1.1 200 OK\n\n"}}},
		{"HTTP, both line ends", "http", nil, nms, []turn{{httpAsk, "HTTP/1.1 200 OK\n\r\n"}}},
		{"HTTP with credentials", "http", us, nms, []turn{{httpAuth, "HTTP/1.1 200 OK\r\n\r\n"}}},
		{"HTTP to an IPv6 address", "http", nil, settings.Target{Host: "2001:db8::1", Port: 830}, []turn{
			{"CONNECT [2001:db8::1]:830 HTTP/1.1\r\nHost: [2001:db8::1]:830\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"}}},
		{"SOCKS5", "socks5", nil, nms, []turn{{socksHello, "\x05\x00"}, {socksAsk, socksDone}}},
		{"SOCKS5 with credentials", "socks5", us, nms, []turn{{socksHelloAuth, "\x05\x02"}, {socksLogin, "\x01\x00"}, {socksAsk, socksDone}}},
		{"SOCKS5, credentials not asked for", "socks5", us, nms, []turn{{socksHelloAuth, "\x05\x00"}, {socksAsk, socksDone}}},
		{"SOCKS5, the proxy gives a name", "socks5", nil, nms, []turn{{socksHello, "\x05\x00"}, {socksAsk, "\x05\x00\x00\x03\x01x\x00\x01"}}},
		{"SOCKS4", "socks4", nil, settings.Target{Host: "192.0.2.1", Port: 830}, []turn{{socks4Ask, socks4Done}}},
		{"SOCKS4 to an IPv4 address in IPv6's clothes", "socks4", nil, settings.Target{Host: "::ffff:192.0.2.1", Port: 830}, []turn{{socks4Ask, socks4Done}}},
		{"SOCKS4 with a user, without the password", "socks4", us, settings.Target{Host: "192.0.2.1", Port: 830}, []turn{{"\x04\x01\x03\x3e\xc0\x00\x02\x01user\x00", socks4Done}}},
		{"SOCKS4, the version in the answer", "socks4", nil, settings.Target{Host: "192.0.2.1", Port: 830}, []turn{{socks4Ask, "\x04\x5a\x00\x00\x00\x00\x00\x00"}}},
		{"SOCKS4a", "socks4a", nil, nms, []turn{{socks4aAsk, socks4Done}}},
		{"SOCKS4a to an address", "socks4a", nil, settings.Target{Host: "192.0.2.1", Port: 830}, []turn{{socks4Ask, socks4Done}}},
		{"SOCKS5 to an IPv4 address", "socks5", nil, settings.Target{Host: "192.0.2.1", Port: 830}, []turn{{socksHello, "\x05\x00"}, {"\x05\x01\x00\x01\xc0\x00\x02\x01\x03\x3e", socksDone}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, end := socketpair(t)
			before := openDescriptors(t)
			tt.turns[len(tt.turns)-1].says += banner
			played := play(end, tt.turns)
			err := Connect(ours, proxyOf(tt.scheme), tt.auth, tt.target, time.Now().Add(10*time.Second))
			if err := errors.Join(err, <-played); err != nil {
				t.Fatal(err)
			}
			// The socket is non-blocking now; the proxy has said and closed all.
			if err := unix.SetNonblock(int(ours.Fd()), false); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(ours); err != nil || string(rest) != banner {
				t.Errorf("the socket holds %q, %v, want %q", rest, err, banner)
			}
			if open := openDescriptors(t); open != before-1 { // the proxy's end is closed
				t.Errorf("%d descriptors are left", open-before+1)
			}
		})
	}
}

func TestConnectTellsWhatTheProxySaid(t *testing.T) {
	const prefix = "the proxy proxy.example port 3128 did not connect to nms.example:4334: "
	for _, tt := range []struct {
		name, scheme string
		turns        []turn
		says         string
	}{
		{"HTTP, credentials wanted", "http", []turn{{httpAsk, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"}}, `it answers "HTTP/1.1 407 Proxy Authentication Required"`},
		{"HTTP, no way", "http", []turn{{httpAsk, "HTTP/1.1 502 Bad\x1b[31m Gateway\r\n\r\n"}}, `it answers "HTTP/1.1 502 Bad\x1b[31m Gateway"`},
		{"HTTP, a status that only looks like 2xx", "http", []turn{{httpAsk, "HTTP/1.1 2\r\n\r\n"}}, `it answers "HTTP/1.1 2", which is not HTTP`},
		{"HTTP, another protocol", "http", []turn{{httpAsk, "SSH-2.0-x\r\n\r\n"}}, `it answers "SSH-2.0-x", which is not HTTP`},
		{"HTTP, a header without end", "http", []turn{{httpAsk, strings.Repeat("x", maxAnswer)}}, `its answer has no end within 16384 bytes`},
		{"HTTP, closed without an answer", "http", []turn{{httpAsk, ""}}, `it closed the connection`},
		{"HTTP, closed within the header", "http", []turn{{httpAsk, "HTTP/1.1 200 OK\r\n"}}, `it closed the connection`},
		{"SOCKS5, refused", "socks5", []turn{{socksHello, "\x05\x00"}, {socksAsk, "\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"}}, `unknown error connection refused`},
		{"SOCKS5, credentials wanted", "socks5", []turn{{socksHello, "\x05\xff"}}, `no acceptable authentication methods`},
		{"SOCKS5, closed", "socks5", []turn{{socksHello, ""}}, `it closed the connection`},
		{"SOCKS4a, refused", "socks4a", []turn{{socks4aAsk, "\x00\x5b\x00\x00\x00\x00\x00\x00"}}, `it refuses, or could not connect`},
		{"SOCKS4a, no identd", "socks4a", []turn{{socks4aAsk, "\x00\x5c\x00\x00\x00\x00\x00\x00"}}, `it finds no identd on this machine`},
		{"SOCKS4a, another code", "socks4a", []turn{{socks4aAsk, "\x00\x01\x00\x00\x00\x00\x00\x00"}}, `it answers code 1`},
		{"SOCKS4a, another protocol", "socks4a", []turn{{socks4aAsk, "HTTP/1.1 400 Bad"}}, `its answer begins with 72, which is not SOCKS4`},
		{"SOCKS4a, closed within the answer", "socks4a", []turn{{socks4aAsk, "\x00\x5a"}}, `it closed the connection`},
		{"SOCKS4, a name", "socks4", nil, `SOCKS4 takes no names; use SOCKS4a or SOCKS5`},
		{"SOCKS5, another protocol", "socks5", []turn{{socksHello, "HTTP/1.1 400 Bad Request\r\n"}}, `unexpected protocol version 72`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, end := socketpair(t)
			played := play(end, tt.turns)
			err := Connect(ours, proxyOf(tt.scheme), nil, nms, time.Now().Add(10*time.Second))
			if err == nil || sysexits.Code(err) != sysexits.Unavailable || err.Error() != prefix+tt.says {
				t.Errorf("exit status %d with\n%v, want\n%s", sysexits.Code(err), err, prefix+tt.says)
			}
			if err := <-played; err != nil {
				t.Error(err)
			}
			if _, err := unix.FcntlInt(ours.Fd(), unix.F_GETFD, 0); err != nil {
				t.Errorf("the socket is the caller's no more: %v", err)
			}
		})
	}
	for _, scheme := range []string{"http", "socks4a", "socks5"} {
		t.Run(scheme+", silence until the deadline", func(t *testing.T) {
			ours, _ := socketpair(t)
			err := Connect(ours, proxyOf(scheme), nil, nms, time.Now().Add(10*time.Millisecond))
			if err == nil || sysexits.Code(err) != sysexits.Unavailable || err.Error() != prefix+"no answer in time" {
				t.Errorf("exit status %d with %v", sysexits.Code(err), err)
			}
		})
	}
}

// No password is sent to a proxy that did not request it, or written to a log.
func TestRefusedCredentialsStayUnsaid(t *testing.T) {
	for _, tt := range []struct {
		scheme string
		turns  []turn
	}{
		{"http", []turn{{httpAuth, "HTTP/1.1 407 No\r\n\r\n"}}},
		{"socks5", []turn{{socksHelloAuth, "\x05\x02"}, {socksLogin, "\x01\x01"}}},
	} {
		ours, end := socketpair(t)
		played := play(end, tt.turns)
		auth, err := ReadCredentials(credentials(t, "user:s3:cret\n"))
		if err != nil {
			t.Fatal(err)
		}
		err = Connect(ours, proxyOf(tt.scheme), auth, nms, time.Now().Add(10*time.Second))
		if err == nil || strings.Contains(err.Error(), "cret") || strings.Contains(err.Error(), "dXNlcjpzMzpjcmV0") {
			t.Errorf("%s: %v", tt.scheme, err)
		}
		if err := <-played; err != nil {
			t.Error(err)
		}
	}
}

func TestConnectNeedsASocket(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := Connect(file, proxyOf("http"), nil, nms, time.Now()); sysexits.Code(err) != sysexits.OSErr {
		t.Errorf("exit status %d, %v", sysexits.Code(err), err)
	}
}

// What does not fit SOCKS4's fields is refused before a byte is sent.
func TestSocks4AsksForWhatItCan(t *testing.T) {
	for _, tt := range []struct {
		to    string
		user  string
		names bool
		says  string
	}{
		{"[2001:db8::1]:1", "", true, "SOCKS4 takes no IPv6 addresses; use SOCKS5"},
		{"[2001:db8::1]:1", "", false, "SOCKS4 takes no IPv6 addresses; use SOCKS5"},
		{strings.Repeat("x", 256) + ":1", "", true, "SOCKS4 takes no such name"},
		{"nms\x00evil:1", "", true, "SOCKS4 takes no such name"},
		{"192.0.2.1:1", "a\x00b", false, "SOCKS4 takes no such name"},
	} {
		if _, err := socks4Request(tt.to, &Auth{User: tt.user}, tt.names); err == nil || err.Error() != tt.says {
			t.Errorf("%q for %q: %v, want %s", tt.to, tt.user, err, tt.says)
		}
	}
}

// Root may read everything, so the error is made here.
func TestCredentialsThatMayNotBeRead(t *testing.T) {
	for err, want := range map[error]int{unix.EACCES: sysexits.NoPerm, unix.EPERM: sysexits.NoPerm, unix.ENOENT: sysexits.NoInput} {
		got := unreadable(&fs.PathError{Op: "open", Path: "/c", Err: err})
		if sysexits.Code(got) != want || got.Error() != "reading the proxy's credentials: open /c: "+err.Error() {
			t.Errorf("exit status %d with %v, want %d", sysexits.Code(got), got, want)
		}
	}
}

func TestReadCredentials(t *testing.T) {
	long := strings.Repeat("x", 255)
	for _, tt := range []struct {
		name, text     string
		mode           os.FileMode
		user, password string
		code           int
	}{
		{"one line", "user:s3cret\n", 0o600, "user", "s3cret", 0},
		{"a line without its end", "user:s3cret", 0o400, "user", "s3cret", 0},
		{"a line of another system", "user:s3cret\r\n", 0o600, "user", "s3cret", 0},
		{"colons and spaces in the password", "user:a:b c \n", 0o600, "user", "a:b c ", 0},
		{"an empty password", "user:\n", 0o600, "user", "", 0},
		{"further lines are not read", "user:s3cret\n# old\n", 0o600, "user", "s3cret", 0},
		{"the longest", long + ":" + long, 0o600, long, long, 0},
		{"a user too long", long + "x:y", 0o600, "", "", sysexits.Config},
		{"a password too long", "x:y" + long, 0o600, "", "", sysexits.Config},
		{"no colon", "user\n", 0o600, "", "", sysexits.Config},
		{"no user", ":s3cret\n", 0o600, "", "", sysexits.Config},
		{"nothing", "", 0o600, "", "", sysexits.Config},
		{"a first line that is empty", "\nuser:s3cret\n", 0o600, "", "", sysexits.Config},
		{"readable for the group", "user:s3cret\n", 0o640, "", "", sysexits.Config},
		{"readable for all", "user:s3cret\n", 0o604, "", "", sysexits.Config},
		{"writable for others", "user:s3cret\n", 0o602, "", "", sysexits.Config},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := credentials(t, tt.text)
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			auth, err := ReadCredentials(path)
			if sysexits.Code(err) != tt.code {
				t.Fatalf("exit status %d with %v, want %d", sysexits.Code(err), err, tt.code)
			}
			if err != nil {
				if strings.Contains(err.Error(), "s3cret") {
					t.Errorf("the file's content is in the message: %v", err)
				}
				return
			}
			if auth.User != tt.user || auth.Password != tt.password {
				t.Errorf("got %q and %q, want %q and %q", auth.User, auth.Password, tt.user, tt.password)
			}
		})
	}
	if auth, err := ReadCredentials(""); auth != nil || err != nil {
		t.Errorf("without a file: %v, %v", auth, err)
	}
	if _, err := ReadCredentials("/nonexistent/c"); sysexits.Code(err) != sysexits.NoInput {
		t.Errorf("a file that is not there: exit status %d with %v", sysexits.Code(err), err)
	}
}

// An empty line ends with LF behind another line's LF; a CR before it belongs
// to it (RFC 9112 section 2.2).
var emptyLine = regexp.MustCompile(`\n\r?\n`)

func FuzzReadHeader(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\n\r\n" + banner, "HTTP/1.1 200 OK\n\n" + banner, "HTTP/1.1 200 OK\n\r\n" + banner,
		"\r\n\r\n", "\n\n\n", "\r\r\n\n", "", "x\r\n\r", strings.Repeat("y", maxAnswer+1),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		header, err := readHeader(r)
		read := len(stream) - r.Len()
		end := emptyLine.FindIndex(stream)
		if err != nil {
			if end != nil && end[1] <= maxAnswer {
				t.Errorf("%q: %v, and yet the header ends at byte %d", stream, err, end[1])
			}
			if read > maxAnswer {
				t.Errorf("read %d bytes", read)
			}
			return
		}
		if end == nil || read != end[1] || header != string(stream[:read]) {
			t.Errorf("%q: read %d bytes for the header %q; the empty line is %v", stream, read, header, end)
		}
	})
}

// scripted is a connection whose peer has sent its answer already.
type scripted struct {
	net.Conn
	answer *bytes.Reader
}

func (s scripted) Read(p []byte) (int, error)  { return s.answer.Read(p) }
func (s scripted) Write(p []byte) (int, error) { return len(p), nil }

// A SOCKS4 proxy's answer has eight bytes: what follows is the NETCONF client's.
func FuzzSocks4Answer(f *testing.F) {
	for _, s := range []string{"\x00\x5a\x10\xee\xc0\x00\x02\x01" + banner, "\x04\x5a\x00\x00\x00\x00\x00\x00", "\x00\x5b\x00", "HTTP/1.1 400 Bad Request\r\n", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		answer := bytes.NewReader(stream)
		err := socks4a(scripted{answer: answer}, "nms.example:4334", nil)
		if read := len(stream) - answer.Len(); read > 8 || err == nil && read != 8 {
			t.Errorf("%q: read %d bytes, %v", stream, read, err)
		}
		granted := len(stream) >= 8 && (stream[0] == 0 || stream[0] == 4) && stream[1] == 90
		if (err == nil) != granted {
			t.Errorf("%q: %v", stream, err)
		}
	})
}

// A file of credentials is a user and a password, or is refused without being quoted.
func FuzzReadCredentials(f *testing.F) {
	for _, s := range []string{"user:secret-word\n", "user:pass:word\r\n", ":secret-word", "secret-word", "\x00:\x00", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "proxy")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		auth, err := ReadCredentials(path)
		if err != nil {
			if want := "reading the proxy's credentials: " + path + " has no line user:password of at most 255 bytes each"; err.Error() != want {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if auth.User == "" || len(auth.User) > 255 || len(auth.Password) > 255 || strings.ContainsAny(auth.User+auth.Password, "\n") ||
			!bytes.HasPrefix(text, []byte(auth.User+":"+auth.Password)) {
			t.Errorf("%q is read as %q, %q", text, auth.User, auth.Password)
		}
	})
}
