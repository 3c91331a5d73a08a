//go:build integration

package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"callhome/test/sandbox"

	"golang.org/x/sys/unix"
)

// runTwice runs a story with netconfd again where it forgot a request; see
// there.
func runTwice(t *testing.T, story func(server *netconfd) error) {
	t.Helper()
	for try := 1; ; try++ {
		server := startNetconfd(t)
		err := story(server)
		if err == nil {
			return
		}
		if try == 3 || !server.Forgot() {
			t.Fatal(err)
		}
		t.Logf("netconfd forgot a request (%v); once more", err)
	}
}

// Many operations in one session, in both framings and all styles.
func TestConsoleOperations(t *testing.T) {
	t.Parallel()
	for _, v := range []struct{ version, style, hello string }{
		{"1.0", "pretty", "<hello"},
		{"1.1", "plain", "<hello"},
		{"1.1", "raw", "<hello"},
	} {
		t.Run(v.version+" "+v.style, func(t *testing.T) {
			t.Parallel()
			runTwice(t, func(server *netconfd) error {
				device, nms := newSite(t, server.Subsystem())
				edit := writeFile(t, filepath.Join(nms.dir, "edit.xml"), "<?xml version='1.0'?>\n"+editLocation("behind &lt;a&gt; NAT"), 0o600)
				filter := writeFile(t, filepath.Join(nms.dir, "filter.xml"), `<system xmlns="urn:ietf:params:xml:ns:yang:ietf-system"/>`, 0o600)
				rpc := writeFile(t, filepath.Join(nms.dir, "rpc.xml"), `<get-config><source><running/></source></get-config>`, 0o600)
				addr := freeAddr("127.0.0.1")
				p := nms.Console(addr, "--timeout", consoleTimeout, "-v", v.version, "-s", v.style,
					"--hello", "--lock", "--edit-config", edit, "--get-config", "running", "--subtree", filter, "--unlock", "running",
					"--get", "-x", "/sys:system/sys:location", "--ns", "sys=urn:ietf:params:xml:ns:yang:ietf-system",
					"--rpc", rpc, "--get-schema", "ietf-system")
				device.Call(addr, "--ssh-connection-port", yumaPort)
				err := ended(p, v.hello, "urn:ietf:params:netconf:base:1.0", "<session-id>", "</hello>", "<ok", "<ok",
					"<location>behind &lt;a&gt; NAT</location>", "<ok", "<location>behind &lt;a&gt; NAT</location>", "<location>behind", "module ietf-system {")
				if pretty := strings.Contains(p.Stdout(), "\n    <system "); err == nil && v.style == "pretty" && !pretty {
					err = fmt.Errorf("this is not pretty:\n%s", p.Stdout())
				}
				return err
			})
		})
	}
}

// An <rpc-error> ends the script, readably, and what comes after it is not done.
func TestConsoleShowsRpcErrors(t *testing.T) {
	t.Parallel()
	runTwice(t, func(server *netconfd) error {
		device, nms := newSite(t, server.Subsystem())
		edit := writeFile(t, filepath.Join(nms.dir, "edit.xml"), editLocation("never"), 0o600)
		addr := freeAddr("127.0.0.1")
		p := nms.Console(addr, "--timeout", consoleTimeout, "--get-config", "nonesuch", "--edit-config", edit)
		device.Call(addr, "--ssh-connection-port", yumaPort)
		if !p.over(patience / 2) {
			return errors.New("no answer")
		}
		p.MustExit(65)
		oneLine(t, p.Stderr(), "callhome-nms: get-config: the device answered unknown-element (protocol): ")
		contains(t, "stdout", p.Stdout(), "<error-tag>unknown-element</error-tag>")
		if strings.Contains(readFile(t, server.log), "never") {
			t.Error("the edit was sent all the same")
		}
		return nil
	})
}

// Notifications are printed as they come, until the operator has enough.
func TestConsoleSubscription(t *testing.T) {
	t.Parallel()
	runTwice(t, func(server *netconfd) error {
		device, nms := newSite(t, server.Subsystem())
		edit := writeFile(t, filepath.Join(nms.dir, "edit.xml"), editLocation("elsewhere"), 0o600)
		addr := freeAddr("127.0.0.1")
		watching := nms.Console(addr, "--create-subscription", "NETCONF")
		device.Call(addr, "--ssh-connection-port", yumaPort)
		if !eventually(func() bool { return strings.Contains(watching.Stdout(), "<ok") }) {
			return fmt.Errorf("no subscription: %s", watching.Stderr())
		}
		other := freeAddr("127.0.0.1")
		editing := nms.Console(other, "--timeout", consoleTimeout, "--edit-config", edit)
		device.Call(other, "--ssh-connection-port", yumaPort)
		if err := ended(editing, "<ok"); err != nil {
			return err
		}
		awaitFile(t, watching.stdout, "netconf-config-change")
		watching.Running()
		watching.Signal(unix.SIGINT)
		return ended(watching, "<notification", "netconf-config-change", "</notification>")
	})
}

// The cable is cut while the console waits for notifications: no FIN, no answer.
func TestConsolesDeviceVanishes(t *testing.T) {
	t.Parallel()
	runTwice(t, func(server *netconfd) error {
		l := newLink(t)
		device, nms := newSite(t, server.Subsystem())
		device.netns, nms.netns = l.device, l.nms
		addr := freeAddr(nmsV4)
		p := nms.Console(addr, "--keepalive", "1s", "--create-subscription", "NETCONF")
		device.Call(addr, "--ssh-connection-port", yumaPort)
		if !eventually(func() bool { return strings.Contains(p.Stdout(), "<ok") }) {
			return fmt.Errorf("no subscription: %s", p.Stderr())
		}
		ip(t, "-n "+filepath.Base(l.device)+" link set "+l.port+" down")
		p.MustExit(69)
		oneLine(t, p.Stderr(), "callhome-nms: no answer to a keepalive within 1s")
		return nil
	})
}

// eventually is Await for what may fail for a reason of netconfd's own.
func eventually(ready func() bool) bool {
	for deadline := time.Now().Add(patience / 2); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if ready() {
			return true
		}
	}
	return false
}

// A person at a terminal: prompt, history, an error that ends nothing, quit.
func TestConsoleInteractive(t *testing.T) {
	t.Parallel()
	runTwice(t, func(server *netconfd) error {
		device, nms := newSite(t, server.Subsystem())
		addr := freeAddr("127.0.0.1")
		terminal, screen := newTerminal(t)
		cmd := nms.ConsoleCommand("--listen", addr, "--device", alias, "--timeout", consoleTimeout, "--interactive")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
		p := start(t, "callhome-nms console", cmd)
		p.AwaitListening(addr)
		device.Call(addr, "--ssh-connection-port", yumaPort)
		for _, step := range []struct{ keys, want string }{
			{"", alias + "> "},
			{"get-config nonesuch\r", "unknown-element"},
			{"get-config\r", "</rpc-reply>"},
			{"\x1b[A\r", "</rpc-reply>"}, // the arrow: what came last
			{"delete-config running\x03get-c\truning\x1b[D\x1b[D\x1b[Dn\r", "</rpc-reply>"}, // ^C clears, TAB completes
			{"help\r", "discard-changes"},
			{"<get-config>\r<source><running/></source>\r</get-config>\r", "</rpc-reply>"},
		} {
			if _, err := io.WriteString(screen, step.keys); err != nil {
				t.Fatal(err)
			}
			if err := screen.await(step.want); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(screen, "quit\r"); err != nil {
			t.Fatal(err)
		}
		p.MustExit(0)
		return nil
	})
}

// terminalScreen is the far end of a pseudo terminal, where a person sits.
type terminalScreen struct {
	*os.File
	seen, all string
}

func newTerminal(t *testing.T) (*os.File, *terminalScreen) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	if ctlErr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); ctlErr != nil || err != nil {
		t.Fatal(ctlErr, err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return slave, &terminalScreen{File: master}
}

// await reads until text comes, and forgets what was before it.
func (s *terminalScreen) await(text string) error {
	_ = s.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 4096)
	for {
		if _, after, ok := strings.Cut(s.seen, text); ok {
			s.seen = after
			return nil
		}
		n, err := s.Read(buf)
		if err != nil {
			return fmt.Errorf("the screen shows no %q: %w in\n%s", text, err, tail(s.seen))
		}
		s.seen += string(buf[:n])
		s.all += string(buf[:n])
	}
}

// letIn is what sshd says when the station knew it and it the station. What the
// probe then says is no NETCONF, which ends the console.
const letIn = "Accepted publickey for " + netop

// Every other caller is reported in one line each, and blocks
// no device: another device, one with a changed key, what is no SSH, many that
// say nothing. The device then gets its session.
func TestConsoleWaitsForItsDevice(t *testing.T) {
	t.Parallel()
	const silent = 500
	device, nms := newSite(t, newProbe(t).Command)
	addr := freeAddr("127.0.0.1")
	p := nms.Console(addr, "--hello", "--login-timeout", "1m")
	unknown := newDevice(t, "/bin/true")
	unknown.LetIn(nms)
	gone := unknown.Call(addr)
	p.AwaitStderr("this is not device " + alias)
	AwaitGone(t, patience, gone.Family())
	if strings.Contains(gone.Stderr(), "publickey") {
		t.Errorf("the station logged in to an unknown device:\n%s", gone.Stderr())
	}
	speak := func(text string) net.Conn {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_, err = io.WriteString(c, text)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	speak("HTTP/1.1 400 Bad Request\x1b[2J\r\n\r\n").(*net.TCPConn).CloseWrite()
	p.AwaitStderr(`waiting for its SSH version string: it began with "HTTP/1.1 400`)
	for range silent {
		speak("")
	}
	device.Call(addr).AwaitStderr(letIn)
	p.MustExit(76)
	said := strings.SplitAfter(strings.TrimSuffix(p.Stderr(), "\n"), "\n")
	for i, want := range []string{"a call from 127.0.0.1:", "a call from 127.0.0.1:", "exchanging hellos: "} {
		if len(said) != 3 || !strings.HasPrefix(said[i], "callhome-nms: "+want) || strings.Contains(said[i], "\x1b") {
			t.Errorf("line %d does not begin with %q:\n%s", i, want, p.Stderr())
		}
	}
}

// Certificates and revocation: each refusal has its own line.
func TestConsoleChecksCertificates(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	ca, other := newKey(t, dir, "ca"), newKey(t, dir, "other")
	sign := func(t *testing.T, d *device, ca, principal, validity string) string {
		keygen(t, "-q", "-s", ca, "-I", "x", "-h", "-n", principal, "-V", validity, "-z", "7", d.hostKey+".pub")
		return d.hostKey + "-cert.pub"
	}
	list := func(t *testing.T, key string) string {
		return writeFile(t, filepath.Join(tempDir(t), "revoked"), publicKey(t, key)+"\n", 0o600)
	}
	for _, row := range []struct {
		name, ca, principal, validity string
		options                       func(*testing.T, *device) []string
		want                          string // "": it is let through
	}{
		{"good", ca, alias, "-1h:+1h", nil, ""},
		{"expired", ca, alias, "-2h:-1h", nil, "expired at"},
		{"not yet valid", ca, alias, "+1h:+2h", nil, "is not valid before"},
		{"for another", ca, "device-2.example", "-1h:+1h", nil, `is for ["device-2.example"], not for ` + alias},
		{"for another, which is asked for", ca, "device-2.example", "-1h:+1h", func(*testing.T, *device) []string { return []string{"--principal", "device-2.example"} }, ""},
		{"of another CA", other, alias, "-1h:+1h", nil, "this is not device " + alias},
		{"key revoked", ca, alias, "-1h:+1h", func(t *testing.T, d *device) []string { return []string{"--revoked", list(t, d.hostKey)} }, "is revoked in"},
		{"CA revoked", ca, alias, "-1h:+1h", func(t *testing.T, d *device) []string { return []string{"--revoked", list(t, ca)} }, "is revoked in"},
		{"another key revoked", ca, alias, "-1h:+1h", func(t *testing.T, d *device) []string { return []string{"--revoked", list(t, other)} }, ""},
		{"serial number revoked in a KRL", ca, alias, "-1h:+1h", func(t *testing.T, d *device) []string {
			krl := filepath.Join(tempDir(t), "krl")
			keygen(t, "-k", "-q", "-f", krl, "-s", ca+".pub", writeFile(t, krl+".spec", "serial: 7\n", 0o600))
			return []string{"--revoked", krl}
		}, "is revoked in"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			device, nms := newDevice(t, newProbe(t).Command), newNMS(t)
			device.LetIn(nms)
			options := []string{"--ca", ca + ".pub", "--timeout", consoleTimeout, "--hello"}
			if row.options != nil {
				options = append(options, row.options(t, device)...)
			}
			addr := freeAddr("127.0.0.1")
			p := nms.Console(addr, options...)
			call := device.Call(addr, "--host-certificate", sign(t, device, row.ca, row.principal, row.validity))
			if row.want == "" {
				call.AwaitStderr(letIn)
				return
			}
			p.AwaitStderr(row.want)
			p.MustExit(77)
			if strings.Contains(call.Stderr(), "publickey") {
				t.Errorf("the station logged in all the same:\n%s", call.Stderr())
			}
		})
	}
}

// A device of which nothing is known is refused; with --accept-new its key is
// recorded under its name, once, wherever it calls from; another one is not it.
func TestConsoleAcceptsANewDevice(t *testing.T) {
	t.Parallel()
	device, nms := newDevice(t, newProbe(t).Command), newNMS(t)
	device.LetIn(nms)
	addr := freeAddr("127.0.0.1")
	p := nms.Console(addr, "--hello", "--timeout", consoleTimeout)
	device.Call(addr)
	p.MustExit(77)
	contains(t, "the console", p.Stderr(), "no host key is known of device "+alias, "SHA256:", "--accept-new")
	if known := readFile(t, nms.knownHosts); known != "" {
		t.Errorf("it was recorded without being asked: %s", known)
	}
	for _, from := range []string{"127.0.0.1", "127.0.0.2"} {
		addr := freeAddr("127.0.0.1")
		nms.Console(addr, "--hello", "--accept-new")
		device.Call(addr, "--local-address", from).AwaitStderr(letIn)
		if known, want := readFile(t, nms.knownHosts), alias+" "+publicKey(t, device.hostKey)+"\n"; known != want {
			t.Errorf("after a call from %s the known hosts are\n%swant\n%s", from, known, want)
		}
	}
	// Where there is no ~/.ssh yet it is made.
	home := tempDir(t)
	addr = freeAddr("127.0.0.1")
	first := exec.Command(binDir+"/callhome-nms", "console", "--listen", addr, "--device", alias, "--user", nms.user, "--privKeyFile", nms.key, "--hello", "--accept-new")
	first.Env = []string{"HOME=" + home}
	start(t, "callhome-nms console", first).AwaitListening(addr)
	device.Call(addr).AwaitStderr(letIn)
	contains(t, "~/.ssh/known_hosts", readFile(t, filepath.Join(home, ".ssh", "known_hosts")), alias+" "+publicKey(t, device.hostKey))
	addr = freeAddr("127.0.0.1")
	p = nms.Console(addr, "--hello", "--accept-new", "--timeout", consoleTimeout)
	newDevice(t, "/bin/true").Call(addr)
	p.MustExit(77)
	contains(t, "the console", p.Stderr(), "this is not device "+alias, nms.knownHosts+" line 1")
}

// A known key counts though the device has others that would be chosen first.
func TestConsoleKnowsTheSecondKey(t *testing.T) {
	t.Parallel()
	device, nms := newSite(t, newProbe(t).Command)
	rsa := filepath.Join(device.dir(), "rsa")
	keygen(t, "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", rsa)
	device.options = append(device.options, "--host-key", rsa)
	writeFile(t, nms.knownHosts, alias+" "+publicKey(t, rsa)+"\n", 0o600)
	addr := freeAddr("127.0.0.1")
	nms.Console(addr, "--hello")
	device.Call(addr).AwaitStderr(letIn)
}

// The right device that does not let us in: waiting on would not help.
func TestConsoleIsNotLetIn(t *testing.T) {
	t.Parallel()
	device, nms := newDevice(t, "/bin/true"), newNMS(t)
	nms.Know(device)
	addr := freeAddr("127.0.0.1")
	p := nms.Console(addr, "--hello")
	device.Call(addr)
	p.MustExit(77)
	oneLine(t, p.Stderr(), "logging in: unable to authenticate", "check the user, and its key or password, on the device")
}

func TestConsolesPortIsTaken(t *testing.T) {
	t.Parallel()
	_, nms := newSite(t, "/bin/true")
	taken := listen(t, freeAddr("127.0.0.1"))
	p := start(t, "callhome-nms console", nms.ConsoleCommand("--listen", taken.Addr(), "--device", alias, "--hello"))
	p.MustExit(69)
	oneLine(t, p.Stderr(), "listening on "+taken.Addr()+": another program has the port")
}

// foreign is a device none of whose programs is ours: socat makes the
// connection, and sshd is stock.
func foreign(t *testing.T, d *device, server *netconfd) (sshd string) {
	t.Helper()
	sandbox.Need(t, "socat")
	config := writeFile(t, filepath.Join(d.dir(), "foreign.conf"), fmt.Sprintf("HostKey %s\nAuthorizedKeysFile %s\nUsePAM no\nSubsystem netconf %s\n"+
		"ForceCommand SSH_CONNECTION=\"127.0.0.1 1 127.0.0.1 %s\" exec %s\n", d.hostKey, d.authorizedKeys, server.Subsystem(), yumaPort, server.Subsystem()), 0o644)
	return "EXEC:/usr/sbin/sshd -i -e -f " + config + ",nofork"
}

// A call home that socat makes is like any other one, for ssh over accept and
// for the console.
func TestForeignCallHome(t *testing.T) {
	t.Parallel()
	for _, c := range clients {
		if c.name != "accept" && c.name != "console" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			runTwice(t, func(server *netconfd) error {
				device, nms := newSite(t, server.Subsystem())
				addr := freeAddr("127.0.0.1")
				client := c.wait(nms, server, addr, "foreign")
				start(t, "socat", exec.Command("socat", "TCP:"+addr, foreign(t, device, server)))
				return client.Finish()
			})
		})
	}
}

// The console connects the ordinary way, too, and then knows the device as ssh
// does: by host and port.
func TestConsoleConnects(t *testing.T) {
	t.Parallel()
	runTwice(t, func(server *netconfd) error {
		device, nms := newSite(t, server.Subsystem())
		addr := freeAddr("127.0.0.1")
		host, port := splitAddr(t, addr)
		socat := start(t, "socat", exec.Command("socat", "TCP-LISTEN:"+port+",bind="+host+",fork,reuseaddr", foreign(t, device, server)))
		socat.AwaitListening(addr)
		p := start(t, "callhome-nms console", nms.ConsoleCommand("--host", host, "--port", port, "--timeout", consoleTimeout, "--get-config"))
		p.MustExit(77)
		oneLine(t, p.Stderr(), "connecting to "+addr+": no host key is known of device "+host)
		writeFile(t, nms.knownHosts, fmt.Sprintf("[%s]:%s %s\n", host, port, publicKey(t, device.hostKey)), 0o600)
		return ended(start(t, "callhome-nms console", nms.ConsoleCommand("--host", host, "--port", port, "--timeout", consoleTimeout, "--get-config")), "<data")
	})
	p := start(t, "callhome-nms console", newNMS(t).ConsoleCommand("--host", "127.0.0.1", "--port", freePort(), "--get"))
	p.MustExit(69)
	if !regexp.MustCompile(`^callhome-nms: connecting to 127\.0\.0\.1:\d+: connect: connection refused\n$`).MatchString(p.Stderr()) {
		t.Errorf("it says %q", p.Stderr())
	}
}
