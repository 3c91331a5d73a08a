//go:build integration

package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"callhome/test/sandbox"

	"golang.org/x/sys/unix"
)

// netconfd is a stock NETCONF server (yuma123) of the story's own, beside
// whatever the machine runs: its socket and log are in the story's directory.
type netconfd struct {
	*process
	socket, log string
}

// yumaPort is the server port that netconfd wants to see in SSH_CONNECTION.
const yumaPort = "830"

func startNetconfd(t *testing.T) *netconfd { return startNetconfdOn(t, "running") }

// startNetconfdOn starts one whose configuration is changed in the target: running,
// or candidate.
func startNetconfdOn(t *testing.T, target string) *netconfd {
	t.Helper()
	sandbox.Need(t, "netconfd", "netconf-subsystem")
	dir := tempDir(t)
	n := &netconfd{socket: filepath.Join(dir, "ncx.sock"), log: filepath.Join(dir, "log")}
	cmd := exec.Command("netconfd", "--ncxserver-sockname="+n.socket, "--port="+yumaPort,
		"--superuser="+netop, "--no-startup", "--target="+target, "--log="+n.log, "--log-level=debug")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir)
	n.process = start(t, "netconfd", cmd)
	_ = unix.Setpriority(unix.PRIO_PROCESS, n.pid, -20) // see Forgot
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("netconfd's log:\n%s", tail(readFile(t, n.log)))
		}
	})
	sandbox.Await(t, patience, "netconfd listening on "+n.socket, func() error {
		if n.over(0) {
			t.Fatalf("netconfd has ended: %v", n.state)
		}
		// To connect would be a session.
		if !unixListener(n.socket) {
			return errors.New("no process listens there")
		}
		return nil
	})
	return n
}

// netconfd 2.13 has a fault of its own, without SSH and with one session alone:
// of messages that it gets in one read(2) it takes the first and forgets the
// others until more comes. A client whose first request follows its hello too
// closely then waits for ever. The dialogues of our own go step by step
// (AwaitActive); for clients that do not, Forgot distinguishes this fault from others.

// AwaitActive waits until netconfd has taken the client's hello.
func (n *netconfd) AwaitActive(session string) {
	n.t.Helper()
	sandbox.Await(n.t, patience, "netconfd to take the hello", func() error {
		_, after, _ := strings.Cut(readFile(n.t, n.log), "\nSession "+session+" for ")
		if line, _, _ := strings.Cut(after, "\n"); !strings.Contains(line, " now active") {
			return errors.New("its log does not say that session " + session + " is active")
		}
		return nil
	})
}

// Forgot reports whether the last session's hello was taken and nothing after
// it.
func (n *netconfd) Forgot() bool {
	log := readFile(n.t, n.log)
	i := strings.LastIndex(log, " now active (")
	return i >= 0 && !strings.Contains(log[i:], "agt_rpc: ")
}

// unixListener reports whether a process listens on a Unix socket.
func unixListener(path string) bool {
	const acceptsConnections = 0x10000 // __SO_ACCEPTCON
	data, _ := os.ReadFile("/proc/self/net/unix")
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) == 8 && f[7] == path {
			flags, _ := strconv.ParseUint(f[3], 16, 32)
			return flags&acceptsConnections != 0
		}
	}
	return false
}

// Subsystem is the command that joins a session to it.
func (n *netconfd) Subsystem() string {
	return "/usr/sbin/netconf-subsystem --ncxserver-sockname=" + yumaPort + "@" + n.socket
}
