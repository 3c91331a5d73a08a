//go:build integration

package integration

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"callhome/test/sandbox"
)

// The port is closed: one line says so, and status 69.
func TestRefusedPort(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		for _, host := range []string{"127.0.0.1", "::1", "[::1]", "::ffff:127.0.0.1"} {
			t.Run(host, func(t *testing.T) {
				device := newDevice(t, "/bin/true")
				use(device)
				port := freePort()
				call := start(t, "callhome-trigger", device.Command([]string{host, port}))
				call.MustExit(69)
				oneLine(t, call.Stderr(), strings.Trim(host, "[]")[:3], port, "refused")
			})
		}
	})
}

const defaultConnectTimeout = 5 * time.Second

// A host that swallows packets costs --connect-timeout and no more.
func TestPortThatSwallowsPackets(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		link := newLink(t)
		link.Swallow()
		for _, host := range []string{deadV4, deadV6} {
			device := newDevice(t, "/bin/true")
			device.netns = link.device
			device.options = append(device.options, "--connect-timeout", "1s")
			use(device)
			began := time.Now()
			call := start(t, "callhome-trigger", device.Command([]string{host, "4334"}))
			call.MustExit(69)
			if took := time.Since(began); took < time.Second || took > defaultConnectTimeout {
				t.Errorf("%s: given up after %v, want 1s", host, took)
			}
			oneLine(t, call.Stderr(), host, "4334")
		}
	})
}

// A name with one dead and one live address reaches the live one, long before
// the dead one is given up; it does not matter which comes first.
func TestNameWithADeadAndALiveAddress(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"dead-and-live.example", "dead6-live4.example"} {
		inBothWays(t, func(t *testing.T, use func(*device)) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				link := newLink(t)
				link.Swallow()
				nms := listenIn(t, link.nms, nmsV4+":0")
				device := newDevice(t, "/bin/true")
				device.netns = link.device
				_, port := splitAddr(t, nms.Addr())
				// Far longer than Accept waits.
				device.options = append(device.options, "--connect-timeout", "10m")
				use(device)
				start(t, "callhome-trigger", device.Command([]string{name, port}))
				nms.Accept().Banner()
			})
		})
	}
}

// Where no address of a name answers, the error names each and why.
func TestNameWithDeadAddressesOnly(t *testing.T) {
	t.Parallel()
	link := newLink(t)
	link.Swallow()
	device := newDevice(t, "/bin/true")
	device.netns = link.device
	began := time.Now()
	call := device.Call("all-dead.example:4334", "--connect-timeout", "6s")
	call.MustExit(69)
	if took := time.Since(began); took > 11*time.Second { // one after the other would take 12
		t.Errorf("given up after %v, want 6s", took)
	}
	oneLine(t, call.Stderr(), "all-dead.example", deadV4, deadV6)

	device.netns = ""
	call = device.Call(net.JoinHostPort("both-refuse.example", freePort()))
	call.MustExit(69)
	oneLine(t, call.Stderr(), "127.0.0.1", "::1", "refused")
	if n := strings.Count(call.Stderr(), "refused"); n != 2 {
		t.Errorf("%d reasons for two addresses: %s", n, call.Stderr())
	}
}

// A name that does not exist, or that no name server can be asked about, has a status
// of its own.
func TestNameThatDoesNotResolve(t *testing.T) {
	t.Parallel()
	device := newDevice(t, "/bin/true")
	call := device.Call("nobody-to-ask.example:4334")
	call.MustExit(68)
	oneLine(t, call.Stderr(), "nobody-to-ask.example")

	noSuchNames(t)
	call = device.Call("nosuch.example:4334")
	call.MustExit(68)
	oneLine(t, call.Stderr(), "nosuch.example", "no such host")
}

// noSuchNames is a name server that knows no name.
func noSuchNames(t *testing.T) {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		for message := make([]byte, 512); ; {
			n, from, err := server.ReadFrom(message)
			if err != nil {
				return
			}
			if n > 12 {
				message[2] |= 0x80               // an answer
				message[3] = message[3]&0xf0 | 3 // no such name (RFC 1035)
				message[11] = 0                  // without the question's options
				_, _ = server.WriteTo(question(message[:n]), from)
			}
		}
	}()
}

// question cuts a DNS message behind its question.
func question(message []byte) []byte {
	i := 12
	for i < len(message) && message[i] != 0 {
		i += int(message[i]) + 1
	}
	return message[:min(i+5, len(message))]
}

// --attempts and --retry-wait: exactly that many attempts, and a station that
// comes up in between is reached.
func TestAttempts(t *testing.T) {
	t.Parallel()
	inBothWays(t, func(t *testing.T, use func(*device)) {
		link := newLink(t)
		device := newDevice(t, "/bin/true")
		device.netns = link.device
		device.options = append(device.options, "--attempts", "3", "--retry-wait", "50ms")
		use(device)
		port := freePort()
		start(t, "callhome-trigger", device.Command([]string{nmsV4, port})).MustExit(69)
		if n := failedConnects(t, link.device); n != 3 {
			t.Errorf("%d attempts, want 3", n)
		}

		device = newDevice(t, "/bin/true")
		device.netns = link.device
		device.options = append(device.options, "--attempts", "1000", "--retry-wait", "20ms")
		use(device)
		call := start(t, "callhome-trigger", device.Command([]string{nmsV4, port}))
		sandbox.Await(t, patience, "two more attempts", func() error {
			if n := failedConnects(t, link.device); n < 5 {
				return fmt.Errorf("%d in all", n)
			}
			return nil
		})
		call.Running()
		listenIn(t, link.nms, net.JoinHostPort(nmsV4, port)).Accept().Banner()
	})
}

// failedConnects returns the kernel's count of failed connects in a network
// namespace, snmp(5)'s AttemptFails.
func failedConnects(t *testing.T, netns string) int {
	t.Helper()
	fails := atNetns(t, netns, func() string {
		var names []string
		data, _ := os.ReadFile("/proc/thread-self/net/snmp")
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			switch {
			case f[0] != "Tcp:":
			case names == nil:
				names = f
			default:
				for i, name := range names {
					if name == "AttemptFails" {
						return f[i]
					}
				}
			}
		}
		return ""
	})
	return atoi(t, fails)
}
