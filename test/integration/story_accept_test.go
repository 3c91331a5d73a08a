//go:build integration

package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"callhome/test/sandbox"

	"golang.org/x/sys/unix"
)

// With a call in hand accept is gone, and ssh's socket has TCP_NODELAY from the
// first packet on.
func TestNothingStaysOfAccept(t *testing.T) {
	t.Parallel()
	_, nms := newSite(t, "/bin/true")
	nms.accept = []string{"--timeout", "30s"}
	addr := freeAddr("127.0.0.1")
	ssh := nms.Ssh(addr, []string{"-s"}, "netconf")
	accept := ssh.AwaitFamily(binDir + "/callhome-nms accept --listen " + addr + " --timeout 30s")
	device, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	if _, err := io.WriteString(device, "SSH-2.0-device\r\n"); err != nil {
		t.Fatal(err)
	}
	AwaitGone(t, patience, accept[1:])
	ssh.Running()
	if nodelay := sshNodelay(t, ssh.pid, addr); nodelay != 1 {
		t.Errorf("TCP_NODELAY is %d", nodelay)
	}
	// ssh speaks on this very connection.
	line := make([]byte, 8)
	if _, err := io.ReadFull(device, line); err != nil || string(line) != "SSH-2.0-" {
		t.Errorf("the device reads %q, %v", line, err)
	}
}

// sshNodelay looks at a TCP socket of another process.
func sshNodelay(t *testing.T, pid int, addr string) int {
	t.Helper()
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(process)
	for fd := range 16 {
		theirs, err := unix.PidfdGetfd(process, fd, 0)
		if err != nil {
			continue
		}
		defer unix.Close(theirs)
		if name, err := unix.Getsockname(theirs); err == nil {
			in, ok := name.(*unix.SockaddrInet4)
			if _, port := splitAddr(t, addr); ok && fmt.Sprint(in.Port) == port {
				nodelay, err := unix.GetsockoptInt(theirs, unix.IPPROTO_TCP, unix.TCP_NODELAY)
				if err != nil {
					t.Fatal(err)
				}
				return nodelay
			}
		}
	}
	t.Fatal("ssh has no socket of that connection")
	return 0
}

// Two devices on one port: the one that was asked for gets the session though
// the other called first. Its claim alone gives it nothing: with another host key ssh
// refuses it.
func TestAcceptChoosesItsDevice(t *testing.T) {
	t.Parallel()
	for _, way := range [][]string{nil, {"--announce"}} {
		device, nms := newSite(t, newProbe(t).Command)
		other := newDevice(t, "/bin/true")
		nms.accept = []string{"--device", "rtr-7", "--timeout", "30s"}
		addr := freeAddr("127.0.0.1")
		ssh := nms.Netconf(addr)
		second := other.Call(addr, append(way, "--device-id", "rtr-8")...)
		ssh.AwaitStderr(`announces "rtr-8", expected "rtr-7"`)
		call := device.Call(addr, append(way, "--device-id", "rtr-7")...)
		call.AwaitFamily("cat")
		AwaitGone(t, patience, second.Family()) // let go when the other was found
		ssh.in.Close()
		ssh.MustExit(0)
	}
	_, nms := newSite(t, "/bin/true")
	nms.accept = []string{"--device", "rtr-7", "--timeout", "30s"}
	addr := freeAddr("127.0.0.1")
	ssh := nms.Ssh(addr, []string{"-s"}, "netconf")
	newDevice(t, "/bin/true").Call(addr, "--device-id", "rtr-7")
	ssh.MustExit(255)
	contains(t, "ssh", ssh.Stderr(), "Host key verification failed")
}

// The stanza of docs/nms.md, with a pinned key and with a CA.
func TestSshConfigStanza(t *testing.T) {
	t.Parallel()
	_, stanza, ok := strings.Cut(readFile(t, "../../docs/nms.md"), "\n    Host edge7\n")
	stanza, _, end := strings.Cut(stanza, "\n\n")
	if !ok || !end {
		t.Fatal("there is no stanza in docs/nms.md")
	}
	for _, known := range []string{"pinned", "CA"} {
		t.Run(known, func(t *testing.T) {
			t.Parallel()
			probe := newProbe(t)
			device, nms := newDevice(t, probe.Command), newNMS(t)
			device.LetIn(nms)
			options := []string{"--device-id", "edge7"}
			line := "edge7 " + publicKey(t, device.hostKey)
			if known == "CA" {
				ca := newKey(t, device.dir(), "ca")
				options = append(options, "--host-certificate", certify(t, ca, device.hostKey, "edge7", "edge7", true))
				line = "@cert-authority edge* " + publicKey(t, ca)
			}
			writeFile(t, nms.knownHosts, line+"\n", 0o600)
			addr := freeAddr("127.0.0.1")
			config := "Host edge7\n" + strings.Replace(stanza, "callhome-nms accept", binDir+"/callhome-nms accept --listen "+addr, 1) +
				fmt.Sprintf("\n    User %s\n    IdentityFile %s\n    IdentitiesOnly yes\n    UserKnownHostsFile %s\n", nms.user, nms.key, nms.knownHosts)
			file := writeFile(t, filepath.Join(nms.dir, "config"), config, 0o600)
			ssh := start(t, "ssh", nms.here("/usr/bin/ssh", "-F", file, "-o", "BatchMode=yes", "edge7", "-s", "netconf"))
			ssh.AwaitListening(addr)
			device.Call(addr, options...)
			awaitFile(t, ssh.stdout, "probe speaks")
		})
	}
}

// Who says nothing, or what is no SSH, does not use up ssh's one try.
func TestAcceptPassesOverWhatIsNoSsh(t *testing.T) {
	t.Parallel()
	device, nms := newSite(t, newProbe(t).Command)
	nms.accept = []string{"--timeout", "1m"}
	addr := freeAddr("127.0.0.1")
	ssh := nms.Netconf(addr)
	for i := range 500 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if i == 0 {
			if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
	}
	ssh.AwaitStderr("it closed the connection before its SSH version string")
	device.Call(addr).AwaitFamily("cat")
	ssh.in.Close()
	ssh.MustExit(0)
}

func TestAcceptTakesCallsFromItsNetworks(t *testing.T) {
	t.Parallel()
	device, nms := newSite(t, newProbe(t).Command)
	nms.accept = []string{"--from", "127.0.0.2/31", "--timeout", "30s"}
	addr := freeAddr("127.0.0.1")
	ssh := nms.Netconf(addr)
	unknown := device.Call(addr)
	ssh.AwaitStderr("outside --from")
	AwaitGone(t, patience, unknown.Family())
	device.Call(addr, "--local-address", "127.0.0.3").AwaitFamily("cat")
	ssh.in.Close()
	ssh.MustExit(0)
}

func TestAcceptsPortIsTaken(t *testing.T) {
	t.Parallel()
	_, nms := newSite(t, "/bin/true")
	nms.accept = []string{}
	taken := listen(t, freeAddr("127.0.0.1"))
	ssh := start(t, "ssh", nms.SshCommand(taken.Addr(), "-s", nms.user+"@"+alias, "netconf"))
	ssh.MustExit(255)
	contains(t, "ssh", ssh.Stderr(), "callhome-nms: listening on "+taken.Addr()+": another program has the port; `ss -ltnp")
	taken.NoCall()
}

// When ssh is killed the listener goes, so that the port is free.
func TestAcceptEndsWithItsSsh(t *testing.T) {
	t.Parallel()
	_, nms := newSite(t, "/bin/true")
	nms.accept = []string{}
	addr := freeAddr("127.0.0.1")
	ssh := nms.Ssh(addr, []string{"-s"}, "netconf")
	family := ssh.AwaitFamily(binDir + "/callhome-nms accept --listen " + addr)
	ssh.Signal(unix.SIGKILL)
	AwaitGone(t, patience, family)
	sandbox.Await(t, patience, "a free port", func() error {
		l, err := net.Listen("tcp", addr)
		return errors.Join(err, closeIf(l))
	})
}

func closeIf(l net.Listener) error {
	if l == nil {
		return nil
	}
	return l.Close()
}

// Without ssh behind it accept says what it is for.
func TestAcceptByHand(t *testing.T) {
	t.Parallel()
	for _, stdout := range []string{"/dev/null", ""} {
		cmd := newNMS(t).here(binDir+"/callhome-nms", "accept")
		if stdout != "" {
			f, err := os.OpenFile(stdout, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			cmd.Stdout = f
		}
		p := start(t, "accept", cmd)
		p.MustExit(64)
		oneLine(t, p.Stderr(), "ProxyUseFdpass=yes")
	}
}
