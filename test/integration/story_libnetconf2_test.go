//go:build integration

package integration

import (
	"path/filepath"
	"testing"
	"time"

	"callhome/internal/nms/nmsproto"
	"callhome/test/skips"
)

// libnetconf2 as a client that knows nothing of call home: it takes its session
// from the device's socket at the station.
func TestLibnetconf2AtADevicesSocket(t *testing.T) {
	t.Parallel()
	program := libnetconf2(t, "libnetconf2_client")
	runTwice(t, func(server *netconfd) error {
		d, n := newSite(t, server.Subsystem())
		d.options = append(d.options, "--ssh-connection-port", yumaPort)
		s := startStation(n)
		s.Know("edge7", d.hostKey, "")
		d.Call(s.addr)
		s.AwaitState("edge7", nmsproto.Connected)
		return stepped(start(t, "libnetconf2", n.here(program, filepath.Join(s.sockets, "edge7.sock"), "by a socket")), steps[3:])
	})
}

// libnetconf2Device starts a device all of which is libnetconf2's, SSH server
// and all, and which calls addr again and again.
func libnetconf2Device(t *testing.T, n *nms, addr string) (hostKey string) {
	t.Helper()
	const modules = "/usr/share/yuma/modules/ietf"
	if found, _ := filepath.Glob(modules + "/ietf-system@*.yang"); len(found) == 0 {
		skips.Story(t, "there are no YANG modules in "+modules)
	}
	hostKey = newKey(t, tempDir(t), "hostkey")
	host, port := splitAddr(t, addr)
	start(t, "libnetconf2", n.here(libnetconf2(t, "libnetconf2_device"), modules, host, port, hostKey, n.user, n.key+".pub", "a rack of its own"))
	return hostKey
}

const itsLocation = "<location>a rack of its own</location>"

// Call homes of libnetconf2: they are held, several sessions at once, and what
// the library ends it begins anew.
func TestServeHoldsADeviceOnLibnetconf2(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			addr := freeAddr(host)
			n := newNMS(t)
			s := startStation(n, "--listen", addr, "--keepalive", "1s", "--keepalive-time", "1s")
			s.Know("edge7", libnetconf2Device(t, n, addr), "")
			contains(t, "the version string", s.AwaitEvent("up", "edge7").Software, "libssh")
			one := s.Connect("edge7")
			one.Hello(nil)
			time.Sleep(4 * time.Second) // keepalives: the time is what is tested
			contains(t, "another session", s.Run("console", "--device", "edge7", "--timeout", consoleTimeout, "--get-config"), itsLocation)
			one.Ask("get-config", "<get-config><source><running/></source></get-config>", itsLocation)
			one.Ask("close-session", "<close-session/>", "<ok")
			// With its last session the library hangs up, mostly before it has
			// closed the channel, and calls again.
			one.Exit(patience)
			s.AwaitEvent("down", "edge7")
			s.AwaitEvent("up", "edge7")
			contains(t, "a session of the next call", s.Run("console", "--device", "edge7", "--timeout", consoleTimeout, "--get-config"), itsLocation)
		})
	}
}

// The same device, and the console waits for it itself.
func TestConsoleTakesACallOfLibnetconf2(t *testing.T) {
	t.Parallel()
	n := newNMS(t)
	addr := freeAddr("127.0.0.1")
	key := libnetconf2Device(t, n, addr)
	writeFile(t, n.knownHosts, alias+" "+publicKey(t, key)+"\n", 0o600)
	// The device calls already: the console can be done before it is seen to listen.
	console := start(t, "callhome-nms console", n.ConsoleCommand("--listen", addr, "--device", alias, "--timeout", consoleTimeout, "--hello", "--get-config", "--close-session"))
	if err := ended(console, "<hello", itsLocation, "<ok"); err != nil {
		t.Fatal(err)
	}
}
