package subsystem

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain runs the test's binary as the helper if its first argument is Flag.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Flag {
		if err := Run(os.Args[2:]); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// helper starts the helper with a command that writes "started", reads a line, and
// exits.
func helper(t *testing.T, socket, nonce string, env ...string) (cmd *exec.Cmd, in io.WriteCloser, out io.Reader) {
	t.Helper()
	cmd = exec.Command(os.Args[0], Flag, socket, nonce, "/bin/sh", "-c", "echo started; read line")
	cmd.Env = append(os.Environ(), env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err = cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, in, out
}

func awaitStarted(t *testing.T, out io.Reader) {
	t.Helper()
	text := make([]byte, len("started\n"))
	if _, err := io.ReadFull(out, text); err != nil || string(text) != "started\n" {
		t.Fatalf("the command wrote %q, %v", text, err)
	}
}

func serve(t *testing.T, take func(Report) (*os.File, error)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l := Listen(socket, take, func(int) bool { return false })
	done := make(chan error)
	go func() { done <- l.Serve(socket.AcceptUnix) }()
	t.Cleanup(func() {
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestAReportNamesTheProcessThatBecomesTheSubsystem(t *testing.T) {
	auth := filepath.Join(t.TempDir(), "auth")
	if err := os.WriteFile(auth, []byte("publickey ssh-ed25519 AAAA\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	reports := make(chan Report, 1)
	socket := serve(t, func(r Report) (*os.File, error) {
		reports <- r
		return writer, nil
	})
	cmd, in, out := helper(t, socket, "7.abc", "SSH_USER_AUTH="+auth)
	awaitStarted(t, out)
	want := Report{PID: cmd.Process.Pid, UID: os.Getuid(), Nonce: "7.abc", AuthFile: auth, Auth: "publickey ssh-ed25519 AAAA\n"}
	if got := <-reports; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	// The command keeps the pipe open until it ends.
	if ended(t, reader) {
		t.Fatal("the pipe ended before the command")
	}
	in.Close()
	if _, err := reader.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("at the end of the command: %v", err)
	}
	_ = cmd.Wait() // status 1: read got the end of its input
}

// ended reports whether a pipe has no writer.
func ended(t *testing.T, pipe *os.File) bool {
	t.Helper()
	raw, err := pipe.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var polled []unix.PollFd
	if err := raw.Control(func(fd uintptr) {
		polled = []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, err = unix.Poll(polled, 0)
	}); err != nil {
		t.Fatal(err)
	}
	return polled[0].Revents != 0
}

func TestTheCommandRunsWithoutAManager(t *testing.T) {
	refusing := serve(t, func(Report) (*os.File, error) { return nil, errors.New("unknown nonce") })
	silent, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, socket := range map[string]string{
		"no socket": filepath.Join(t.TempDir(), "none"), "a report refused": refusing, "nothing accepts": silent.Addr().String(),
	} {
		t.Run(name, func(t *testing.T) {
			cmd, in, out := helper(t, socket, "1.x", "SSH_USER_AUTH=/nonexistent")
			awaitStarted(t, out)
			in.Close()
			_ = cmd.Wait()
		})
	}
}

func TestTheHelpersErrors(t *testing.T) {
	out, err := exec.Command(os.Args[0], Flag, "/socket").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "expected SOCKET NONCE COMMAND") {
		t.Errorf("%q, %v", out, err)
	}
	out, err = exec.Command(os.Args[0], Flag, "/none", "1.x", "/no/such/command").CombinedOutput()
	if err == nil || !strings.Contains(string(out), `executing "/no/such/command": no such file`) {
		t.Errorf("%q, %v", out, err)
	}
}

func TestAMalformedReportIsClosed(t *testing.T) {
	socket := serve(t, func(r Report) (*os.File, error) {
		t.Errorf("accepted: %+v", r)
		return nil, errors.New("never")
	})
	for name, text := range map[string]string{"nothing": "", "no line end": "7.abc", "one line": "7.abc\n", "without end": strings.Repeat("x", 2*maxMessage)} {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, text) // the listener may have closed it already
		_ = c.(*net.UnixConn).CloseWrite()
		if _, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
}

func TestAUserHasABoundedShareOfTheSocket(t *testing.T) {
	l := Listen(nil, nil, func(int) bool { return false })
	enter := func(n, uid int) (in int) {
		for range n {
			if l.admit(uid, 1) {
				in++
			}
		}
		return in
	}
	if got := enter(100, 1000); got != maxPerUser {
		t.Errorf("a user has %d connections, want %d", got, maxPerUser)
	}
	others := 0
	for uid := range 100 {
		others += enter(100, 2000+uid)
	}
	if others != maxConns-maxPerUser {
		t.Errorf("all others have %d connections, want %d", others, maxConns-maxPerUser)
	}
	if !l.admit(0, 1) {
		t.Error("the limits refuse root")
	}
	l.leave(0)
	for uid, n := range l.conns {
		for range n {
			if uid >= 0 {
				l.leave(uid)
			}
		}
	}
	if len(l.conns) != 1 || l.conns[-1] != 0 {
		t.Errorf("left: %v", l.conns)
	}
}

func TestANonceNamesItsSession(t *testing.T) {
	a, b := Nonce(7), Nonce(7)
	if a == b || len(a) != len("7.")+32 {
		t.Errorf("nonces %q and %q", a, b)
	}
	if id, ok := SessionOf(a); !ok || id != 7 {
		t.Errorf("%q is of session %d, %v", a, id, ok)
	}
	for _, bad := range []string{"", "7", ".x", "x.y", "0.y", "-1.y"} {
		if id, ok := SessionOf(bad); ok {
			t.Errorf("%q is of session %d", bad, id)
		}
	}
}

// Local users can take all connections, and a session's helper still gets in.
func TestASessionsHelperIsAdmitted(t *testing.T) {
	const inside = 7
	l := Listen(nil, nil, func(pid int) bool { return pid == inside })
	for uid := 1000; uid < 1000+maxConns/maxPerUser; uid++ {
		for range maxPerUser {
			if !l.admit(uid, 1) {
				t.Fatalf("user %d is refused below the limits", uid)
			}
		}
		if l.admit(uid, 1) {
			t.Errorf("user %d is above its limit", uid)
		}
	}
	if l.admit(2000, 1) {
		t.Error("a process outside of sessions is above the limit of all")
	}
	if !l.admit(0, 1) {
		t.Error("root is refused")
	}
	n := maxConns + 1 // root's
	for ; l.admit(1000, inside); n++ {
	}
	if n != maxSessions {
		t.Errorf("%d connections are the most, expected %d", n, maxSessions)
	}
	for range n {
		l.leave(1000)
	}
}

func TestAPlainCommandNeedsNoShell(t *testing.T) {
	shell := func(command string) []string { return []string{"/bin/sh", "-c", command} }
	for _, tt := range []struct {
		command []string
		want    []string
	}{
		{shell("exec /usr/sbin/netconf-subsystem"), []string{"/usr/sbin/netconf-subsystem"}},
		{shell("exec /opt/a/b --port=830  -v  x@y:1,2"), []string{"/opt/a/b", "--port=830", "-v", "x@y:1,2"}},
		{shell("exec netconf-subsystem"), nil},
		{shell("exec /bin/a 'b c'"), nil},
		{shell("exec /bin/a $HOME"), nil},
		{shell("exec /bin/a; /bin/b"), nil},
		{shell("exec /bin/a*"), nil},
		{shell("exec /bin/a ~"), nil},
		{shell("exec /bin/a\n/bin/b"), nil},
		{shell("exec X=1 /bin/a"), nil},
		{shell("exec /bin/\u00e4"), nil},
		{[]string{"/bin/cat", "-c", "exec /bin/a"}, nil},
		{[]string{"/bin/sh", "-c", "exec /bin/a", "x"}, nil},
	} {
		if got := withoutShell(tt.command); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.command, got, tt.want)
		}
	}
}
