//go:build integration

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Host certificate and user certificate: neither side has ever seen the
// other's key, only the CA's.
func TestCertificatesOnBothSides(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		server := startNetconfd(t)
		device, nms := newDevice(t, server.Subsystem()), newNMS(t)
		hostCA, userCA := newKey(t, device.dir(), "host_ca"), newKey(t, nms.dir, "user_ca")
		certificate := certify(t, hostCA, device.hostKey, "device-1", alias, true)
		certify(t, userCA, nms.key, "nms-1", netop, false)
		writeFile(t, nms.knownHosts, "@cert-authority "+alias+" "+publicKey(t, hostCA)+"\n", 0o600)
		device.options = append(device.options, "--ssh-connection-port", yumaPort, "--host-certificate", certificate,
			"--sshd-option", "TrustedUserCAKeys="+userCA+".pub")
		use(device)

		addr := freeAddr("127.0.0.1")
		client := nms.SshNetconf(server, addr, "certified")
		call := start(t, "callhome-trigger", device.Command(splitArgs(t, addr)))
		finish(t, client)
		call.AwaitStderr("ED25519-CERT")
		contains(t, "sshd's log", call.Stderr(), "ID nms-1")
	})
}

// A host certificate for another name is refused by the station, even though
// its CA is the right one.
func TestHostCertificateOfAnotherDevice(t *testing.T) {
	t.Parallel()
	device, nms := newSite(t, "/bin/true")
	hostCA := newKey(t, device.dir(), "host_ca")
	certificate := certify(t, hostCA, device.hostKey, "device-2", "device-2.example", true)
	writeFile(t, nms.knownHosts, "@cert-authority * "+publicKey(t, hostCA)+"\n", 0o600)
	addr := freeAddr("127.0.0.1")
	ssh := nms.Ssh(addr, []string{"-s"}, "netconf")
	device.Call(addr, "--host-certificate", certificate)
	ssh.MustExit(255)
	contains(t, "ssh", ssh.Stderr(), "Host key verification failed")
}

// A station whose key the device does not know is refused with every client, and nothing of the attempt is left.
func TestWrongUserKey(t *testing.T) {
	t.Parallel()
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			device, nms := newDevice(t, "/bin/true"), newNMS(t)
			nms.Know(device)
			addr := freeAddr("127.0.0.1")
			client := c.wait(nms, nil, addr, "never")
			call := device.Call(addr)
			if client.Exit(patience) == 0 {
				t.Errorf("the client ended as if it had been let in")
			}
			AwaitGone(t, patience, call.Family())
			log := call.Stderr()
			contains(t, "sshd's log", log, "Failed publickey for "+netop)
			if strings.Contains(log, "Accepted publickey") {
				t.Errorf("sshd let the station in:\n%s", log)
			}
		})
	}
}

// A device with another host key than the station knows is not spoken to: each
// client ends before it logs in.
func TestWrongHostKey(t *testing.T) {
	t.Parallel()
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			device, nms := newSite(t, "/bin/true")
			nms.Know(newDevice(t, "/bin/true"))
			addr := freeAddr("127.0.0.1")
			client := c.wait(nms, nil, addr, "never")
			call := device.Call(addr)
			if client.Exit(patience) == 0 {
				t.Errorf("the client ended as if it knew the device")
			}
			said := strings.ToLower(client.Stderr())
			if !strings.Contains(said, "host key verification failed") && !strings.Contains(said, "unknown host key") && !strings.Contains(said, "this is not device") {
				t.Errorf("the client does not say that it is the host key:\n%s", said)
			}
			AwaitGone(t, patience, call.Family())
			if log := call.Stderr(); strings.Contains(log, "publickey") {
				t.Errorf("the station logged in all the same:\n%s", log)
			}
		})
	}
}

// A host key that is not there is found before any call.
func TestMissingHostKey(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		device := newDevice(t, "/bin/true")
		use(device)
		nms := listen(t, "127.0.0.1:0")
		if err := os.Remove(device.hostKey); err != nil {
			t.Fatal(err)
		}
		call := start(t, "callhome-trigger", device.Command(splitArgs(t, nms.Addr())))
		call.MustExit(66)
		oneLine(t, call.Stderr(), device.hostKey, "no such file", "ssh-keygen")
		nms.NoCall()
	})
}

// Two host keys: the station gets the one it knows.
func TestSeveralHostKeys(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		device, nms := newSite(t, newProbe(t).Command)
		rsa := filepath.Join(device.dir(), "rsa")
		keygen(t, "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", rsa)
		device.options = append(device.options, "--host-key", rsa)
		writeFile(t, nms.knownHosts, alias+" "+publicKey(t, rsa)+"\n", 0o600)
		use(device)
		addr := freeAddr("127.0.0.1")
		ssh := nms.Netconf(addr)
		start(t, "callhome-trigger", device.Command(splitArgs(t, addr)))
		ssh.in.Close()
		ssh.MustExit(0)
	})
}

// A station that stops answering is found out by SSH's own keepalives, and the
// device ends the session. (OpenSSH 9.2 takes twice the time it should.)
func TestSshKeepaliveEndsADeadSession(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		probe := newProbe(t)
		device, nms := newSite(t, probe.Command)
		device.options = append(device.options, "--ssh-keepalive", "1,1")
		use(device)
		addr := freeAddr("127.0.0.1")
		ssh := nms.Netconf(addr)
		call := start(t, "callhome-trigger", device.Command(splitArgs(t, addr)))
		session := call.AwaitFamily("cat")
		ssh.Signal(unix.SIGSTOP)
		AwaitGone(t, patience, session)
		contains(t, "sshd's log", call.Stderr(), "Timeout, client not responding from user "+netop)
		ssh.Signal(unix.SIGCONT)
	})
}

// The user's login shell starts the session, whatever shell it is; --check
// warns where that shell runs start-up files of the user's.
func TestBashUser(t *testing.T) {
	t.Parallel()
	probe := newProbe(t)
	device, nms := newSite(t, probe.Command)
	nms.user = bashful
	addr := freeAddr("127.0.0.1")
	ssh := nms.Netconf(addr)
	call := device.Call(addr, "--ssh-connection-port", yumaPort)
	call.AwaitFamily("cat")
	if port := strings.Fields(probe.Environ()["SSH_CONNECTION"])[3]; port != yumaPort {
		t.Errorf("the session sees server port %s", port)
	}
	ssh.in.Close()
	ssh.MustExit(0)
	if _, err := os.Stat(runDir + "/home/" + bashful + "/bashrc-ran"); err != nil {
		t.Errorf("bash did not run .bashrc here, so this story proves nothing: %v", err)
	}
	check := start(t, "callhome-trigger", device.Command(nil, "--check"))
	check.MustExit(0)
	contains(t, "--check", check.Stdout(), "warning", bashful, ".bashrc")
	if strings.Contains(check.Stdout(), "user "+netop+":") {
		t.Errorf("--check warns of a user without start-up files:\n%s", check.Stdout())
	}
}
