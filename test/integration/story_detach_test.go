//go:build integration

package integration

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Detach: the trigger returns 0 once sshd has the socket, a caller that reads
// its output to the end is not kept, and sshd goes on in a session of its own.
func TestDetachReturnsAndSshdGoesOn(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		probe := newProbe(t)
		device, nms := newSite(t, probe.Command)
		device.options = append(device.options, "--handover", "detach")
		use(device)
		addr := freeAddr("127.0.0.1")
		ssh := nms.Netconf(addr)
		cmd := device.Command(splitArgs(t, addr))
		cmd.Args = append([]string{"env", "--block-signal=TERM,CHLD", "--ignore-signal=HUP,PIPE,USR2", "--"}, cmd.Args...)
		cmd.Path = "/usr/bin/env"
		out := readToTheEnd(t, cmd)
		if out != "" {
			t.Errorf("a call home that went well says %q", out)
		}

		environ := probe.Environ() // the session is there
		port := strings.Fields(environ["SSH_CONNECTION"])[3]
		var sshd proc
		for _, p := range holders(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: atoi(t, port)}) {
			if p.group == p.pid && p.session == p.pid {
				sshd = p
			}
		}
		if sshd.pid == 0 {
			t.Fatalf("no leader of a session holds the connection from port %s", port)
		}
		if sshd.parent != 1 {
			t.Errorf("sshd was not left to process 1: %v", sshd)
		}
		if set := signalSet(t, status(t, sshd.pid, "SigBlk")); len(set) > 0 {
			t.Errorf("sshd has signals blocked: %v", set)
		}
		// sshd ignores SIGPIPE itself, and PAM modules add others.
		for _, s := range []unix.Signal{unix.SIGHUP, unix.SIGUSR2} {
			if signalSet(t, status(t, sshd.pid, "SigIgn"))[s] {
				t.Errorf("sshd ignores %v, as its caller did", s)
			}
		}
		session := append([]proc{sshd}, family(sshd.pid)...)
		ssh.in.Close()
		ssh.MustExit(0)
		AwaitGone(t, patience, session)
	})
}

// Detach with an sshd that cannot start says why, with sshd's own message.
func TestDetachReportsWhySshdDidNotStart(t *testing.T) {
	t.Parallel()
	device := newDevice(t, "/bin/true")
	nms := listen(t, "127.0.0.1:0")
	call := device.Call(nms.Addr(), "--handover", "detach", "--sshd-option", "NoSuchOption=1", "--sshd-log", filepath.Join(device.dir(), "sshd.log"))
	call.MustExit(78)
	oneLine(t, call.Stderr(), "NoSuchOption", nms.Addr()[:9])
	nms.Accept().AwaitEOF(patience)
}

// A station that accepts and hangs up is nothing that the device's operator
// could mend: the trigger does not send him to look for a fault of his own.
func TestDetachWithAStationThatHangsUp(t *testing.T) {
	t.Parallel()
	device := newDevice(t, "/bin/true")
	nms := listen(t, "127.0.0.1:0")
	for range 5 {
		call := device.Call(nms.Addr(), "--handover", "detach")
		c := nms.Accept()
		_ = c.SetLinger(0) // a reset
		c.Close()
		if code := call.Exit(patience); code != 0 && code != 69 {
			t.Errorf("exit status %d, want 0 or 69: %s", code, call.Stderr())
		}
	}
}
