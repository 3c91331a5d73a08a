//go:build integration

package integration

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"callhome/internal/proto"
)

// The machine's own OpenSSH and those of other Debian releases do the same: a
// whole session with netconfd, whose port is not the connection's, hostile
// OPAQUE, nothing but netconf, and an end without leftovers.
func TestEveryOpenSSH(t *testing.T) {
	t.Parallel()
	onOpenSSHs(t, trees, func(t *testing.T, name, root string) {
		move := func(d *device) { d.root = root }
		t.Run("session", func(t *testing.T) { sessionWithNetconfd(t, move) })
		t.Run("every byte of OPAQUE", func(t *testing.T) { opaqueArrives(t, move, everyByte()) })
		t.Run("longest OPAQUE", func(t *testing.T) { opaqueArrives(t, move, strings.Repeat("\n", 1024)) })
		t.Run("OPAQUE as a comment", func(t *testing.T) { opaqueArrives(t, move, " # '$(id)' ") })
		t.Run("no shell", func(t *testing.T) { noShell(t, move) })
		t.Run("configured", func(t *testing.T) { configuredEndpoint(t, move) })
		t.Run("configured aliveness", func(t *testing.T) { configuredAliveness(t, move) })
		t.Run("grace time", func(t *testing.T) { graceTime(t, move) })
		t.Run("detach", func(t *testing.T) { detachAndGoOn(t, move) })
		t.Run("login of a user", func(t *testing.T) { loginIsBelieved(t, move, netop) })
		t.Run("login of root", func(t *testing.T) { loginIsBelieved(t, move, "root") })
		for _, attack := range []string{"user", "disconnect", "none", "algorithm", "pushed"} {
			t.Run("forged "+attack, func(t *testing.T) { forgedLogin(t, move, attack) })
		}
		t.Run("forged by a user", func(t *testing.T) { forgedByAUser(t, move) })
		t.Run("the client's reason", func(t *testing.T) { reasonsOfTheClient(t, move) })
		t.Run("check", func(t *testing.T) { checkSaysVersion(t, move, name) })
	})
}

func sessionWithNetconfd(t *testing.T, move func(*device)) {
	t.Parallel()
	for i, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			holdSession(t, i, "127.0.0.1", func(d *device, server *netconfd, addr string) *process {
				move(d)
				subsystem := server.Subsystem()
				if d.root != "" {
					subsystem = abroad(t, subsystem)
				}
				t.Logf("sshd: %s", sshdVersion(t, d))
				// yuma is the preset whose port netconfd wants to see; its
				// socket is this story's, so the command is, too.
				return d.Call(addr, "--netconf-server", "yuma", "--subsystem", subsystem, "--announce", "--device-id", "rtr-7")
			})
		})
	}
}

func opaqueArrives(t *testing.T, move func(*device), opaque string) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		probe := newProbe(t)
		device, nms := newSite(t, probe.Command)
		move(device)
		use(device)
		arrives(t, device, nms, probe, opaque)
	})
}

func noShell(t *testing.T, move func(*device)) {
	t.Parallel()
	probe := newProbe(t)
	device, nms := newSite(t, probe.Command)
	move(device)
	addr := freeAddr("127.0.0.1")
	ssh := nms.Ssh(addr, nil, "echo pwned-$((6*7))")
	device.Call(addr, "--netconf-server", "yuma", "--subsystem", probe.Command)
	ssh.MustExit(1)
	contains(t, "ssh", ssh.Stderr(), "only the netconf subsystem")
	if out := ssh.Stdout(); out != "" {
		t.Errorf("the station got %q", out)
	}
}

func graceTime(t *testing.T, move func(*device)) {
	t.Parallel()
	device := newDevice(t, "/bin/true")
	move(device)
	nms := listen(t, "127.0.0.1:0")
	call := device.Call(nms.Addr(), "--sshd-option", "LoginGraceTime=1")
	peer := nms.Accept()
	peer.Banner()
	peer.Send("SSH-2.0-station\r\n")
	session := call.AwaitPreauth()
	peer.AwaitEOF(patience) // 9.8 and later add up to 4 s
	AwaitGone(t, patience, session)
}

func detachAndGoOn(t *testing.T, move func(*device)) {
	t.Parallel()
	probe := newProbe(t)
	device, nms := newSite(t, probe.Command)
	move(device)
	addr := freeAddr("127.0.0.1")
	ssh := nms.Netconf(addr)
	if out := readToTheEnd(t, device.Command(splitArgs(t, addr), "--handover", "detach")); out != "" {
		t.Errorf("a call home that went well says %q", out)
	}
	probe.Environ() // the session is there
	ssh.in.Close()
	ssh.MustExit(0)
}

func checkSaysVersion(t *testing.T, move func(*device), tree string) {
	t.Parallel()
	device, _ := newSite(t, "/bin/cat") // without a user who can log in the check fails
	move(device)
	check := start(t, "callhome-trigger", device.Command(nil, "--check"))
	check.MustExit(0)
	contains(t, "--check", check.Stdout(), sshdVersion(t, device))
	want := map[string]string{"bullseye": "OpenSSH_8.4", "trixie": "OpenSSH_10."}[tree]
	contains(t, "--check", check.Stdout(), want)
}

// sshdVersion asks the device's sshd, "OpenSSH_9.2p1".
func sshdVersion(t *testing.T, d *device) string {
	t.Helper()
	cmd := exec.Command("/usr/sbin/sshd", "-V")
	if d.root != "" {
		cmd = exec.Command("chroot", d.root, "/usr/sbin/sshd", "-V")
	}
	out, _ := cmd.CombinedOutput() // before 9.2 -V is an unknown option
	version := regexp.MustCompile(`OpenSSH_[0-9.]+(p[0-9]+)?`).Find(out)
	if version == nil {
		t.Fatalf("sshd -V says no version: %s", out)
	}
	return string(version)
}

// loginIsBelieved: what the log says of a login, sshd's processes show.
func loginIsBelieved(t *testing.T, move func(*device), user string) {
	t.Parallel()
	probe := newProbe(t)
	device, nms := newSite(t, probe.Command)
	move(device)
	device.options = append(device.options, "--sshd-option", "PermitRootLogin=yes")
	m := startManager(t, device)
	addr := freeAddr("127.0.0.1")
	nms.user = user
	station := nms.Netconf(addr)
	called := m.MustCallHome(addr, proto.WaitNetconf)
	if called.State != proto.StateServing || called.User != user {
		t.Errorf("the session is %+v", called)
	}
	station.in.Close()
	station.MustExit(0)
	if last := m.AwaitNone(); last.Stage != proto.StageSession {
		t.Errorf("it ended at %s because %q", last.Stage, last.Cause)
	}
}

// forgedLogin: a peer without any key writes a login into the log, for each kind
// of user. The session stays what it was, and the trouble is reported.
func forgedLogin(t *testing.T, move func(*device), attack string) {
	t.Parallel()
	for _, user := range []string{"root", netop} {
		device := newDevice(t, "/bin/cat")
		move(device)
		device.options = append(device.options, "--sshd-option", "LoginGraceTime=4")
		m := startManager(t, device)
		addr := freeAddr("127.0.0.1")
		host, port := splitAddr(t, addr)
		forger := start(t, "forger", exec.Command("/usr/bin/python3", "clients/forger.py", host, port, attack, user))
		forger.AwaitListening(addr)
		info, err := m.CallHome(addr, proto.WaitSSH)
		if err == nil {
			t.Errorf("%s: the session is authenticated: %+v", user, info)
		}
		if last := m.AwaitNone(); last.User != "" || last.Key != "" || last.Graceful || last.Stage == proto.StageSession || last.Stage == proto.StageSubsystem {
			t.Errorf("%s: the session is remembered as %+v", user, last)
		}
		forger.AwaitStdout("forged")
		contains(t, "the manager's log", m.process.Stderr(), "login not confirmed")
	}
}

// forgedByAUser: a user with a key writes logins of others, with other keys and
// methods, into the log at once after the login. The session is that user's all
// the same, with that user's key.
func forgedByAUser(t *testing.T, move func(*device)) {
	t.Parallel()
	device, nms := newSite(t, "/bin/cat")
	move(device)
	m := startManager(t, device)
	addr := freeAddr("127.0.0.1")
	host, port := splitAddr(t, addr)
	forger := start(t, "forger", exec.Command("/usr/bin/python3", "clients/forger.py", host, port, "forward", nms.user, nms.key))
	forger.AwaitListening(addr)
	info := m.MustCallHome(addr, proto.WaitNetconf)
	forger.AwaitStdout("forged")
	out, err := exec.Command("ssh-keygen", "-lf", nms.key+".pub").Output()
	if err != nil {
		t.Fatal(err)
	}
	if info.User != nms.user || info.Method != "publickey" || info.Key == "" || !strings.Contains(string(out), info.Key) {
		t.Errorf("the session is %+v, the key %s", info, out)
	}
}
