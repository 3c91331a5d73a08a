//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"callhome/test/sandbox"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// newServedSite is a station that knows a device with netconfd behind it.
func newServedSite(t *testing.T, id string, args ...string) (*served, *device, *netconfd) {
	t.Helper()
	server := startNetconfd(t)
	d, n := newSite(t, server.Subsystem())
	d.options = append(d.options, "--ssh-connection-port", yumaPort)
	s := startStation(n, args...)
	s.Know(id, d.hostKey, "")
	return s, d, server
}

// oneSession has one whole session.
func oneSession(t *testing.T, s *netconf, server *netconfd) {
	t.Helper()
	s.Hello(server)
	s.Ask("get-config", `<get-config><source><running/></source></get-config>`, "<data")
	s.Close()
}

// A device behind callhome-mgr and one behind callhome-trigger, both with stock
// sshd and netconfd: the station holds both, distinguishes them by their keys and
// reaches them by every way that there is, several at once.
func TestServeHoldsDevicesAndReachesThem(t *testing.T) {
	t.Parallel()
	s, edge7, server := newServedSite(t, "edge7")
	edge8 := newDevice(t, server.Subsystem())
	edge8.options = append(edge8.options, "--ssh-connection-port", yumaPort)
	edge8.LetIn(s.nms)
	s.Know("edge8", edge8.hostKey, ",\n\t\"labels\": {\"site\": \"west\"}")
	contains(t, "the table", s.Run("devices"), "edge7", "edge8", "never-seen", "site=west")
	contains(t, "who cannot be reached", s.Fails(69, "connect", "edge7"), "device edge7 is not connected: it has not called home since the station started")
	contains(t, "who is not there", s.Fails(68, "connect", "edge9"), `there is no device "edge9"`)

	startManager(t, edge7).MustCallHome(s.addr, proto.WaitSSH)
	edge8.Call(s.addr)
	up := s.AwaitEvent("up", "edge7")
	s.AwaitEvent("up", "edge8")
	if up.Software == "" || !strings.HasPrefix(up.HostKey, "SHA256:") {
		t.Errorf("the event is %+v", up)
	}
	table := s.Run("devices")
	contains(t, "the table", table, "connected", "SSH-2.0-OpenSSH_", up.HostKey)
	if got := s.Run("__complete", "connect", ""); got != "edge7\nedge8\n" {
		t.Errorf("completion knows the devices %q", got)
	}
	s.fits("devices")

	// Five sessions with one device at the same time, and one with the other.
	var sessions []*netconf
	ids := make(map[string]bool)
	for range 5 {
		sessions = append(sessions, s.Connect("edge7"))
	}
	sessions = append(sessions, s.Connect("edge8"))
	for _, n := range sessions {
		n.Hello(server)
		ids[n.ID] = true
	}
	if d := s.AwaitState("edge7", nmsproto.Connected); len(ids) != 6 || d.Sessions != 5 {
		t.Errorf("sessions %v, edge7 has %d", ids, d.Sessions)
	}
	for _, n := range sessions {
		n.Ask("get-config", `<get-config><source><running/></source></get-config>`, "<data")
	}
	for _, n := range sessions {
		n.Close()
	}
	// The device's own socket, with a stock program at it.
	sandbox.Need(t, "socat")
	socket := filepath.Join(s.sockets, "edge7.sock")
	oneSession(t, converse(t, "socat", exec.Command("socat", "-", "UNIX-CONNECT:"+socket)), server)

	// The console, through the daemon.
	s.console(server, "<data", "--device", "edge7", "--get-config")
	contains(t, "the console without a device", s.Fails(68, "console", "--device", "edge9", "--get-config"), `there is no device "edge9"`)

	if err := os.Remove(filepath.Join(s.registry, "edge8.json")); err != nil {
		t.Fatal(err)
	}
	contains(t, "the end", s.AwaitEvent("down", "edge8").Cause, "the registry has no entry with its host key any more")
	s.AwaitState("edge7", nmsproto.Connected)
	s.Stop()
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("%s is there still: %v", socket, err)
	}
}

// What goes through is what was said, however much it is, and the end is the one
// that `ssh -s` has.
func TestConnectIsWhatSshIs(t *testing.T) {
	t.Parallel()
	n := newNMS(t)
	s := startStation(n)
	bulk := filepath.Join(s.dir, "bulk")
	if out, err := exec.Command("dd", "if=/dev/urandom", "of="+bulk, "bs=1M", "count=24").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, tt := range []struct {
		id, subsystem string
		input         string
		status        int
		same          bool // what comes back is the input
	}{
		{"echo", "/bin/cat", bulk, 0, true},
		{"status", "/bin/sh -c 'exit 3'", "/dev/null", 3, false},
		{"signal", "/bin/sh -c 'kill -9 $$'", "/dev/null", 255, false},
	} {
		t.Run(tt.id, func(t *testing.T) {
			command := writeFile(t, filepath.Join(tempDir(t), "subsystem"), "#!/bin/sh\nexec "+tt.subsystem+"\n", 0o755)
			d := newDevice(t, command)
			d.LetIn(n)
			s.Know(tt.id, d.hostKey, "")
			d.Call(s.addr)
			s.AwaitState(tt.id, nmsproto.Connected)
			in, err := os.Open(tt.input)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			cmd := s.Command("connect", tt.id)
			cmd.Stdin = in
			p := start(t, "connect", cmd)
			p.MustExit(tt.status)
			if tt.same && p.Stdout() != readFile(t, tt.input) {
				t.Errorf("%d bytes came back, and not those of the input", len(p.Stdout()))
			}
			n.Know(d)
			addr := freeAddr("127.0.0.1")
			in, err = os.Open(tt.input)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			ssh := n.SshCommand(addr, "-s", n.user+"@"+alias, "netconf")
			ssh.Stdin = in
			stock := start(t, "ssh", ssh)
			stock.AwaitListening(addr)
			d.Call(addr)
			stock.MustExit(tt.status)
		})
	}
}

// Clients without support for call home: stock ssh and an unchanged ncclient, at
// a stock sshd with the documentation's own stanza.
func TestStockClientsReachADeviceThroughSshd(t *testing.T) {
	t.Parallel()
	s, d, server := newServedSite(t, "edge7")
	s.Know("edge8", newKey(t, tempDir(t), "other"), "")
	d.Call(s.addr)
	s.AwaitState("edge7", nmsproto.Connected)
	server830 := s.StartSSH()

	oneSession(t, converse(t, "ssh", server830.Ssh(s.nms, "edge7", "-s", "netconf")), server)
	// Whatever else is asked for, it is NETCONF that comes, or nothing.
	oneSession(t, converse(t, "ssh", server830.Ssh(s.nms, "edge7", "id; touch "+s.dir+"/pwned")), server)
	if _, err := os.Lstat(s.dir + "/pwned"); err == nil {
		t.Error("a command was run")
	}
	// Of a subsystem's stderr sshd passes on nothing: the status reports it, and the
	// daemon's log.
	p := start(t, "ssh", server830.Ssh(s.nms, "edge8", "-s", "netconf"))
	p.MustExit(69)
	s.AwaitStderr("device edge8 is not connected: it has not called home since the station started")
	p = start(t, "ssh", server830.Ssh(s.nms, "edge8"))
	p.MustExit(69)
	contains(t, "ssh without a subsystem", p.Stderr(), "device edge8 is not connected: it has not called home since the station started")

	sandbox.Need(t, "/usr/bin/python3")
	host, port := splitAddr(t, server830.addr)
	for try := 1; ; try++ {
		p := start(t, "ncclient", exec.Command("/usr/bin/python3", "clients/ncclient_connect.py", host, port, "edge7", s.nms.key, server830.hostKey+".pub"))
		err := stepped(p, []string{"login: as edge7\n", "hello: session ", "get-config: ", "close-session: done\n"})
		if err == nil {
			break
		}
		if try == 3 || !server.Forgot() {
			t.Fatal(err)
		}
		p.end()
	}
}

// sshd knows the users of devices by passwd(5) alone: where the account is only a
// supplementary member of the daemon's group, they get that group as their own.
// Without it they are refused, and `devices accounts` says so.
func TestUsersOfDevicesAreInTheDaemonsGroup(t *testing.T) {
	t.Parallel()
	for file, lines := range map[string]string{
		"/etc/passwd": "clerk:NP:4840:4840::/:/bin/sh\nvisitor:NP:4841:4841::/:/bin/sh\n",
		"/etc/group":  "clerk:x:4840:\nvisitor:x:4841:\noperators:x:4842:root,clerk\n",
	} {
		if err := appendFile(file, lines); err != nil {
			t.Fatal(err)
		}
	}
	s, d, server := newServedSite(t, "edge77", "--group", "operators")
	d.Call(s.addr)
	s.AwaitState("edge77", nmsproto.Connected)
	server830 := s.StartSSHOf("clerk")
	oneSession(t, converse(t, "ssh", server830.Ssh(s.nms, "edge77", "-s", "netconf")), server)

	p := start(t, "callhome-nms", s.Command("devices", "accounts", "--account", "visitor", "--prefix", "guest+"))
	p.MustExit(0)
	contains(t, "devices accounts", p.Stdout(), "guest+edge77:NP:4841:4841:")
	contains(t, "devices accounts", p.Stderr(), `the account "visitor" is not in the group "operators": logins of these users will end with 77`)
	if err := appendFile("/etc/passwd", strings.ReplaceAll(p.Stdout(), "guest+", "guest-")); err != nil {
		t.Fatal(err)
	}
	p = start(t, "ssh", server830.Ssh(s.nms, "guest-edge77", "-s", "netconf"))
	p.MustExit(77)
}

// Who is not in the registry gets nowhere, is listed, and is let in once it is
// adopted.
func TestAnUnknownDeviceIsAdopted(t *testing.T) {
	t.Parallel()
	probe := newProbe(t)
	d, n := newSite(t, probe.Command)
	s := startStation(n, "--user", "nobody-there")
	call := d.Call(s.addr)
	e := s.AwaitEvent("unknown", "")
	call.Exit(patience)
	call.AwaitStderr("no device has this host key")
	contains(t, "the table", s.Run("devices"), "no devices", e.HostKey, "devices adopt HOST-KEY")
	contains(t, "a wrong id", s.Fails(64, "devices", "adopt", e.HostKey, "--id", "../x"), "device id")
	contains(t, "a wrong key", s.Fails(68, "devices", "adopt", "SHA256:none", "--id", "x"), "no unknown device has called with the host key SHA256:none")
	contains(t, "adopt", s.Run("devices", "adopt", e.HostKey, "--id", "edge7", "--user", netop, "--label", "site=west"), `registered "edge7"`, "it called once")
	contains(t, "the file", readFile(t, filepath.Join(s.registry, "edge7.json")), publicKey(t, d.hostKey), netop, "west")
	d.Call(s.addr)
	s.AwaitEvent("up", "edge7")
	contains(t, "a known key", s.Fails(64, "devices", "adopt", e.HostKey, "--id", "edge8"), "is that of device edge7 already")
	if list := s.List(); len(list.Unknown) != 0 {
		t.Errorf("unknown still: %+v", list.Unknown)
	}
	contains(t, "remove", s.Run("devices", "remove", "edge7"), `removed "edge7"`)
	contains(t, "the end", s.AwaitEvent("down", "edge7").Cause, "the registry has no entry with its host key any more")
	d.Call(s.addr)
	s.AwaitEvent("unknown", "")
	s.Run("devices", "forget", e.HostKey)
	contains(t, "forget once more", s.Fails(68, "devices", "forget", e.HostKey), "no unknown device has called")
	s.Know("edge7", d.hostKey, fmt.Sprintf(", \"user\": %q", netop))
	d.Call(s.addr)
	s.AwaitEvent("up", "edge7")
	contains(t, "revoke", s.Run("devices", "revoke", "edge7"), "revoked "+e.HostKey, `closed the connection of "edge7"`)
	contains(t, "the end", s.AwaitEvent("down", "edge7").Cause, "is revoked")
	contains(t, "the list", readFile(t, filepath.Join(s.registry, "revoked_keys")), publicKey(t, d.hostKey)+" edge7\n")
	backup := tempDir(t)
	contains(t, "export", s.Run("devices", "export", backup), "1 entries written")
	contains(t, "its list", readFile(t, filepath.Join(backup, "revoked_keys")), e.HostKey)
	d.Call(s.addr)
	contains(t, "the refusal", s.AwaitEvent("refused", "").Cause, "is revoked")
	contains(t, "unrevoke", s.Run("devices", "unrevoke", e.HostKey), e.HostKey+" is not revoked any more")
	writeFile(t, filepath.Join(backup, "gone.json"), strings.Replace(readFile(t, filepath.Join(backup, "edge7.json")), "edge7", "gone", 1), 0o600)
	contains(t, "export again", s.Run("devices", "export", "--prune", backup), "1 entries written", "1 file removed")
	if list := readFile(t, filepath.Join(backup, "revoked_keys")); list != "" {
		t.Errorf("the exported list of revoked keys is %q", list)
	}
	contains(t, "unrevoke once more", s.Fails(68, "devices", "unrevoke", e.HostKey), "no revoked key has the fingerprint")
	d.Call(s.addr)
	s.AwaitEvent("up", "edge7")
}

// A device that calls again while its old connection hangs gets in; one that
// calls while the old one lives is another with the same key, and does not.
func TestADeviceThatCallsAgain(t *testing.T) {
	t.Parallel()
	s, d, _ := newServedSite(t, "edge7", "--probe-time", "1s")
	first := d.Call(s.addr)
	was := s.AwaitEvent("up", "edge7")
	second := d.Call(s.addr)
	e := s.AwaitEvent("duplicate", "edge7")
	contains(t, "the event", e.Cause, was.Address, "that connection answers")
	second.Exit(patience)
	first.Running()
	contains(t, "the last error", s.AwaitState("edge7", nmsproto.Connected).LastError, "a duplicate from")

	for _, p := range first.Family() {
		if err := unix.Kill(p.pid, unix.SIGSTOP); err != nil && err != unix.ESRCH {
			t.Fatal(err)
		}
	}
	d.Call(s.addr)
	e = s.AwaitEvent("replaced", "edge7")
	contains(t, "the event", e.Cause, was.Address)
	if now := s.AwaitState("edge7", nmsproto.Connected); now.Address != e.Address || now.Calls != 2 {
		t.Errorf("it is %+v", now)
	}
	for _, p := range first.Family() {
		_ = unix.Kill(p.pid, unix.SIGCONT)
	}
}

// The cable is cut: no FIN, no answer.
func TestAVanishedDeviceIsNoticed(t *testing.T) {
	t.Parallel()
	l := newLink(t)
	probe := newProbe(t)
	d, n := newSite(t, probe.Command)
	d.netns, n.netns = l.device, l.nms
	s := startStation(n, "--keepalive", "1s", "--keepalive-time", "1s")
	s.Know("edge7", d.hostKey, "")
	d.Call(s.addr)
	s.AwaitEvent("up", "edge7")
	ip(t, "-n "+strings.TrimPrefix(l.device, "/run/netns/")+" link set "+l.port+" down")
	contains(t, "the end", s.AwaitEvent("down", "edge7").Cause, "no answer to a keepalive within 1s")
	s.AwaitState("edge7", nmsproto.Lost)
}

// Five hundred connect and say nothing, from the device's own address; it gets
// in all the same, and the silent ones are gone in time.
func TestSilentConnectionsBlockNoDevice(t *testing.T) {
	t.Parallel()
	probe := newProbe(t)
	d, n := newSite(t, probe.Command)
	s := startStation(n, "--login-time", "20s")
	s.Know("edge7", d.hostKey, "")
	var silent []net.Conn
	for range 500 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	d.KeepCalling(s.addr) // it is refused while they may yet send a version
	s.AwaitEvent("up", "edge7")
	// It had a place before the first of the silent ones was out of time: one was evicted.
	// The log may leave that line out, among those of the refused ones.
	if early := s.Stderr(); strings.Contains(early, "no further byte came within") {
		t.Errorf("the device was up only when silent connections had ended:\n%s", early)
	}
	for _, c := range silent {
		_ = c.SetReadDeadline(time.Now().Add(3 * patience))
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Fatalf("a silent connection has no end: %v", err)
		}
	}
	var st nmsproto.Status
	sandbox.Await(t, 2*patience, "no connection waiting", func() error {
		if err := s.ask(nmsproto.MethodStatus, nil, &st); err != nil || st.Unauthenticated != 0 {
			return fmt.Errorf("%+v, %w", st, errors.Join(err, errors.New("a connection waits")))
		}
		return nil
	})
	s.AwaitState("edge7", nmsproto.Connected)
}

// Each way not to get in has its own clear line, and hurts no other device.
func TestWhatServeRefusesItNames(t *testing.T) {
	t.Parallel()
	probe := newProbe(t)
	good, n := newSite(t, probe.Command)
	s := startStation(n, "--login-time", "5s")
	s.Know("good", good.hostKey, "")
	good.Call(s.addr)
	s.AwaitEvent("up", "good")
	ca := newKey(t, tempDir(t), "ca")
	certified := func(principal string, more ...string) *device {
		d := newDevice(t, probe.Command)
		d.LetIn(n)
		cert := certify(t, ca, d.hostKey, "edge", principal, true)
		if len(more) > 0 {
			keygen(t, append([]string{"-q", "-s", ca, "-I", "edge", "-h", "-n", principal}, append(more, d.hostKey+".pub")...)...)
		}
		d.options = append(d.options, "--sshd-option", "HostCertificate="+cert)
		return d
	}
	s.write("edge9", fmt.Sprintf(`{"id": "edge9", "cas": [%q], "principals": ["edge9.example"]}`, publicKey(t, ca)))
	s.awaitEntry("edge9")

	t.Run("a certificate gets in", func(t *testing.T) {
		certified("edge9.example").Call(s.addr)
		e := s.AwaitEvent("up", "edge9")
		if e.Certificate != "edge" {
			t.Errorf("the event is %+v", e)
		}
	})
	t.Run("a certificate for another", func(t *testing.T) {
		certified("edge10.example").Call(s.addr)
		contains(t, "the event", s.AwaitEvent("refused", "edge10").Cause, "no device has its principals edge10.example")
	})
	t.Run("an expired certificate", func(t *testing.T) {
		certified("edge9.example", "-V", "-2h:-1h").Call(s.addr)
		contains(t, "the event", s.AwaitEvent("refused", "expired").Cause, "cert has expired")
	})
	t.Run("our key is not let in", func(t *testing.T) {
		d := newDevice(t, probe.Command)
		s.Know("closed", d.hostKey, "")
		d.Call(s.addr)
		e := s.AwaitEvent("refused", "closed")
		contains(t, "the event", e.Cause, "login failed: unable to authenticate")
		contains(t, "the table", s.Run("devices"), "login failed")
	})
	t.Run("the key changed", func(t *testing.T) {
		d := newDevice(t, probe.Command)
		s.Know("changed", newKey(t, tempDir(t), "former"), "")
		d.Call(s.addr)
		s.AwaitEvent("unknown", "")
		s.AwaitState("changed", nmsproto.NeverSeen)
	})
	t.Run("not SSH", func(t *testing.T) {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		c.(*net.TCPConn).CloseWrite()
		contains(t, "the event", s.AwaitEvent("refused", "GET / HTTP").Cause, "no SSH version")
	})
	t.Run("a file half written", func(t *testing.T) {
		whole := readFile(t, filepath.Join(s.registry, "good.json"))
		s.write("good", whole[:len(whole)/2])
		e := s.AwaitEvent("registry", "good.json")
		contains(t, "the event", e.Cause, "good.json: line 3:")
		contains(t, "the table", s.Run("devices"), "files not in force:\ngood.json: line 3:")
		s.AwaitState("good", nmsproto.Connected)
		s.write("good", whole)
	})
	t.Run("revoked", func(t *testing.T) {
		writeFile(t, filepath.Join(s.registry, "revoked_keys"), publicKey(t, ca)+"\n", 0o644)
		contains(t, "the end", s.AwaitEvent("down", "edge9").Cause, "its CA is revoked")
	})
	t.Run("the port is taken", func(t *testing.T) {
		dir := tempDir(t)
		p := start(t, "callhome-nms", exec.Command(binDir+"/callhome-nms", "serve", "--listen", s.addr, "--registry", dir, "--socket", filepath.Join(dir, "s"), "--device-sockets", ""))
		p.MustExit(69)
		contains(t, "it says", p.Stderr(), "listening on "+s.addr+": another program has the port")
	})
	t.Run("the socket is taken", func(t *testing.T) {
		p := start(t, "callhome-nms", exec.Command(binDir+"/callhome-nms", "serve", "--listen", "127.0.0.1:0", "--registry", s.registry, "--socket", s.socket, "--device-sockets", ""))
		p.MustExit(69)
		contains(t, "it says", p.Stderr(), "another daemon holds it")
	})
	if good, err := s.device("good"); err != nil || good.State != nmsproto.Connected || good.Calls != 1 {
		t.Errorf("the good device is %+v, %v", good, err)
	}
}

// A call home without our programs: socat and sshd -i.
func TestACallHomeBySocat(t *testing.T) {
	t.Parallel()
	sandbox.Need(t, "socat")
	s, d, server := newServedSite(t, "edge7")
	// netconfd wants to see a connection to port 830, so that is where it comes from.
	config := writeFile(t, filepath.Join(tempDir(t), "sshd_config"), fmt.Sprintf(
		"HostKey %s\nAuthorizedKeysFile %s\nUsePAM no\nStrictModes no\nSubsystem netconf %s\n", d.hostKey, d.authorizedKeys, server.Subsystem()), 0o644)
	start(t, "socat", exec.Command("socat", "TCP:"+s.addr+",bind=127.0.0.5:830", "EXEC:/usr/sbin/sshd -i -e -f "+config+",nofork"))
	s.AwaitEvent("up", "edge7")
	oneSession(t, s.Connect("edge7"), server)
}

// systemd opens the sockets (sd_listen_fds(3)): calls that come while the daemon
// is not there wait for it.
func TestServeTakesSystemdsSockets(t *testing.T) {
	t.Parallel()
	probe := newProbe(t)
	d, n := newSite(t, probe.Command)
	dir := tempDir(t)
	calls, err := net.Listen("tcp", freeAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer calls.Close()
	control, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	call := d.Call(calls.Addr().String())
	writeFile(t, filepath.Join(dir, "edge7.json"), fmt.Sprintf(`{"id": "edge7", "host-keys": [%q]}`, publicKey(t, d.hostKey)), 0o644)
	var passed []*os.File
	for _, l := range []interface{ File() (*os.File, error) }{calls.(*net.TCPListener), control} {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		passed = append(passed, f)
	}
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=2 exec "$@"`, "sh", binDir+"/callhome-nms", "serve",
		"--registry", dir, "--device-sockets", "", "--user", n.user, "--key-file", n.key, "--group", "root")
	cmd.ExtraFiles = passed
	p := start(t, "callhome-nms", cmd)
	p.AwaitStderr("up: device=edge7")
	call.Running()
	ask := exec.Command(binDir+"/callhome-nms", "status", "--socket", filepath.Join(dir, "s"))
	contains(t, "the status", readToTheEnd(t, ask), "listening on "+calls.Addr().String(), "1 device connected")
	// A drain cannot close what systemd has open, so the station refuses each call.
	contains(t, "drain", readToTheEnd(t, exec.Command(binDir+"/callhome-nms", "drain", "--socket", filepath.Join(dir, "s"))), "no device is connected any more")
	refused, err := net.Dial("tcp", calls.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer refused.Close()
	answer := make([]byte, 1000)
	for n := 0; !strings.Contains(string(answer[:n]), "the station is being drained"); {
		more, err := refused.Read(answer[n:])
		if err != nil {
			t.Fatalf("a call during a drain got %q, %v", answer[:n], err)
		}
		n += more
	}
	p.Signal(unix.SIGTERM)
	p.MustExit(0)
	if _, err := os.Lstat(filepath.Join(dir, "s")); err != nil {
		t.Errorf("systemd's socket is gone: %v", err)
	}
}

// A load balancer's header names the caller.
func TestServeBehindALoadBalancer(t *testing.T) {
	t.Parallel()
	probe := newProbe(t)
	d, n := newSite(t, probe.Command)
	s := startStation(n, "--proxy-from", "127.0.0.0/8")
	s.Know("edge7", d.hostKey, "")
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "PROXY TCP4 192.0.2.77 192.0.2.1 4711 4334\r\n"); err != nil {
		t.Fatal(err)
	}
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	config := writeFile(t, filepath.Join(tempDir(t), "sshd_config"), fmt.Sprintf(
		"HostKey %s\nAuthorizedKeysFile %s\nUsePAM no\nStrictModes no\nSubsystem netconf %s\n", d.hostKey, d.authorizedKeys, probe.Command), 0o644)
	sshd := exec.Command("/usr/sbin/sshd", "-i", "-e", "-f", config)
	sshd.Stdin, sshd.Stdout = f, f
	start(t, "sshd", sshd)
	if e := s.AwaitEvent("up", "edge7"); e.Address != "192.0.2.77:4711" {
		t.Errorf("the event is %+v", e)
	}
	// Without the header no connection is accepted.
	d.Call(s.addr)
	contains(t, "the event", s.AwaitEvent("refused", "PROXY").Cause, "no PROXY header")
}

// The hook gets each event, and Prometheus the figures.
func TestServePublishesToHookAndPrometheus(t *testing.T) {
	t.Parallel()
	probe := newProbe(t)
	d, n := newSite(t, probe.Command)
	dir := tempDir(t)
	output := filepath.Join(dir, "output")
	hook := writeFile(t, filepath.Join(dir, "hook"), "#!/bin/sh\n{ echo \"$CALLHOME_EVENT\"; cat; } >> "+output+"\n", 0o755)
	metrics := freeAddr("127.0.0.1")
	s := startStation(n, "--hook", hook, "--hook-event", "up", "--hook-event", "down", "--metrics", metrics)
	s.Know("edge7", d.hostKey, "")
	call := d.Call(s.addr)
	s.AwaitEvent("up", "edge7")
	awaitFile(t, output, "up\n{\"time\":")
	r, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "the metrics", string(text), `callhome_nms_devices{state="connected"} 1`, `callhome_nms_calls_finished_total{outcome="logged-in"} 1`,
		`callhome_nms_login_duration_seconds_count 1`, `callhome_nms_events_total{event="up"} 1`)
	call.Signal(unix.SIGTERM)
	s.AwaitEvent("down", "edge7")
	awaitFile(t, output, "down\n{\"time\":")
	if strings.Contains(string(text), "edge7") {
		t.Error("a device's name is a label")
	}
}

// A station without descriptors left holds what it can, and its commands work.
func TestTheLastDescriptorsAreForCommands(t *testing.T) {
	t.Parallel()
	const devices, limit, kept = 120, 160, 64 // more connections than descriptors, without a socket for each
	n := newNMS(t)
	s := startStation(n)
	s.Stop()
	standIns := newStandIns(t, devices, n)
	for i, key := range standIns.keys {
		s.write(fmt.Sprintf("stand%d", i), fmt.Sprintf(`{"id": "stand%d", "host-keys": [%q]}`, i, key))
	}
	s.limit = limit
	s.begin()
	contains(t, "the log", s.Stderr(), "too few file descriptors for all registered devices", "limit=160", "needed=1328")
	standIns.KeepCalling(s.addr)
	contains(t, "the refusal", s.AwaitEvent("refused", "no file descriptor").Cause, "raise the limit")
	connected := ""
	sandbox.Await(t, patience, "as many devices as there are descriptors for", func() error {
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.pid))
		held := 0
		for _, d := range s.List().Devices {
			if d.State == nmsproto.Connected {
				held++
				connected = d.ID
			}
		}
		if err != nil || len(files) < limit-kept-3 || len(files) > limit-kept+10 || held < 30 {
			return fmt.Errorf("%d devices with %d descriptors, %w", held, len(files), err)
		}
		return nil
	})
	contains(t, "the status", s.Run("status"), "devices connected")
	contains(t, "a session", s.Fails(69, "connect", connected), "no file descriptor left for a session")
	s.Stop()
	contains(t, "the log", s.Stderr(), "stopped")
}

// Devices that come all at once, and go with the station: the followers get the event of
// each of them, however long a hook takes.
func TestAStormLosesNoEvent(t *testing.T) {
	const devices = 1500 // CALLHOME_STORM has another number
	many := devices
	if n, err := strconv.Atoi(os.Getenv("CALLHOME_STORM")); err == nil {
		many = n
	}
	n := newNMS(t)
	dir := tempDir(t)
	once, stream := filepath.Join(dir, "once"), filepath.Join(dir, "stream")
	hook := writeFile(t, filepath.Join(dir, "hook"), "#!/bin/sh\nexec cat >> "+once+"\n", 0o755)
	// The program is killed in the middle: the next one has the rest.
	program := writeFile(t, filepath.Join(dir, "program"), `#!/bin/sh
if ! [ -e `+stream+` ]; then
	head -n 40 > `+stream+`
	exit 1
fi
exec cat >> `+stream+"\n", 0o755)
	s := startStation(n, "--hook", hook, "--hook-event", "up", "--hook-stream", program)
	standIns := newStandIns(t, many, n)
	for i, key := range standIns.keys {
		s.write(fmt.Sprintf("stand%d", i), fmt.Sprintf(`{"id": "stand%d", "host-keys": [%q]}`, i, key))
	}
	s.awaitEntry(fmt.Sprintf("stand%d", many-1))
	follow := start(t, "events --follow", s.Command("events", "--follow", "--json"))
	standIns.KeepCalling(s.addr)
	soFar := func(path string) func() string {
		return func() string {
			text, _ := os.ReadFile(path) // it may not be there yet
			return string(text)
		}
	}
	counts := func(text string, event string) (n int) {
		seen := make(map[string]bool)
		for _, line := range strings.Split(text, "\n") {
			var e nmsproto.Event
			if json.Unmarshal([]byte(line), &e) == nil && e.Event == event && !seen[e.Device] {
				seen[e.Device] = true
				n++
			}
		}
		return n
	}
	for name, text := range map[string]func() string{
		"the hook": soFar(once), "the stream": soFar(stream), "events --follow": follow.Stdout,
	} {
		sandbox.Await(t, 6*patience, name, func() error {
			if got := counts(text(), nmsproto.EventUp); got != many {
				return fmt.Errorf("%d devices of %d are up", got, many)
			}
			return nil
		})
	}
	if strings.Contains(follow.Stdout(), nmsproto.EventResync) {
		t.Error("events --follow fell behind")
	}
	s.Stop()
	if got := counts(readFile(t, stream), nmsproto.EventDown); got != many {
		t.Errorf("the stream has %d of %d ends", got, many)
	}
}

// Fifty real devices and five hundred that stand in for some: all are held at
// once; the station is restarted, and all are back.
func TestServeRestartedHasAllBack(t *testing.T) {
	const devices, stand = 50, 500
	probe := newProbe(t)
	n := newNMS(t)
	s := startStation(n)
	for i := range devices {
		d := newDevice(t, probe.Command)
		d.LetIn(n)
		s.write(fmt.Sprintf("real%d", i), fmt.Sprintf(`{"id": "real%d", "host-keys": [%q]}`, i, publicKey(t, d.hostKey)))
		d.KeepCalling(s.addr)
	}
	standIns := newStandIns(t, stand, n)
	for i, key := range standIns.keys {
		s.write(fmt.Sprintf("stand%d", i), fmt.Sprintf(`{"id": "stand%d", "host-keys": [%q]}`, i, key))
	}
	standIns.KeepCalling(s.addr)
	all := func() error {
		var st nmsproto.Status
		if err := s.ask(nmsproto.MethodStatus, nil, &st); err != nil {
			return err
		}
		if st.Devices[nmsproto.Connected] != devices+stand {
			return fmt.Errorf("%+v", st)
		}
		return nil
	}
	sandbox.Await(t, 6*patience, "all devices", all)
	s.Stop()
	s.begin()
	sandbox.Await(t, 6*patience, "all devices again", all)
	// And they can be used.
	c := s.Connect("stand7")
	c.in.Close()
	c.MustExit(0)
	d, err := s.device("real7")
	if err != nil || d.State != nmsproto.Connected {
		t.Errorf("%+v, %v", d, err)
	}
}
