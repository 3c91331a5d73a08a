package sshdexec

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// actEnv makes this test binary play the trigger: it holds what to do.
const actEnv = "CALLHOME_TEST_ACT"

// The descriptors that play finds; above them stand those that the caller leaks.
const (
	sockFd = 3
	logFd  = 4
)

func TestMain(m *testing.M) {
	if act := os.Getenv(actEnv); act != "" {
		if err := play(act); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(9)
		}
		os.Exit(0)
	}
	dir, err := os.MkdirTemp("", "sshdexec-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(9)
	}
	foundFile = filepath.Join(dir, "found") // not this machine's
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

func play(act string) error {
	c := &Command{Sshd: os.Getenv("CALLHOME_TEST_SSHD"), Config: "/c", Opaque: "a b"}
	sock, log := os.NewFile(sockFd, "socket"), os.NewFile(logFd, "log")
	switch act {
	case "become":
		return c.Become(sock, log)
	case "start":
		_, err := c.Start(sock, log)
		return err
	case "reset":
		runtime.LockOSThread()
		ResetSignals()
		status, err := os.ReadFile("/proc/thread-self/status")
		fmt.Printf("%s", status)
		return err
	}
	return fmt.Errorf("no act %s", act)
}

// standIn makes a program that stands for sshd: it says on the socket who it
// is, and ends when the peer does.
func standIn(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sshd")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho $$\nread line\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// scene is one handover by a process of its own, with a caller that is as
// careless as a NETCONF server may be.
type scene struct {
	cmd  *exec.Cmd
	peer *os.File // the other end of the socket
	sock string   // what /proc says of the socket that is handed over
	log  string   // path
}

// careless is a caller that ignores signals, also such as Go has handlers for,
// and blocks some.
var careless = manners{ignores: "HUP INT PIPE CHLD", blocks: []unix.Signal{unix.SIGTERM, unix.SIGCHLD, unix.SIGALRM, unix.SIGUSR1, 40}}

// manners are what a caller does with signals.
type manners struct {
	ignores string
	blocks  []unix.Signal
}

// newScene prepares act. The caller leaks descriptors, and has an environment
// and a descriptor limit of its own.
func newScene(t *testing.T, act, sshd string) *scene {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	peer, sock := os.NewFile(uintptr(fds[0]), "peer"), os.NewFile(uintptr(fds[1]), "socket")
	leak, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fds[1]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close(); sock.Close(); leak.Close(); log.Close() })
	cmd := exec.Command("/bin/sh", "-c", `test -z "$IGNORE" || trap "" $IGNORE; ulimit -Sn 200; exec "$0"`, os.Args[0])
	cmd.Env = []string{actEnv + "=" + act, "CALLHOME_TEST_SSHD=" + sshd, "TZ=Europe/Prague", "LD_LIBRARY_PATH=/nonexistent",
		"OPENSSL_CONF=/nonexistent", "SSH_CONNECTION=1 2 3 4", "PATH=/nonexistent", "CONFD_IPC_PORT=4565",
		// go test -cover wants a place to write, and -race waits a second before the end.
		"GOCOVERDIR=" + t.TempDir(), "GORACE=atexit_sleep_ms=0"}
	// exec.Cmd gives a child exactly these, without CLOEXEC.
	cmd.ExtraFiles = []*os.File{sock, log, leak, peer, leak}
	return &scene{cmd: cmd, peer: peer, sock: name, log: log.Name()}
}

// start runs the scene's process as a caller with such manners does.
func (s *scene) start(t *testing.T, caller manners) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var block, old unix.Sigset_t
	for _, sig := range caller.blocks {
		block.Val[0] |= 1 << (sig - 1)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &block, &old); err != nil {
		t.Fatal(err)
	}
	s.cmd.Env = append(s.cmd.Env, "IGNORE="+caller.ignores)
	err := s.cmd.Start() // the child has this thread's mask
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	// Our own copies: else the peer never sees the end.
	for _, f := range s.cmd.ExtraFiles {
		if f != s.peer {
			f.Close()
		}
	}
}

// sshd returns the PID of the stand-in, once it has spoken.
func (s *scene) sshd(t *testing.T) int {
	t.Helper()
	if err := s.peer.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(s.peer).ReadString('\n')
	if err != nil {
		t.Fatalf("nothing came from sshd's stand-in: %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// proc reads a file of a process's.
func proc(t *testing.T, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// nulWords takes apart what ends with NULs.
func nulWords(s string) []string {
	return strings.Split(strings.TrimSuffix(s, "\x00"), "\x00")
}

// field returns the value of "name: value" in a file of /proc.
func field(t *testing.T, text, name string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("no field %s in\n%s", name, text)
	return ""
}

// descriptors returns what each open descriptor of a process is, but for the
// script that a shell reads.
func descriptors(t *testing.T, pid int, script string) map[string]string {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if target != script {
			out[e.Name()] = target
		}
	}
	return out
}

// expectSshd checks all that sshd must find when it starts.
func (s *scene) expectSshd(t *testing.T, pid int, script string) {
	t.Helper()
	c := Command{Sshd: script, Config: "/c", Opaque: "a b"}
	if got, want := nulWords(proc(t, pid, "cmdline")), append([]string{"/bin/sh"}, c.Args()...); !slices.Equal(got, want) {
		t.Errorf("argv %q, want %q", got, want)
	}
	if got, want := nulWords(proc(t, pid, "environ")), []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TZ=Europe/Prague"}; !slices.Equal(got, want) {
		t.Errorf("environment %q, want %q", got, want)
	}
	want := map[string]string{"0": s.sock, "1": s.sock, "2": s.log}
	if got := descriptors(t, pid, script); !maps.Equal(got, want) {
		t.Errorf("descriptors %v, want %v", got, want)
	}
	flags, err := strconv.ParseInt(field(t, proc(t, pid, "fdinfo/0"), "flags"), 8, 64)
	if err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("the socket does not block: flags %#o, %v", flags, err)
	}
	status := proc(t, pid, "status")
	for _, set := range []string{"SigBlk", "SigIgn"} {
		if got := field(t, status, set); strings.Trim(got, "0") != "" {
			t.Errorf("%s is %s, want no signal in it", set, got)
		}
	}
	if pgid, err := unix.Getpgid(pid); err != nil || pgid != pid {
		t.Errorf("in process group %d, %v, want one of its own", pgid, err)
	}
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil || limit.Cur != 200 {
		t.Errorf("descriptor limit %d, %v, want the caller's 200", limit.Cur, err)
	}
}

// end lets the session end and checks that no process holds the connection then.
func (s *scene) end(t *testing.T) {
	t.Helper()
	if err := unix.Shutdown(int(s.peer.Fd()), unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if n, err := s.peer.Read(make([]byte, 1)); n != 0 {
		t.Errorf("%d bytes, %v behind the end of the session", n, err)
	}
}

func TestBecomeSshd(t *testing.T) {
	for _, tt := range []struct {
		name    string
		sys     *unix.SysProcAttr
		session bool // of its own
	}{
		{"as a child of the NETCONF server", nil, true},
		// As a shell with job control starts it: no session can be made then.
		{"as the leader of a process group", &unix.SysProcAttr{Setpgid: true}, false},
		{"as the leader of a session", &unix.SysProcAttr{Setsid: true}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script := standIn(t)
			s := newScene(t, "become", script)
			s.cmd.SysProcAttr = tt.sys
			caller, err := s.cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			s.start(t, careless)
			pid := s.sshd(t)
			if pid != s.cmd.Process.Pid {
				t.Errorf("sshd is process %d, the trigger was %d", pid, s.cmd.Process.Pid)
			}
			s.expectSshd(t, pid, script)
			if sid, err := unix.Getsid(pid); err != nil || (sid == pid) != tt.session {
				t.Errorf("in session %d, %v", sid, err)
			}
			// The caller that waits for our stderr to end need not wait for the session.
			if n, err := caller.Read(make([]byte, 1)); n != 0 {
				t.Errorf("%d bytes, %v on the caller's stderr", n, err)
			}
			s.end(t)
			if err := s.cmd.Wait(); err != nil && s.cmd.ProcessState.ExitCode() != 1 { // of read at the end
				t.Error(err)
			}
		})
	}
}

func TestStartSshd(t *testing.T) {
	script := standIn(t)
	s := newScene(t, "start", script)
	s.start(t, careless)
	pid := s.sshd(t)
	if pid == s.cmd.Process.Pid {
		t.Error("sshd took the trigger's place")
	}
	s.expectSshd(t, pid, script)
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("in session %d, %v, want one of its own", sid, err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Error(err)
	}
	s.end(t)
}

// An error is reported on the caller's own stderr, not on the socket or in sshd's
// log, and the log does not know of it.
func TestBecomeThatFails(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	homeless := filepath.Join(dir, "homeless")
	if err := os.WriteFile(homeless, []byte("#!/nonexistent\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, act, sshd, says string }{
		{"no such program", "become", "/nonexistent/sshd", "executing /nonexistent/sshd: no such file or directory\n"},
		{"not executable", "become", plain, "executing " + plain + ": permission denied\n"},
		{"its interpreter is missing", "become", homeless, "executing " + homeless + ": no such file or directory\n"},
		{"no such program to start", "start", "/nonexistent/sshd", "starting sshd: fork/exec /nonexistent/sshd: no such file or directory\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, tt.act, tt.sshd)
			var stderr strings.Builder
			s.cmd.Stderr = &stderr
			s.start(t, careless)
			if err := s.cmd.Wait(); s.cmd.ProcessState.ExitCode() != 9 {
				t.Errorf("the trigger ends with %v", err)
			}
			if stderr.String() != tt.says {
				t.Errorf("stderr has %q, want %q", &stderr, tt.says)
			}
			if log, err := os.ReadFile(s.log); err != nil || len(log) > 0 {
				t.Errorf("the log has %q, %v", log, err)
			}
			s.end(t)
		})
	}
}

func TestOnlyAConnectedSocketIsHandedOver(t *testing.T) {
	unconnected, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, w := pipe(t)
	for _, tt := range []struct {
		name string
		file *os.File
		says string
	}{
		{"a pipe", w, "handing over a connected socket: socket operation on non-socket"},
		{"an unconnected socket", os.NewFile(uintptr(unconnected), "socket"), "handing over a connected socket: transport endpoint is not connected"},
	} {
		defer tt.file.Close()
		c := &Command{Sshd: "/nonexistent/sshd"}
		for how, handOver := range map[string]func(sock, log *os.File) error{
			"Become": c.Become,
			"Start":  func(sock, log *os.File) error { _, err := c.Start(sock, log); return err },
		} {
			// Become would not return here if it went on: this process is the test's own.
			if err := handOver(tt.file, r); message(err) != tt.says {
				t.Errorf("%s with %s: %v, want %s", how, tt.name, err, tt.says)
			}
		}
	}
}

// Whatever the caller does with signals, sshd finds none blocked or ignored.
func TestResetSignals(t *testing.T) {
	for _, tt := range []struct {
		name   string
		caller manners
	}{
		{"a caller with manners", manners{}},
		{"one that ignores a signal", manners{ignores: "HUP"}},
		{"one that ignores another", manners{ignores: "INT"}},
		// Go itself takes care of most signals, not of these.
		{"one that blocks a signal", manners{blocks: []unix.Signal{unix.SIGALRM}}},
		{"one that does both", careless},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, "reset", "")
			var out strings.Builder
			s.cmd.Stdout = &out
			s.start(t, tt.caller)
			if err := s.cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			status := out.String()
			for _, set := range []string{"SigBlk", "SigIgn"} {
				if got := field(t, status, set); strings.Trim(got, "0") != "" {
					t.Errorf("%s is %s, want no signal in it", set, got)
				}
			}
		})
	}
}

func TestSweepDescriptors(t *testing.T) {
	fd, err := unix.Dup(0) // without CLOEXEC, as what a caller leaks
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	high, err := unix.FcntlInt(0, unix.F_DUPFD, 150)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(high)
	if err := SweepDescriptors(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		fd    int
		swept bool
	}{{0, false}, {1, false}, {2, false}, {fd, true}, {high, true}} {
		flags, err := unix.FcntlInt(uintptr(tt.fd), unix.F_GETFD, 0)
		if err != nil || (flags&unix.FD_CLOEXEC != 0) != tt.swept {
			t.Errorf("descriptor %d: flags %#x, %v, want it swept: %v", tt.fd, flags, err, tt.swept)
		}
	}
}

func TestEnviron(t *testing.T) {
	const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	t.Setenv("PATH", "/home/x/bin")
	t.Setenv("LD_PRELOAD", "")
	for _, tt := range []struct {
		name, tz string
		want     []string
	}{
		{"a time zone", "Europe/Prague", []string{path, "TZ=Europe/Prague"}},
		{"an empty one is UTC", "", []string{path, "TZ="}},
		{"the longest", strings.Repeat("x", 255), []string{path, "TZ=" + strings.Repeat("x", 255)}},
		{"no time zone has such a name", strings.Repeat("x", 256), []string{path}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("TZ", tt.tz)
			if got := Environ(); !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		t.Setenv("TZ", "")
		os.Unsetenv("TZ")
		if got := Environ(); !slices.Equal(got, []string{path}) {
			t.Errorf("%q, want %q", got, path)
		}
	})
}
