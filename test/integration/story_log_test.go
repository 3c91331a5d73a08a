//go:build integration

package integration

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"callhome/test/sandbox"

	"golang.org/x/sys/unix"
)

// A caller that never reads our stderr does not freeze the session: its pipe
// is full from the start. What sshd has to say is in a file of the session's.
func TestUnreadStderrDoesNotFreezeTheSession(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		server := startNetconfd(t)
		device, nms := newSite(t, server.Subsystem())
		device.options = append(device.options, "--ssh-connection-port", yumaPort, "--sshd-option", "LogLevel=DEBUG3")
		use(device)
		addr := freeAddr("127.0.0.1")
		client := nms.SshNetconf(server, addr, "unread-stderr")

		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		size, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		cmd := device.Command(splitArgs(t, addr))
		cmd.Stdout, cmd.Stderr = w, w
		start(t, "callhome-trigger", cmd)
		w.Close()
		finish(t, client)
		sessionLog(t, addr, "Accepted publickey for "+netop)

		// The caller's pipe holds what it held: sshd has no copy of it.
		rest, err := io.ReadAll(r)
		if err != nil || len(rest) != size {
			t.Errorf("%d bytes and %v came out of the caller's pipe, want the %d that were in it", len(rest), err, size)
		}
	})
}

// A call that is refused leaves no log behind: those of sessions would have
// to make room for it.
func TestARefusedCallLeavesNoLog(t *testing.T) {
	t.Parallel()
	device := newDevice(t, "/bin/true")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd := device.Command(splitArgs(t, freeAddr("127.0.0.1")))
	cmd.Stdout, cmd.Stderr = null, null // a file would be taken for the log
	call := start(t, "callhome-trigger", cmd)
	call.MustExit(69)
	if left, err := filepath.Glob("/run/callhome/log/*-" + fmt.Sprint(call.pid) + ".log"); err != nil || left != nil {
		t.Errorf("%q is left, %v", left, err)
	}
}

// The directory of the sessions' logs stays small, and a session that lives
// keeps its own. This story counts files: it is not parallel.
func TestSessionLogsArePruned(t *testing.T) {
	device := newDevice(t, "/bin/true")
	nms := listen(t, "127.0.0.1:0")
	call := func() *conn {
		cmd := device.Command(splitArgs(t, nms.Addr()))
		null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		cmd.Stdout, cmd.Stderr = null, null
		start(t, "callhome-trigger", cmd)
		return nms.Accept()
	}
	first := call()
	first.Banner()
	_, port := splitAddr(t, first.RemoteAddr().String())
	for range 80 {
		c := call()
		c.Banner()
		c.Close()
	}
	log := sessionLog(t, nms.Addr(), " port "+port)
	contains(t, "the living session's log", log, "callhome-trigger[")
	files, err := filepath.Glob("/run/callhome/log/*")
	if err != nil || len(files) > 70 {
		t.Errorf("%d logs, %v", len(files), err)
	}
}

// A peer without a key makes sshd log without end until LoginGraceTime. What the
// logs may take of /run is bounded, also without a manager, and the next session
// has a log again. This story fills the directory: it is not parallel.
func TestAFloodFillsOnlyTheLogs(t *testing.T) {
	device := newDevice(t, "/bin/true")
	device.options = append(device.options, "--handover", "exec", "--sshd-option", "LoginGraceTime=3")
	quiet := func(addr string) *process {
		cmd := device.Command(splitArgs(t, addr))
		null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		cmd.Stdout, cmd.Stderr = null, null
		return start(t, "callhome-trigger", cmd)
	}
	addr := freeAddr("127.0.0.1")
	host, port := splitAddr(t, addr)
	forger := start(t, "forger", exec.Command("/usr/bin/python3", "clients/forger.py", host, port, "flood", "root"))
	forger.AwaitListening(addr)
	flooded := quiet(addr)
	sessionLog(t, addr, "callhome-trigger[")
	filler := "/run/callhome/log/20000101T000000.000000Z-1.log" // as of an ended session
	if err := os.WriteFile(filler, make([]byte, 13<<20), 0o640); err != nil {
		t.Fatal(err)
	}
	flooded.Exit(patience)
	var st unix.Statfs_t
	if err := unix.Statfs("/run/callhome/log", &st); err != nil || st.Type != unix.TMPFS_MAGIC || st.Blocks*uint64(st.Bsize) != 16<<20 {
		t.Errorf("the logs have %d bytes of a file system %#x, %v", st.Blocks*uint64(st.Bsize), st.Type, err)
	}
	t.Logf("%d KiB are left beside a flood of 3 s", st.Bavail*uint64(st.Bsize)>>10)

	nms := listen(t, "127.0.0.1:0")
	quiet(nms.Addr())
	nms.Accept().Banner()
	sessionLog(t, nms.Addr(), "callhome-trigger[")
	if _, err := os.Stat(filler); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the oldest log of an ended session is still there: %v", err)
	}
}

// sessionLog returns the file below /run/callhome/log that belongs to the
// session with the station at addr, once it holds text.
func sessionLog(t *testing.T, addr, text string) string {
	t.Helper()
	_, port := splitAddr(t, addr)
	var log string
	sandbox.Await(t, patience, "a log of the session in /run/callhome/log", func() error {
		files, _ := filepath.Glob("/run/callhome/log/*")
		for _, f := range files {
			data, _ := os.ReadFile(f)
			if log = string(data); strings.Contains(log, " port "+port) && strings.Contains(log, text) {
				return nil
			}
		}
		return fmt.Errorf("none of %d files has port %s and %q", len(files), port, text)
	})
	return log
}

// Each destination of sshd's log gets the session's lines, and no other does.
func TestSshdLogDestinations(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		for _, dest := range []string{"file", "syslog", "stderr"} {
			t.Run(dest, func(t *testing.T) {
				t.Parallel()
				probe := newProbe(t)
				device, nms := newSite(t, probe.Command)
				file := filepath.Join(device.dir(), "sshd.log")
				option := strings.Replace(dest, "file", file, 1)
				device.options = append(device.options, "--sshd-log", option)
				use(device)
				addr := freeAddr("127.0.0.1")
				_, port := splitAddr(t, addr)
				ssh := nms.Netconf(addr)
				call := start(t, "callhome-trigger", device.Command(splitArgs(t, addr, "opaque-"+port)))
				call.AwaitFamily("cat")
				line := fmt.Sprintf("Accepted publickey for %s from 127.0.0.1 port %s", netop, port)
				where := map[string]string{"file": file, "syslog": syslogLog, "stderr": call.stderr}
				awaitFile(t, where[dest], line)
				for other, name := range where {
					if data, _ := os.ReadFile(name); other != dest && strings.Contains(string(data), line) {
						t.Errorf("%s has it, too:\n%s", other, data)
					}
				}
				ssh.in.Close()
				ssh.MustExit(0)
			})
		}
	})
}

// --syslog and --log-format: the trigger's own log.
func TestTriggersOwnLog(t *testing.T) {
	t.Parallel()
	device := newDevice(t, "/bin/true")
	port := freePort()
	call := device.Call(net.JoinHostPort("127.0.0.1", port), "--syslog")
	call.MustExit(69)
	awaitFile(t, syslogLog, "127.0.0.1 port "+port)

	call = device.Call(net.JoinHostPort("127.0.0.1", port), "--log-format", "json")
	call.MustExit(69)
	oneLine(t, call.Stderr(), `"@level":"error"`, `refused`, port)
	call = device.Call(net.JoinHostPort("127.0.0.1", port), "--log-level", "info")
	call.MustExit(69)
	contains(t, "the log", call.Stderr(), "[INFO]", "calling home", "[ERROR]")
}
