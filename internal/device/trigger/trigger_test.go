package trigger

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"callhome/internal/device/settings"
	"callhome/internal/porttest"
	"callhome/internal/sshdexec"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// program writes an executable script that replaces sshd.
func program(t *testing.T, script string) string {
	t.Helper()
	return file(t, "sshd", "#!/bin/sh\n"+script+"\n", 0o700)
}

func file(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// listen returns a listener in place of a NETCONF client, and its address.
func listen(t *testing.T) (net.Listener, settings.Target) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, settings.Target{Host: "127.0.0.1", Port: netip.MustParseAddrPort(l.Addr().String()).Port()}
}

// refused returns an address without a listener.
func refused(t *testing.T) settings.Target {
	t.Helper()
	addr := porttest.Reserve(t, "127.0.0.1")
	return settings.Target{Host: addr.Addr().String(), Port: addr.Port()}
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// call returns complete settings for a call home.
func call(t *testing.T, to settings.Target) *settings.Settings {
	t.Helper()
	return &settings.Settings{
		Call: settings.Call{
			Target:         to,
			ConnectTimeout: 10 * time.Second,
			Attempts:       1,
			Sshd:           sshdexec.Command{Sshd: program(t, "exit 1"), Config: file(t, "sshd_config", "", 0o600), Subsystem: "/s"},
		},
		Handover:      settings.HandoverDetach,
		ManagerSocket: "/nonexistent/mgr.sock",
		SshdLog:       filepath.Join(t.TempDir(), "log"),
	}
}

var quiet = hclog.NewNullLogger()

// Every class of failure has its exit status, message and hint. The order is that
// of a call home; the first failure is reported.
func TestRunReportsWhatFailed(t *testing.T) {
	closed := refused(t)
	_, client := listen(t)
	for _, tt := range []struct {
		name    string
		change  func(*testing.T, *settings.Settings)
		code    int
		message string
		hint    string
	}{
		{"no sshd", func(_ *testing.T, s *settings.Settings) { s.Sshd.Sshd = "/nonexistent/sshd" },
			sysexits.NoInput, "sshd /nonexistent/sshd: no such file or directory", "install OpenSSH's server, or set --sshd"},
		{"sshd is a directory", func(t *testing.T, s *settings.Settings) { s.Sshd.Sshd = t.TempDir() },
			sysexits.NoInput, ": not a regular file", "install OpenSSH's server, or set --sshd"},
		// sshd would read it as an empty file, which allows everything.
		{"the configuration is a directory", func(t *testing.T, s *settings.Settings) { s.Sshd.Config = t.TempDir() },
			sysexits.NoInput, ": not a regular file", "install packaging/sshd_config there, or leave --sshd-config out to use the one built in"},
		{"the configuration is a device", func(_ *testing.T, s *settings.Settings) { s.Sshd.Config = os.DevNull },
			sysexits.NoInput, "sshd's configuration /dev/null: not a regular file", "install packaging/sshd_config there, or leave --sshd-config out to use the one built in"},
		{"sshd is no program", func(t *testing.T, s *settings.Settings) { s.Sshd.Sshd = file(t, "x", "", 0o600) },
			sysexits.NoPerm, "permission denied", "make it accessible to this user, or run as root"},
		{"no configuration", func(_ *testing.T, s *settings.Settings) { s.Sshd.Config = "/nonexistent/c" },
			sysexits.NoInput, "sshd's configuration /nonexistent/c: no such file or directory", "install packaging/sshd_config there, or leave --sshd-config out to use the one built in"},
		{"a later host key is missing", func(_ *testing.T, s *settings.Settings) {
			s.Sshd.HostKeys = []string{s.Sshd.Config, "/nonexistent/k"}
		}, sysexits.NoInput, "the host key /nonexistent/k: no such file or directory", "create it with ssh-keygen -t ed25519 -N '' -f /nonexistent/k"},
		{"no host certificate", func(_ *testing.T, s *settings.Settings) { s.Sshd.HostCertificates = []string{"/nonexistent/c"} },
			sysexits.NoInput, "the host certificate /nonexistent/c: no such file or directory", "sign the host key with ssh-keygen -s CA -h"},
		{"no subsystem", func(_ *testing.T, s *settings.Settings) { s.Sshd.Subsystem = "" },
			sysexits.Config, "no command for the netconf subsystem is set, and ", settings.SubsystemHint()},
		{"no manager", func(_ *testing.T, s *settings.Settings) { s.Handover = settings.HandoverManager },
			sysexits.Unavailable, "no manager answers at /nonexistent/mgr.sock: no such file or directory", "start callhome-mgr, or use --handover exec"},
		{"no such name", func(_ *testing.T, s *settings.Settings) { s.Host = "nms.onion" },
			sysexits.NoHost, "name nms.onion does not resolve: ", "check the name, /etc/hosts and the name servers in /etc/resolv.conf"},
		{"no listener", func(_ *testing.T, s *settings.Settings) { s.Target = closed },
			sysexits.Unavailable, "connecting to 127.0.0.1 port ", "check that the NETCONF client listens there and that no firewall is in between"},
		{"no connection in time", func(_ *testing.T, s *settings.Settings) { s.ConnectTimeout = -1 },
			sysexits.Unavailable, "connecting to 127.0.0.1 port ", "check that the NETCONF client listens there and that no firewall is in between"},
		{"no such interface", func(_ *testing.T, s *settings.Settings) { s.Dial.Interface = "nosuch0" },
			sysexits.Config, ": binding to the interface nosuch0: no such device", "check --local-address, --interface and --netns"},
		{"no such namespace", func(_ *testing.T, s *settings.Settings) { s.Dial.Netns = "/nonexistent/ns" },
			sysexits.Config, ": opening the network namespace: open /nonexistent/ns: no such file or directory", "check --local-address, --interface and --netns"},
		{"not an address of ours", func(_ *testing.T, s *settings.Settings) {
			s.Dial.LocalAddress = netip.MustParseAddr("192.0.2.77")
		}, sysexits.Config, ": binding to the local address 192.0.2.77:0: cannot assign requested address", "check --local-address, --interface and --netns"},
		{"a local port in use", func(t *testing.T, s *settings.Settings) {
			_, taken := listen(t)
			s.Dial.LocalPort = taken.Port
		}, sysexits.OSErr, "address already in use", ""},
		{"no proxy", func(_ *testing.T, s *settings.Settings) { s.Proxy = settings.Proxy{Scheme: "http", Target: closed} },
			sysexits.Unavailable, "connecting to the proxy 127.0.0.1 port ", "check --proxy, that the proxy listens there and that no firewall is in between"},
		{"not a namespace", func(_ *testing.T, s *settings.Settings) { s.Dial.Netns = s.Sshd.Config },
			sysexits.Config, ": not a network namespace", "check --local-address, --interface and --netns"},
		// TCP can connect a socket to its own port (simultaneous open).
		{"a connection to itself", func(_ *testing.T, s *settings.Settings) { s.Target, s.Dial.LocalPort = closed, closed.Port },
			sysexits.Unavailable, ": no listener there, TCP connected the socket to itself", "leave out --local-port, or call the NETCONF client's own address and port"},
		{"no credentials for the proxy", func(_ *testing.T, s *settings.Settings) {
			s.Proxy = settings.Proxy{Scheme: "http", Target: s.Target, Credentials: "/nonexistent/c"}
		}, sysexits.NoInput, "reading the proxy's credentials: open /nonexistent/c: no such file or directory", "create it with one line user:password and mode 0600"},
		{"no place for the log", func(_ *testing.T, s *settings.Settings) { s.SshdLog = "/nonexistent/d/log" },
			sysexits.OSErr, "opening the log for sshd: open /nonexistent/d/log: no such file or directory", "set --sshd-log to syslog or to a file that can be written"},
		{"an sshd without its interpreter", func(t *testing.T, s *settings.Settings) {
			s.Sshd.Sshd = file(t, "sshd", "#!/nonexistent/sh\n", 0o700)
		}, sysexits.OSErr, "starting sshd: fork/exec ", ""},
		{"an sshd that ends", func(t *testing.T, s *settings.Settings) {
			s.Sshd.Sshd = program(t, `printf '%s\r\n' "/c line 1: Bad configuration option: X" "terminating" >&2; exit 255`)
		}, sysexits.Config, "sshd ended with status 255 before it took the connection to 127.0.0.1:PORT: /c line 1: Bad configuration option: X; terminating", "callhome-trigger --check shows what is missing"},
		{"an sshd without keys", func(t *testing.T, s *settings.Settings) {
			s.Sshd.Sshd = program(t, `echo "sshd: no hostkeys available -- exiting." >&2; exit 1`)
		}, sysexits.NoInput, "sshd ended with status 1 before it took the connection to 127.0.0.1:PORT: sshd: no hostkeys available -- exiting.", "callhome-trigger --check shows what is missing"},
		{"an sshd whose client disconnected", func(t *testing.T, s *settings.Settings) {
			s.Sshd.Sshd = program(t, `echo "Connection from 192.0.2.1 port 1 on 192.0.2.2 port 2" >&2; exit 255`)
		}, sysexits.Unavailable, "127.0.0.1:PORT accepted the connection and closed it before SSH began: Connection from 192.0.2.1 port 1 on 192.0.2.2 port 2", "see why the NETCONF client closes connections"},
		{"an sshd that logs nothing", func(t *testing.T, s *settings.Settings) { s.Sshd.Sshd = program(t, `exit 3`) },
			sysexits.Config, "sshd ended with status 3 before it took the connection to 127.0.0.1:PORT: it logged nothing", "callhome-trigger --check shows what is missing"},
		{"opaque bytes for the manager", func(_ *testing.T, s *settings.Settings) { s.Handover, s.Opaque = settings.HandoverManager, "a\xffb\n" },
			sysexits.Usage, `OPAQUE "a\xffb\n" is not UTF-8, and the manager's protocol carries only UTF-8`, "encode it, or use --handover exec, which carries any bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := call(t, client)
			tt.change(t, s)
			err := Run(s, quiet)
			if err == nil {
				t.Fatal("succeeds")
			}
			if code := sysexits.Code(err); code != tt.code {
				t.Errorf("exit status %d, want %d", code, tt.code)
			}
			tt.message = strings.ReplaceAll(tt.message, "PORT", strconv.Itoa(int(client.Port)))
			if !strings.Contains(err.Error(), tt.message) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got\n%v, want in it\n%s", err, tt.message)
			}
			if hint := sysexits.Hint(err); hint != tt.hint {
				t.Errorf("advises %q, want %q", hint, tt.hint)
			}
		})
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Every handover with every kind of file at the manager's socket.
func TestFindManager(t *testing.T) {
	dir := shortDir(t)
	answers := filepath.Join(dir, "answers")
	l, err := net.Listen("unix", answers)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stale := filepath.Join(dir, "stale")
	closed, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	closed.SetUnlinkOnClose(false)
	closed.Close()
	const no = "no manager answers at "
	for _, tt := range []struct {
		socket  string
		message string // with --handover manager; "" where one answers
	}{
		{answers, ""},
		{filepath.Join(dir, "none"), ": no such file or directory"},
		{stale, ": connection refused"},
		{file(t, "plain", "", 0o600), ": connection refused"},
		{"/" + strings.Repeat("x", 200), ": invalid argument"},
	} {
		for _, how := range []settings.Handover{settings.HandoverExec, settings.HandoverDetach, settings.HandoverAuto, settings.HandoverManager} {
			before := openDescriptors(t)
			f, err := findManager(&settings.Settings{Handover: how, ManagerSocket: tt.socket})
			wantFile := tt.message == "" && (how == settings.HandoverAuto || how == settings.HandoverManager)
			wantErr := tt.message != "" && how == settings.HandoverManager
			if (f != nil) != wantFile || (err != nil) != wantErr {
				t.Errorf("%s, %s: %v, %v", how, tt.socket, f, err)
			}
			if wantErr && (sysexits.Code(err) != sysexits.Unavailable || err.Error() != no+tt.socket+tt.message) {
				t.Errorf("%s, %s: exit status %d with %v", how, tt.socket, sysexits.Code(err), err)
			}
			if f != nil {
				if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("the manager's socket would survive an exec: flags %#x, %v", flags, err)
				}
				f.Close()
			}
			if open := openDescriptors(t); open != before {
				t.Errorf("%s, %s: %d descriptors are left", how, tt.socket, open-before)
			}
		}
	}
}

// Failures that can be detected before the call are reported without dialing.
func TestAFailedCheckPreventsTheDial(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*testing.T, *settings.Settings)
	}{
		{"no place for sshd's log", func(_ *testing.T, s *settings.Settings) { s.SshdLog = "/nonexistent/d/log" }},
		{"a log that would block", func(_ *testing.T, s *settings.Settings) { s.SshdLog = os.DevNull }},
		{"opaque bytes that the manager's protocol cannot carry", func(t *testing.T, s *settings.Settings) {
			s.Handover, s.Opaque = settings.HandoverAuto, "\xff"
			s.ManagerSocket, _ = manager(t, taken)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, client := listen(t)
			s := call(t, client)
			tt.change(t, s)
			before := openDescriptors(t)
			if err := Run(s, quiet); err == nil {
				t.Error("succeeds")
			}
			// The manager of the test closes its end when it has seen ours closed.
			open := openDescriptors(t)
			for end := time.Now().Add(time.Minute); open > before && time.Now().Before(end); open = openDescriptors(t) {
				time.Sleep(time.Millisecond)
			}
			if open > before {
				t.Errorf("%d descriptors are left", open-before)
			}
			if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if c, err := l.Accept(); err == nil {
				t.Errorf("%v was called", c.LocalAddr())
			}
		})
	}
}

// Without a manager OPAQUE can have any bytes.
func TestOpaqueBytesWithoutAManager(t *testing.T) {
	l, client := listen(t)
	s := call(t, client)
	s.Handover, s.Opaque = settings.HandoverAuto, "a\xff"
	if m, err := findManager(s); m != nil || err != nil {
		t.Errorf("%v, %v", m, err)
	}
	s.Handover = settings.HandoverDetach
	s.Sshd.Sshd, s.Announce, s.DeviceID = program(t, "echo SSH-2.0-standin"), true, "x"
	if err := Run(s, quiet); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(accept(t, l)); err != nil || !strings.Contains(string(got), "OPAQUE: a\xff\r\n") {
		t.Errorf("the client reads %q, %v", got, err)
	}
}

// The wait for a manager whose accept queue is full is bounded.
func TestTheWaitForAFullQueueIsBounded(t *testing.T) {
	path := filepath.Join(shortDir(t), "m")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	const wait = 20 * time.Millisecond
	for n := 0; ; n++ {
		start := time.Now()
		f, err := connectManager(path, wait)
		if err == nil && n < 3 {
			defer f.Close() // takes a place in the queue
			continue
		}
		if took := time.Since(start); err != unix.EAGAIN || took < wait/2 || took > 10*time.Second {
			t.Errorf("the queue is full: %v after %v", err, took)
		}
		return
	}
}

// Root passes every permission check, so the test passes EACCES itself.
func TestADirectoryWithoutAccess(t *testing.T) {
	err := noManager("/run/callhome/mgr.sock", unix.EACCES)
	want := "give /run/callhome mode 0755 and this user the group callhome, or use --handover exec"
	if sysexits.Code(err) != sysexits.NoPerm || sysexits.Hint(err) != want || err.Error() != "connecting to the manager's socket /run/callhome/mgr.sock: permission denied" {
		t.Errorf("exit status %d with %v; %s", sysexits.Code(err), err, sysexits.Hint(err))
	}
}

func TestDiscardRemovesOnlyItsOwn(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string]bool{dir + "/a.log": false, file(t, "b.log", "", 0o600): true} {
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		discard(&sshdexec.Log{File: f}, dir)
		if _, err := os.Stat(name); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
	discard(nil, dir)
}

// The error says where sshd's output is when the log has none.
func TestMissingOutput(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	empty, err := os.Open(file(t, "log", "", 0o600))
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	for want, log := range map[string]*sshdexec.Log{
		"its output is in syslog":         {File: null, Syslog: true},
		"its output is on standard error": {File: null},
		"it logged nothing":               {File: empty},
	} {
		if got := missingOutput(log); got != want {
			t.Errorf("%+v: %q, want %q", log, got, want)
		}
	}
}

// shortDir returns a directory for Unix sockets, whose paths have at most 107 bytes.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	return dir
}
