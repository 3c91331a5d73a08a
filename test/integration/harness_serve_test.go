//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"callhome/test/sandbox"

	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"

	"golang.org/x/sys/unix"
)

// served is callhome-nms serve, with a registry of its own, and its control
// socket by which a story speaks to it.
type served struct {
	*process
	t        *testing.T
	nms      *nms // whose key it logs in with
	dir      string
	registry string
	socket   string
	sockets  string
	addr     string
	args     []string
	limit    int // of file descriptors; 0 for the story's own
	client   *control.Client

	mu   sync.Mutex
	seen []nmsproto.Event // guarded by mu; those that AwaitEvent has not taken
}

// startStation runs the daemon for n, which logs in with its key.
func startStation(n *nms, args ...string) *served {
	n.t.Helper()
	dir := tempDir(n.t)
	s := &served{t: n.t, nms: n, dir: dir, registry: filepath.Join(dir, "devices"), socket: filepath.Join(dir, "s"), sockets: filepath.Join(dir, "d"), args: args}
	if err := os.Mkdir(s.registry, 0o755); err != nil {
		n.t.Fatal(err)
	}
	s.addr = freeAddr("127.0.0.1")
	if n.netns != "" {
		s.addr = freeAddr(nmsV4)
	}
	s.begin()
	return s
}

func (s *served) begin() {
	s.t.Helper()
	argv := append([]string{binDir + "/callhome-nms", "serve", "--listen", s.addr, "--registry", s.registry, "--socket", s.socket, "--device-sockets", s.sockets,
		"--group", "root", "--user", s.nms.user, "--key-file", s.nms.key, "--log-level", "debug"}, s.args...)
	if s.limit > 0 {
		argv = append([]string{"prlimit", fmt.Sprintf("--nofile=%d", s.limit)}, argv...)
	}
	s.process = start(s.t, "callhome-nms", s.nms.here(argv...))
	sandbox.Await(s.t, patience, "callhome-nms answering", func() (err error) {
		if s.over(0) {
			s.t.Fatalf("callhome-nms has ended: %v\n%s", s.process.state, s.Stderr())
		}
		s.client, err = control.Dial(s.socket)
		return err
	})
	client := s.client
	s.t.Cleanup(func() { client.Close() })
	s.follow()
}

// follow takes in the daemon's events, by a connection of their own: who does
// not read them gets no answers either.
func (s *served) follow() {
	s.t.Helper()
	c, err := control.Dial(s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	var last nmsproto.EventList
	if err := c.Call(context.Background(), nmsproto.MethodSubscribe, nil, &last); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.seen = last.Events
	s.mu.Unlock()
	go func() {
		for e := range c.Events() {
			s.mu.Lock()
			s.seen = append(s.seen, e)
			s.mu.Unlock()
		}
	}()
}

// Stop ends the daemon as systemd does.
func (s *served) Stop() {
	s.t.Helper()
	s.client.Close()
	s.Signal(unix.SIGTERM)
	s.MustExit(0)
}

func (s *served) ask(method string, params, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	return s.client.Call(ctx, method, params, result)
}

// Know writes a device's entry, with further members.
func (s *served) Know(id, hostKey, more string) {
	s.t.Helper()
	s.write(id, fmt.Sprintf("{\n\t\"id\": %q,\n\t\"host-keys\": [%q]%s\n}\n", id, publicKey(s.t, hostKey), more))
	s.awaitEntry(id)
}

// write puts a file into the registry as an editor does, whole.
func (s *served) write(id, text string) {
	s.t.Helper()
	writeFile(s.t, filepath.Join(s.registry, ".new"), text, 0o644)
	if err := os.Rename(filepath.Join(s.registry, ".new"), filepath.Join(s.registry, id+".json")); err != nil {
		s.t.Fatal(err)
	}
}

func (s *served) awaitEntry(id string) {
	s.t.Helper()
	sandbox.Await(s.t, patience, "the entry of "+id, func() error {
		_, err := s.device(id)
		return err
	})
}

func (s *served) List() (l nmsproto.DeviceList) {
	s.t.Helper()
	if err := s.ask(nmsproto.MethodDevices, nil, &l); err != nil {
		s.t.Fatal(err)
	}
	return l
}

func (s *served) device(id string) (nmsproto.Device, error) {
	for _, d := range s.List().Devices {
		if d.ID == id {
			return d, nil
		}
	}
	return nmsproto.Device{}, fmt.Errorf("there is no device %s", id)
}

// AwaitState waits until the device is there, or not any more.
func (s *served) AwaitState(id string, want nmsproto.State) (d nmsproto.Device) {
	s.t.Helper()
	sandbox.Await(s.t, patience, id+" "+string(want), func() (err error) {
		if d, err = s.device(id); err == nil && d.State != want {
			err = fmt.Errorf("it is %+v", d)
		}
		return err
	})
	return d
}

// AwaitEvent waits for an event of that kind that contains text, and returns
// it. Each event is found once.
func (s *served) AwaitEvent(kind, part string) (found nmsproto.Event) {
	s.t.Helper()
	sandbox.Await(s.t, patience, fmt.Sprintf("an event %s with %q", kind, part), func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, e := range s.seen {
			text, _ := json.Marshal(e)
			if e.Event == kind && strings.Contains(string(text), part) {
				found = e
				s.seen = slices.Delete(s.seen, i, i+1)
				return nil
			}
		}
		return fmt.Errorf("only %+v", s.seen)
	})
	return found
}

// Command is callhome-nms with the daemon's socket.
func (s *served) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(binDir+"/callhome-nms", args...)
	cmd.Env = []string{"CALLHOME_NMS_SOCKET=" + s.socket, "PATH=/usr/bin:/bin"}
	return cmd
}

// Run runs a command to its end and returns what it said; it has to go well.
func (s *served) Run(args ...string) string {
	s.t.Helper()
	return readToTheEnd(s.t, s.Command(args...))
}

// fits runs a command on a terminal of 80 columns, which has a line for each device and
// no more, and none that is longer.
func (s *served) fits(args ...string) {
	s.t.Helper()
	terminal, screen := newTerminal(s.t)
	if err := unix.IoctlSetWinsize(int(screen.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		s.t.Fatal(err)
	}
	cmd := s.Command(args...)
	cmd.Stdout = terminal
	start(s.t, "callhome-nms", cmd).MustExit(0)
	if err := screen.await("edge8"); err != nil {
		s.t.Fatal(err)
	}
	if err := screen.await("\n"); err != nil {
		s.t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(screen.all), "\n")
	if len(lines) != 3 {
		s.t.Errorf("%v prints\n%s", args, screen.all)
	}
	for _, line := range lines {
		if n := len(strings.TrimRight(line, "\r")); n > 80 || strings.Contains(line, "\x1b") {
			s.t.Errorf("%v prints a line of %d: %q", args, n, line)
		}
	}
}

// console runs our console until netconfd has not forgotten its request.
func (s *served) console(server *netconfd, want string, args ...string) {
	s.t.Helper()
	for try := 1; ; try++ {
		p := start(s.t, "console", s.Command(append([]string{"console", "--timeout", consoleTimeout}, args...)...))
		err := ended(p, want)
		if err == nil {
			return
		}
		if try == 3 || !server.Forgot() {
			s.t.Fatal(err)
		}
		p.end()
	}
}

// Fails runs a command that has to end with that status.
func (s *served) Fails(status int, args ...string) string {
	s.t.Helper()
	p := start(s.t, "callhome-nms", s.Command(args...))
	p.MustExit(status)
	return p.Stderr()
}

// Connect opens a NETCONF session by callhome-nms connect.
func (s *served) Connect(id string) *netconf {
	s.t.Helper()
	return converse(s.t, "connect", s.Command("connect", id))
}

// operatorsSSH is a stock sshd on the station where users such as edge7
// are let through to devices.
type operatorsSSH struct {
	*process
	addr    string
	hostKey string
}

// StartSSH runs sshd with the packages' configuration, and makes the accounts for the
// devices that there are. systemd would give it a user and an /etc/passwd of its own
// (TestQuickStart).
func (s *served) StartSSH() *operatorsSSH {
	s.t.Helper()
	return s.StartSSHOf("root")
}

// StartSSHOf is StartSSH with the uid of another account.
func (s *served) StartSSHOf(account string) *operatorsSSH {
	s.t.Helper()
	sandbox.Need(s.t, "/usr/sbin/sshd")
	dir := tempDir(s.t)
	d := &operatorsSSH{addr: freeAddr("127.0.0.1"), hostKey: newKey(s.t, dir, "hostkey")}
	file := filepath.Join(dir, "passwd")
	if out := s.Run("devices", "accounts", "--account", account, "--output", file); out != "" {
		s.t.Errorf("with --output it prints %q", out)
	}
	if err := appendFile("/etc/passwd", readFile(s.t, file)); err != nil {
		s.t.Fatal(err)
	}
	keys := writeFile(s.t, filepath.Join(dir, "operators"), publicKey(s.t, s.nms.key)+"\n", 0o644)
	_, port := splitAddr(s.t, d.addr)
	stanza := readFile(s.t, "../../packaging/nms-sshd_config")
	for from, to := range map[string]string{
		"/etc/callhome-nms/operators": keys,
		"/usr/bin/callhome-nms":       "/usr/bin/env CALLHOME_NMS_SOCKET=" + s.socket + " " + binDir + "/callhome-nms",
	} {
		if !strings.Contains(stanza, from) {
			s.t.Fatalf("the configuration has no %s:\n%s", from, stanza)
		}
		stanza = strings.ReplaceAll(stanza, from, to)
	}
	config := writeFile(s.t, filepath.Join(dir, "sshd_config"), fmt.Sprintf(
		"ListenAddress 127.0.0.1\nPort %s\nHostKey %s\nPidFile none\nStrictModes no\nLogLevel VERBOSE\nPermitRootLogin prohibit-password\n%s\n", port, d.hostKey, stanza), 0o644)
	d.process = start(s.t, "sshd", exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", config))
	d.AwaitListening(d.addr)
	return d
}

// Ssh is stock ssh to a device through that sshd.
func (d *operatorsSSH) Ssh(n *nms, id string, args ...string) *exec.Cmd {
	d.t.Helper()
	host, port := splitAddr(d.t, d.addr)
	known := writeFile(d.t, filepath.Join(tempDir(d.t), "known_hosts"), fmt.Sprintf("[%s]:%s %s\n", host, port, publicKey(d.t, d.hostKey)), 0o600)
	argv := []string{"-F", "none", "-p", port, "-o", "UserKnownHostsFile=" + known, "-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes",
		"-o", "IdentityFile=" + n.key, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes", id + "@" + host}
	return exec.Command("/usr/bin/ssh", append(argv, args...)...)
}

// KeepCalling has a device call without end: whenever its connection is over it calls
// again, as a persistent call home does.
func (d *device) KeepCalling(addr string) *process {
	d.t.Helper()
	host, port := splitAddr(d.t, addr)
	one := d.Command([]string{host, port})
	script := `while :; do "$@"; sleep 0.2; done`
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, one.Args...)...)
	cmd.Env, cmd.Dir = one.Env, one.Dir
	return start(d.t, "calls", cmd)
}
