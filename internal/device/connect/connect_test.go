package connect

import (
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"callhome/internal/device/dial"
	"callhome/internal/device/settings"
	"callhome/internal/porttest"
	"callhome/internal/sysexits"

	"golang.org/x/sys/unix"
)

// listen is a NETCONF client that awaits call homes.
func listen(t *testing.T) (net.Listener, settings.Target) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, settings.Target{Host: "127.0.0.1", Port: netip.MustParseAddrPort(l.Addr().String()).Port()}
}

func refused(t *testing.T) settings.Target {
	t.Helper()
	addr := porttest.Reserve(t, "127.0.0.1")
	return settings.Target{Host: addr.Addr().String(), Port: addr.Port()}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestWorthRetry(t *testing.T) {
	for code, want := range map[int]bool{
		sysexits.Usage: false, sysexits.NoInput: false, sysexits.NoHost: true, sysexits.Unavailable: true,
		sysexits.OSErr: false, sysexits.NoPerm: false, sysexits.Config: false,
	} {
		if got := worthRetry(sysexits.New(code, "", fs.ErrInvalid)); got != want {
			t.Errorf("exit status %d: %v, want %v", code, got, want)
		}
	}
}

func TestDialErrorHasAnExitStatus(t *testing.T) {
	s := &settings.Call{Target: settings.Target{Host: "nms", Port: 1}}
	failures := func(errs ...error) error {
		e := &dial.Error{}
		for _, err := range errs {
			e.Failures = append(e.Failures, dial.Failure{Addr: netip.MustParseAddrPort("192.0.2.1:1"), Err: err})
		}
		return e
	}
	for _, tt := range []struct {
		name string
		err  error
		code int
		says string
	}{
		{"refused", failures(unix.ECONNREFUSED, dial.ErrTimeout), sysexits.Unavailable, "connecting to nms port 1: 192.0.2.1:1: connection refused; 192.0.2.1:1: no answer in time"},
		{"the local firewall", failures(unix.EPERM), sysexits.NoPerm, "connecting to nms port 1: 192.0.2.1:1: operation not permitted"},
		{"no right to an interface", unix.EACCES, sysexits.NoPerm, "connecting to nms port 1: permission denied"},
		{"no such interface", unix.ENODEV, sysexits.Config, "connecting to nms port 1: no such device"},
		{"not a namespace", dial.ErrNotNetns, sysexits.Config, "connecting to nms port 1: not a network namespace"},
		{"itself", failures(dial.ErrSelf), sysexits.Unavailable, "connecting to nms port 1: 192.0.2.1:1: no listener there, TCP connected the socket to itself"},
		{"another", unix.EMFILE, sysexits.OSErr, "connecting to nms port 1: too many open files"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := dialError(s, tt.err)
			if sysexits.Code(err) != tt.code || err.Error() != tt.says {
				t.Errorf("exit status %d with %v, want %d with %s", sysexits.Code(err), err, tt.code, tt.says)
			}
		})
	}
}

func TestAttemptsAndThePauseBetweenThem(t *testing.T) {
	target := refused(t)
	for _, tt := range []struct {
		name     string
		host     string
		attempts int
		pauses   time.Duration
	}{
		{"one attempt, no pause", target.Host, 1, 0},
		{"a pause between two, none behind", target.Host, 3, 2},
		{"what cannot end otherwise is not tried again", "", 3, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &settings.Call{Target: target, ConnectTimeout: 10 * time.Second, Attempts: tt.attempts, RetryWait: time.Hour}
				if tt.host == "" {
					s.Dial.Interface = "nosuch0"
				}
				start := time.Now()
				conn, err := To(s)
				if conn != nil || err == nil {
					t.Fatalf("got %v, %v", conn, err)
				}
				if took := time.Since(start); took != tt.pauses*time.Hour {
					t.Errorf("paused for %v, want %v", took, tt.pauses*time.Hour)
				}
			})
		})
	}
}

// A client that comes up late is reached: here a proxy refuses twice.
func TestAnAttemptSucceedsAfterOthersFailed(t *testing.T) {
	l, proxy := listen(t)
	calls := make(chan int, 1)
	go func() {
		n := 0
		defer func() { calls <- n }()
		for _, answer := range []string{"503 No", "503 No", "200 OK"} {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n++
			_, _ = c.Read(make([]byte, 1024))
			_, _ = c.Write([]byte("HTTP/1.1 " + answer + "\r\n\r\nSSH-2.0-client\r\n"))
			c.Close()
		}
	}()
	s := &settings.Call{Target: settings.Target{Host: "nms.example", Port: 830}, ConnectTimeout: 10 * time.Second, Attempts: 5}
	s.Proxy = settings.Proxy{Scheme: "http", Target: proxy}
	before := openDescriptors(t)
	conn, err := To(s)
	if err != nil {
		t.Fatal(err)
	}
	if conn.Remote.Port() != proxy.Port {
		t.Errorf("connected to %v", conn.Remote)
	}
	if err := unix.SetNonblock(int(conn.File.Fd()), false); err != nil {
		t.Fatal(err)
	}
	if first, err := io.ReadAll(conn.File); err != nil || string(first) != "SSH-2.0-client\r\n" {
		t.Errorf("the connection's first bytes are %q, %v", first, err)
	}
	if n := <-calls; n != 3 {
		t.Errorf("%d attempts, want 3", n)
	}
	conn.File.Close()
	l.Close()
	if open := openDescriptors(t); open > before {
		t.Errorf("%d descriptors are left", open-before)
	}
}

func TestToTellsWhatFailed(t *testing.T) {
	target := refused(t)
	for _, tt := range []struct {
		name string
		s    settings.Call
		code int
		says string // at its beginning
	}{
		{"no such name", settings.Call{Target: settings.Target{Host: "nms.onion", Port: 1}}, sysexits.NoHost, "name nms.onion does not resolve: "},
		{"no listener", settings.Call{Target: target}, sysexits.Unavailable, "connecting to 127.0.0.1 port "},
		{"no proxy", settings.Call{Target: settings.Target{Host: "nms", Port: 1}, Proxy: settings.Proxy{Scheme: "socks5", Target: target}},
			sysexits.Unavailable, "connecting to the proxy 127.0.0.1 port "},
		{"no such proxy, and the name of the client is not looked up here", settings.Call{Target: target, Proxy: settings.Proxy{Scheme: "http", Target: settings.Target{Host: "proxy.onion", Port: 1}}},
			sysexits.NoHost, "name proxy.onion does not resolve: "},
		// It is not the name's fault.
		{"a name, and no such namespace", settings.Call{Target: settings.Target{Host: "nms.onion", Port: 1}, Dial: dial.Options{Netns: "/nonexistent/ns"}},
			sysexits.Config, "connecting to nms.onion port 1: opening the network namespace: open /nonexistent/ns: "},
		{"a name, and no such interface", settings.Call{Target: settings.Target{Host: "nms.onion", Port: 1}, Dial: dial.Options{Interface: "nosuch0"}},
			sysexits.Config, "connecting to nms.onion port 1: binding to the interface nosuch0: no such device"},
		{"a name, and a file that is no namespace", settings.Call{Target: settings.Target{Host: "nms.onion", Port: 1}, Dial: dial.Options{Netns: "/etc/passwd"}},
			sysexits.Config, "connecting to nms.onion port 1: entering the network namespace /etc/passwd: not a network namespace"},
		// Reported before any connection.
		{"no credentials", settings.Call{Target: target, Proxy: settings.Proxy{Scheme: "http", Target: target, Credentials: "/nonexistent/c"}},
			sysexits.NoInput, "reading the proxy's credentials: open /nonexistent/c: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.s.ConnectTimeout, tt.s.Attempts = 10*time.Second, 1
			conn, err := To(&tt.s)
			if conn != nil || sysexits.Code(err) != tt.code || !strings.HasPrefix(err.Error(), tt.says) {
				t.Errorf("%v, exit status %d with %v, want %d with %s", conn, sysexits.Code(err), err, tt.code, tt.says)
			}
		})
	}
}

func TestLookup(t *testing.T) {
	got, late, err := lookup(t.Context(), settings.Target{Host: "localhost", Port: 830}, dial.Options{})
	if err != nil || len(got) == 0 {
		t.Fatalf("localhost: %v, %v", got, err)
	}
	if more, open := late(); len(more) > 0 || open {
		t.Errorf("localhost: %v may follow: %v", more, open)
	}
	for _, a := range got {
		if !a.Addr().IsLoopback() || a.Port() != 830 {
			t.Errorf("localhost is %v", a)
		}
	}
}
