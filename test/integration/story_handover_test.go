//go:build integration

package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// With exec the trigger becomes sshd under the same PID, and nothing of ours
// remains: no process, no variable of the environment.
func TestExecLeavesOnlySshd(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		probe := newProbe(t)
		device, nms := newSite(t, probe.Command)
		use(device)
		addr := freeAddr("127.0.0.1")
		ssh := nms.Netconf(addr)
		cmd := device.Command(splitArgs(t, addr))
		cmd.Env = append(cmd.Env, "SECRET_OF_THE_CALLER=1", "LD_PRELOAD=", "OPENSSL_CONF=/nonexistent")
		call := start(t, "callhome-trigger", cmd)
		session := call.AwaitFamily("cat")

		if exe := executable(t, call.pid); exe != "/usr/sbin/sshd" {
			t.Errorf("the trigger's PID runs %s", exe)
		}
		for _, p := range session {
			if strings.Contains(cmdline(p.pid), "callhome-trigger") && !strings.Contains(cmdline(p.pid), "sshd") {
				t.Errorf("a process of ours is left: %v", p)
			}
			if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.pid)); strings.Contains(exe, "callhome") {
				t.Errorf("a program of ours still runs: %v", p)
			}
		}
		if p, _ := lookup(call.pid); p.group != p.pid || p.session != p.pid {
			t.Errorf("sshd leads neither a group nor a session: %v", p)
		}
		for name := range probe.Environ() {
			if strings.HasPrefix(name, "CALLHOME") || strings.HasPrefix(name, "SECRET") || name == "OPENSSL_CONF" || name == "SSH_ORIGINAL_COMMAND" {
				t.Errorf("the session's environment has %s", name)
			}
		}
		ssh.in.Close()
		ssh.MustExit(0)
		AwaitGone(t, patience, session)
	})
}

// What sshd is given, seen from a program in its place: the socket, blocking,
// on 0 and 1, a log on 2 and nothing else, however much the caller leaks;
// signals as at boot; an environment of its own; the lead of a session.
func TestSshdIsGivenTheSocketAndNothingElse(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		probe := newProbe(t)
		device := newDevice(t, "/bin/true")
		device.options = append(device.options, "--sshd", probe.Command)
		use(device)
		nms := listen(t, "127.0.0.1:0")

		leak := writeFile(t, filepath.Join(probe.dir, "leak"), "", 0o600)
		cmd := device.Command(splitArgs(t, nms.Addr()))
		cmd.Args = append([]string{"bash", "-c", "exec 3<" + leak + " 7<>" + leak + " 50>" + leak + ` 200</etc/passwd; exec "$@"`, "bash",
			"env", "--block-signal=TERM,CHLD,USR1", "--ignore-signal=HUP,PIPE,CHLD,USR2", "--"}, cmd.Args...)
		cmd.Path = "/bin/bash"
		cmd.Env = append(cmd.Env, "SECRET_OF_THE_CALLER=1", "LD_LIBRARY_PATH=/nonexistent", "TZ=UTC")
		call := start(t, "callhome-trigger", cmd)
		peer := nms.Accept()
		if got := peer.Line(); got != "probe speaks\n" {
			t.Errorf("the first bytes on the connection are %q", got)
		}

		open := probe.Descriptors()
		for fd := range open {
			if fd != "0" && fd != "1" && fd != "2" {
				t.Errorf("descriptor %s is open: %s", fd, open[fd])
			}
		}
		if !strings.HasPrefix(open["0"], "socket:") {
			t.Errorf("descriptor 0 is %s, not the connection", open["0"])
		}
		if open["2"] != call.stderr {
			t.Errorf("descriptor 2 is %s, not the caller's own file %s", open["2"], call.stderr)
		}
		// The probe writes descriptor 1 to files, but spoke through it above.
		for line := range strings.Lines(probe.read("fdinfo")) {
			if flags, ok := strings.CutPrefix(line, "flags:"); ok {
				n, err := strconv.ParseInt(strings.TrimSpace(flags), 8, 64)
				if err != nil || n&unix.O_NONBLOCK != 0 {
					t.Errorf("the socket is not blocking (flags %s)", flags)
				}
			}
		}
		for _, key := range []string{"SigBlk", "SigIgn"} {
			if set := signalSet(t, probe.Status(key)); len(set) > 0 {
				t.Errorf("%s has %v", key, set)
			}
		}
		env := probe.Environ()
		for name := range env {
			if name != "PATH" && name != "TZ" && name != "PWD" { // the shell adds PWD itself
				t.Errorf("sshd's environment has %s=%s", name, env[name])
			}
		}
		leader, _ := lookup(call.pid)
		if leader.group != call.pid || leader.session != call.pid {
			t.Errorf("it leads neither a group nor a session: %v", leader)
		}
		peer.CloseWrite()
		call.MustExit(0)
	})
}

// The descriptors that a caller leaks reach neither the real sshd nor the
// subsystem.
func TestLeaksDoNotReachTheSession(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		probe := newProbe(t)
		device, nms := newSite(t, probe.Command)
		use(device)
		addr := freeAddr("127.0.0.1")
		ssh := nms.Netconf(addr)

		file, err := os.Create(filepath.Join(device.dir(), "leak"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		socket, err := listen(t, "127.0.0.1:0").Listener.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		leaked := map[string]bool{}
		cmd := device.Command(splitArgs(t, addr))
		for _, f := range []*os.File{file, r, w, socket} {
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
			to, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
			leaked[to] = true
		}
		call := start(t, "callhome-trigger", cmd)
		for _, p := range call.AwaitFamily("cat") {
			for fd, to := range descriptors(p.pid) {
				if leaked[to] {
					t.Errorf("descriptor %s of %v is the caller's %s", fd, p, to)
				}
			}
		}
		for fd, to := range probe.Descriptors() {
			if fd != "0" && fd != "1" && fd != "2" {
				t.Errorf("the subsystem has descriptor %s: %s", fd, to)
			}
		}
		ssh.in.Close()
		ssh.MustExit(0)
	})
}

// A caller that has closed its own 0, 1 and 2 gets a session all the same: the
// socket's number is then a low one.
func TestCallerWithoutStdio(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		server := startNetconfd(t)
		device, nms := newSite(t, server.Subsystem())
		device.options = append(device.options, "--ssh-connection-port", yumaPort)
		use(device)
		addr := freeAddr("127.0.0.1")
		client := nms.SshNetconf(server, addr, "closed-stdio")
		cmd := device.Command(splitArgs(t, addr))
		cmd.Args = append([]string{"sh", "-c", `exec "$@" 0<&- 1>&- 2>&-`, "sh"}, cmd.Args...)
		cmd.Path = "/bin/sh"
		call := start(t, "callhome-trigger", cmd)
		finish(t, client)
		call.Exit(patience)
		sessionLog(t, addr, "Accepted publickey for "+netop)
	})
}

// When the login takes too long, the station sees the end of the connection
// and no process of the session is left, whichever process leads the caller's group. A
// station that sends its version string makes sshd start its unprivileged
// child, which is what stays behind if sshd leads no group.
func TestLoginGraceTimeEndsAll(t *testing.T) {
	t.Parallel()
	callers := map[string]*unix.SysProcAttr{
		"caller in a group":      {},
		"caller leads a group":   {Setpgid: true},
		"caller leads a session": {Setsid: true},
	}
	for name, attr := range callers {
		for station, text := range map[string]string{"silent": "", "silent after its version": "SSH-2.0-station\r\n"} {
			t.Run(name+", station "+station, func(t *testing.T) {
				t.Parallel()
				inBothWays(t, func(t *testing.T, use func(*device)) {
					device := newDevice(t, "/bin/true")
					device.options = append(device.options, "--sshd-option", "LoginGraceTime=1")
					use(device)
					nms := listen(t, "127.0.0.1:0")
					cmd := device.Command(splitArgs(t, nms.Addr()))
					cmd.SysProcAttr = attr
					call := start(t, "callhome-trigger", cmd)
					peer := nms.Accept()
					peer.Banner()
					session := call.Family()
					if text != "" {
						peer.Send(text)
						session = call.AwaitPreauth()
					}
					peer.AwaitEOF(patience)
					AwaitGone(t, patience, session)
					call.Exit(patience)
				})
			})
		}
	}
}

// sshd's privilege separation directory is made where it is missing: Debian
// makes it with the ssh service, which a call home does without. This story has
// /run/sshd to itself: it is not parallel.
func TestMissingPrivilegeSeparationDirectory(t *testing.T) {
	for _, way := range ways {
		if err := os.Remove("/run/sshd"); err != nil {
			t.Fatal(err)
		}
		device := newDevice(t, "/bin/true")
		way.use(device)
		nms := listen(t, "127.0.0.1:0")
		start(t, "callhome-trigger", device.Command(splitArgs(t, nms.Addr())))
		nms.Accept().Banner()
		info, err := os.Stat("/run/sshd")
		if err != nil || info.Mode() != os.ModeDir|0o755 {
			t.Errorf("%s: %v, %v", way.name, info, err)
		}
	}
}

// Without root's rights: what may not be read is status 77, and a session of
// the same user's works.
func TestUnprivilegedUser(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		probe := newProbe(t)
		device, nms := newSite(t, probe.Command)
		device.options = append(device.options, "--sshd-option", "UsePAM=no", "--sshd-option", "StrictModes=no")
		use(device)
		asNetop := func(args []string) *exec.Cmd {
			cmd := device.Command(args)
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 4830, Gid: 4830}
			return cmd
		}
		refused := listen(t, "127.0.0.1:0")
		call := start(t, "callhome-trigger", asNetop(splitArgs(t, refused.Addr())))
		call.MustExit(77)
		oneLine(t, call.Stderr(), device.hostKey, "permission denied")
		refused.NoCall()

		if err := os.Chown(device.hostKey, 4830, 4830); err != nil {
			t.Fatal(err)
		}
		addr := freeAddr("127.0.0.1")
		ssh := nms.Netconf(addr)
		call = start(t, "callhome-trigger", asNetop(splitArgs(t, addr)))
		session := call.AwaitFamily("cat")
		ssh.in.Close()
		ssh.MustExit(0)
		AwaitGone(t, patience, session)
	})
}
