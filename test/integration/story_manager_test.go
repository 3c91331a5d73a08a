//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callhome/test/sandbox"

	"callhome/internal/device/api"
	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// manager is callhome-mgr on a device, and the API by which a story speaks to
// it.
type manager struct {
	*process
	device *device
	socket string
	state  string // directory of the sessions' files
	args   []string
	client *api.Client
}

// startManager runs the daemon with the device's options for its settings.
func startManager(t *testing.T, d *device, args ...string) *manager {
	t.Helper()
	dir := tempDir(t)
	m := &manager{device: d, socket: filepath.Join(dir, "mgr.sock"), state: filepath.Join(dir, "sessions"), args: args}
	m.begin()
	return m
}

// begin starts the daemon, or the one after it.
func (m *manager) begin() {
	t := m.device.t
	t.Helper()
	argv := append([]string{"--socket", m.socket, "run", "--state-dir", m.state, "--state-size", "0", "--log-level", "debug"}, m.args...)
	m.process = start(t, "callhome-mgr", m.device.Manager(argv...))
	m.connect()
}

func (m *manager) connect() {
	t := m.device.t
	t.Helper()
	sandbox.Await(t, patience, "callhome-mgr answering", func() (err error) {
		if m.over(0) {
			t.Fatalf("callhome-mgr has ended: %v", m.process.state)
		}
		if m.client, err = api.Dial(m.socket); err != nil {
			return err
		}
		if err = m.ask(proto.MethodWaitStart, nil, nil); err != nil {
			m.client.Close() // a former manager's child had the listener still
		}
		return err
	})
	client := m.client
	t.Cleanup(func() { client.Close() })
}

// must calls a method and fails the story if the manager does.
func (m *manager) must(method string, params, result any) {
	m.device.t.Helper()
	if err := m.ask(method, params, result); err != nil {
		m.device.t.Fatalf("%s: %v", method, err)
	}
}

func (m *manager) ask(method string, params, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	return m.client.Call(ctx, method, params, result)
}

// CallHome asks for a call home to addr and waits as far as wait says.
func (m *manager) CallHome(addr string, wait proto.Wait) (proto.SessionInfo, error) {
	m.device.t.Helper()
	host, port := splitAddr(m.device.t, addr)
	var n uint16
	if _, err := fmt.Sscan(port, &n); err != nil {
		m.device.t.Fatal(err)
	}
	var s proto.SessionInfo
	err := m.ask(proto.MethodCallHome, proto.CallParams{Host: host, Port: n, Wait: wait}, &s)
	return s, err
}

// MustCallHome is CallHome that has to succeed.
func (m *manager) MustCallHome(addr string, wait proto.Wait) proto.SessionInfo {
	m.device.t.Helper()
	s, err := m.CallHome(addr, wait)
	if err != nil {
		m.device.t.Fatal(err)
	}
	return s
}

// Sessions returns those that have not ended.
func (m *manager) Sessions() []proto.SessionInfo {
	m.device.t.Helper()
	var l proto.SessionList
	m.must(proto.MethodUserSessions, nil, &l)
	return l.Sessions
}

// AwaitNone waits until no session is left and returns the last that ended.
func (m *manager) AwaitNone() proto.SessionInfo {
	m.device.t.Helper()
	sandbox.Await(m.device.t, patience, "the end of all sessions", func() error {
		if s := m.Sessions(); len(s) > 0 {
			return fmt.Errorf("%d left, one is %+v", len(s), s[0])
		}
		return nil
	})
	var st proto.Status
	m.must(proto.MethodStatus, nil, &st)
	if len(st.Recent) == 0 {
		m.device.t.Fatal("the manager remembers no session")
	}
	return st.Recent[0]
}

// Kill9 kills the daemon, and nothing but the daemon.
func (m *manager) Kill9() {
	m.device.t.Helper()
	m.client.Close()
	m.Signal(unix.SIGKILL)
	m.Exit(patience)
}

// The way that a NETCONF server goes: it asks, and the station holds a session
// with the device's server. The daemon knows each step and has no part in it.
func TestAManagersSessionIsAnOrdinaryOne(t *testing.T) {
	t.Parallel()
	server := startNetconfd(t)
	device, nms := newSite(t, server.Subsystem())
	device.options = append(device.options, "--ssh-connection-port", yumaPort)
	m := startManager(t, device)
	addr := freeAddr("127.0.0.1")
	station := nms.Netconf(addr)
	called := m.MustCallHome(addr, proto.WaitNetconf)
	if called.State != proto.StateServing || called.User != netop || called.Method != "publickey" || !strings.HasPrefix(called.Key, "SHA256:") {
		t.Errorf("the session is %+v", called)
	}
	family := append([]proc{}, mustLookup(t, called.PID))
	for _, p := range processes() {
		if p.parent == called.PID {
			family = append(family, p)
		}
	}
	station.Hello(server)
	now := m.Sessions()
	if len(now) != 1 || now[0].Session != called.Session || now[0].Stats == nil || now[0].Stats.BytesReceived == 0 {
		t.Errorf("the sessions are %+v", now)
	}
	station.Close()
	last := m.AwaitNone()
	if last.Stage != proto.StageSession || !strings.HasPrefix(last.Cause, "the NETCONF client ended it") {
		t.Errorf("it ended at %s because %q", last.Stage, last.Cause)
	}
	AwaitGone(t, patience, family)
}

func mustLookup(t *testing.T, pid int) proc {
	t.Helper()
	p, ok := lookup(pid)
	if !ok {
		t.Fatalf("there is no process %d", pid)
	}
	return p
}

// Whatever a station does, the caller learns which stage failed and why.
func TestAFailureNamesItsStage(t *testing.T) {
	t.Parallel()
	refused := freeAddr("127.0.0.1")
	for _, tt := range []struct {
		name   string
		nms    func(t *testing.T, d *device, addr string) // nil: the port is closed
		wait   proto.Wait
		code   proto.Code
		stage  proto.Stage
		reason string
	}{
		{"refused port", nil, proto.WaitTCP, proto.CodeUnavailable, proto.StageTCP, "connection refused"},
		{"closed before the banner", func(t *testing.T, d *device, addr string) {
			l := listen(t, addr)
			go func() {
				if c, err := l.Listener.Accept(); err == nil {
					c.Close()
				}
			}()
		}, proto.WaitSSH, proto.CodeSSH, proto.StageSSH, "c"},
		{"not SSH", func(t *testing.T, d *device, addr string) {
			l := listen(t, addr)
			go func() {
				if c, err := l.Listener.Accept(); err == nil {
					_, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
					t.Cleanup(func() { c.Close() })
				}
			}()
		}, proto.WaitSSH, proto.CodeSSH, proto.StageSSH, `does not speak ssh: client sent invalid protocol identifier "GET / HTTP/1.1"`},
		{"wrong host key at the station", func(t *testing.T, d *device, addr string) {
			n := newNMS(t)
			d.LetIn(n)
			n.Know(newDevice(t, "/bin/cat"))
			n.startNetconf(addr).AwaitListening(addr)
		}, proto.WaitSSH, proto.CodeSSH, proto.StageSSH, "client closed"},
		{"wrong user key", func(t *testing.T, d *device, addr string) {
			n := newNMS(t)
			n.Know(d)
			n.startNetconf(addr).AwaitListening(addr)
		}, proto.WaitSSH, proto.CodeAuth, proto.StageAuth, "Failed publickey"},
		{"no such subsystem", func(t *testing.T, d *device, addr string) {
			n := newNMS(t)
			n.Know(d)
			d.LetIn(n)
			// The connection outlives the refusal: one that ends 2 ms after the login
			// can be gone before the login is proven.
			n.Ssh(addr, []string{"-s", "-o", "ControlMaster=yes", "-o", "ControlPath=" + n.dir + "/m", "-o", "ControlPersist=1"}, "nonesuch")
		}, proto.WaitNetconf, proto.CodeSubsystem, proto.StageSubsystem, "subsystem not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDevice(t, "/bin/cat")
			addr := refused
			if tt.nms != nil {
				addr = freeAddr("127.0.0.1")
				tt.nms(t, d, addr)
			}
			m := startManager(t, d)
			_, err := m.CallHome(addr, tt.wait)
			var e *proto.Error
			if !errors.As(err, &e) {
				t.Fatalf("the call ended with %v", err)
			}
			if e.Code != tt.code || e.Data.Stage != tt.stage || !strings.Contains(e.Data.Reason, tt.reason) || e.Data.Name != tt.code.String() {
				t.Errorf("%v at %s because %q (%s), expected %v at %s because %q", e.Code, e.Data.Stage, e.Data.Reason, e.Message, tt.code, tt.stage, tt.reason)
			}
			m.AwaitNone()
		})
	}
}

// A session that is ended takes everything with it, also a subsystem that
// neither reads nor listens to SIGTERM.
func TestKillEndsTheWholeSession(t *testing.T) {
	t.Parallel()
	stubborn := writeFile(t, filepath.Join(tempDir(t), "stubborn"), "#!/bin/sh\ntrap '' TERM HUP\nwhile :; do sleep 1000 & wait; done\n", 0o755)
	d, nms := newSite(t, stubborn)
	m := startManager(t, d)
	addr := freeAddr("127.0.0.1")
	station := nms.Netconf(addr)
	called := m.MustCallHome(addr, proto.WaitNetconf)
	var all []proc
	sandbox.Await(t, patience, "the subsystem's own child", func() error {
		all = []proc{mustLookup(t, called.PID)}
		for i := 0; i < len(all); i++ {
			for _, p := range processes() {
				if p.parent == all[i].pid {
					all = append(all, p)
				}
			}
		}
		if last := cmdline(all[len(all)-1].pid); !strings.HasPrefix(last, "sleep") {
			return fmt.Errorf("the last one is %q", last)
		}
		return nil
	})
	var ended proto.SessionInfo
	m.must(proto.MethodKillUserSession, proto.SessionParams{Session: called.Session}, &ended)
	if !strings.HasPrefix(ended.Cause, "ended by uid 0") {
		t.Errorf("it ended because %q", ended.Cause)
	}
	AwaitGone(t, patience, all)
	if !station.over(patience) {
		t.Error("the station still has its connection")
	}
	var e *proto.Error
	if err := m.ask(proto.MethodKillUserSession, proto.SessionParams{Session: called.Session}, nil); !errors.As(err, &e) || e.Code != proto.CodeNoExists {
		t.Errorf("ending it once more: %v", err)
	}
}

// A station that accepts and stays silent makes no other caller wait.
func TestASilentStationDelaysNoOtherCall(t *testing.T) {
	t.Parallel()
	d, nms := newSite(t, "/bin/cat")
	m := startManager(t, d)
	silent := listen(t, "127.0.0.1:0")
	for range 20 {
		m.MustCallHome(silent.Addr(), proto.WaitTCP)
	}
	begin := time.Now()
	var st proto.Status
	m.must(proto.MethodStatus, nil, &st)
	m.must(proto.MethodReloadConfig, nil, nil)
	if took := time.Since(begin); took > patience/4 {
		t.Errorf("a status and a reload took %v", took)
	}
	addr := freeAddr("127.0.0.1")
	nms.Netconf(addr)
	if s := m.MustCallHome(addr, proto.WaitNetconf); s.User != netop {
		t.Errorf("the session is %+v", s)
	}
	for _, s := range m.Sessions() {
		m.must(proto.MethodKillUserSession, proto.SessionParams{Session: s.Session}, nil)
	}
}

// The daemon is killed and another one started: the session goes on, and is
// known as it was.
func TestASessionOutlivesTheManager(t *testing.T) {
	t.Parallel()
	d, nms := newSite(t, "/bin/cat")
	m := startManager(t, d)
	addr := freeAddr("127.0.0.1")
	station := nms.Netconf(addr)
	before := m.MustCallHome(addr, proto.WaitNetconf)
	m.Kill9()
	station.echo("while no manager runs")
	m.begin()
	m.AwaitStderr("restored")
	after := m.Sessions()
	if len(after) != 1 || after[0].Session != before.Session || after[0].User != before.User || !after[0].Since.Equal(before.Since) || after[0].Remote != before.Remote || after[0].State != proto.StateServing {
		t.Fatalf("before %+v\nafter %+v", before, after)
	}
	if after[0].Stats == nil || after[0].Stats.BytesReceived == 0 {
		t.Error("the new manager knows nothing of the connection")
	}
	station.echo("with the next one")
	family := []proc{mustLookup(t, before.PID)}
	m.must(proto.MethodKillUserSession, proto.SessionParams{Session: before.Session}, nil)
	AwaitGone(t, patience, family)
	if next := m.MustCallHome(listen(t, "127.0.0.1:0").Addr(), proto.WaitTCP); next.Session <= before.Session {
		t.Errorf("number %d was given again", next.Session)
	}
}

// A state file that cannot be used does not cost the session.
func TestADamagedStateFileEndsNoSession(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(string) string{
		"half written":     func(s string) string { return s[:len(s)/2] },
		"an older version": func(s string) string { return strings.Replace(s, `"version":1`, `"version":0`, 1) },
		"empty":            func(string) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, nms := newSite(t, "/bin/cat")
			m := startManager(t, d)
			addr := freeAddr("127.0.0.1")
			station := nms.Netconf(addr)
			before := m.MustCallHome(addr, proto.WaitNetconf)
			m.Kill9()
			file := filepath.Join(m.state, fmt.Sprint(before.Session)+".json")
			writeFile(t, file, spoil(readFile(t, file)), 0o600)
			m.begin()
			sandbox.Await(t, patience, "the session found again", func() error {
				after := m.Sessions()
				if len(after) != 1 || after[0].Session != before.Session || after[0].PID != before.PID || after[0].User != before.User || after[0].Remote != before.Remote || after[0].State != proto.StateServing {
					return fmt.Errorf("before %+v\nafter %+v", before, after)
				}
				return nil
			})
			station.echo("hello")
			m.must(proto.MethodKillUserSession, proto.SessionParams{Session: before.Session}, nil)
		})
	}
}

// The sessions' files have room of their own and no more; when it is full, also
// while no manager runs, sessions go on.
func TestAFullStateDirectoryStopsNoSession(t *testing.T) {
	t.Parallel()
	const room = 256 << 10
	d, nms := newSite(t, "/bin/cat")
	m := startManager(t, d, "--state-size", fmt.Sprint(room))
	t.Cleanup(func() { _ = unix.Unmount(m.state, unix.MNT_DETACH) })
	addr := freeAddr("127.0.0.1")
	station := nms.Netconf(addr)
	called := m.MustCallHome(addr, proto.WaitNetconf)
	m.Kill9()
	filler, err := os.Create(filepath.Join(m.state, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	n, err := filler.Write(make([]byte, 2*room))
	if !errors.Is(err, unix.ENOSPC) || n >= room {
		t.Errorf("%d bytes went into %d, %v", n, room, err)
	}
	station.echo("the directory is full")
	m.begin()
	if s := m.Sessions(); len(s) != 1 || s[0].Session != called.Session {
		t.Errorf("the sessions are %+v", s)
	}
	station.echo("and a manager is back")
	m.must(proto.MethodKillUserSession, proto.SessionParams{Session: called.Session}, nil)
}

// A session that ends while no manager runs is reported by the next one.
func TestAnUnobservedEndIsReported(t *testing.T) {
	t.Parallel()
	d, nms := newSite(t, "/bin/cat")
	m := startManager(t, d)
	addr := freeAddr("127.0.0.1")
	station := nms.Netconf(addr)
	before := m.MustCallHome(addr, proto.WaitNetconf)
	family := []proc{mustLookup(t, before.PID)}
	m.Kill9()
	station.end()
	AwaitGone(t, patience, family)
	m.begin()
	if left := m.Sessions(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	m.AwaitStderr("closed")
	contains(t, "the manager's log", m.Stderr(), fmt.Sprintf("session=%d", before.Session), "client ")
}

// An executable that follows ConfD's way of calling makes the call: the
// project's own trigger, with its settings from the environment's file.
func TestAnExecutableMakesTheCall(t *testing.T) {
	t.Parallel()
	d, nms := newSite(t, "/bin/cat")
	program := writeFile(t, filepath.Join(tempDir(t), "call-home"),
		"#!/bin/sh\nCALLHOME_DEFAULTS="+d.writeDefaults(d.options)+"; export CALLHOME_DEFAULTS\nexec "+binDir+"/callhome-trigger \"$@\"\n", 0o755)
	m := startManager(t, d, "--ssh-call-home-executable", program)
	addr := freeAddr("127.0.0.1")
	station := nms.Netconf(addr)
	called := m.MustCallHome(addr, proto.WaitNetconf)
	if called.Via != "executable" || called.User != netop || called.Remote != addr {
		t.Errorf("the session is %+v", called)
	}
	if s := m.Sessions(); len(s) != 1 || s[0].Stats == nil {
		t.Errorf("the sessions are %+v", s)
	}
	station.echo("hello")
	family := []proc{mustLookup(t, called.PID)}
	m.must(proto.MethodKillUserSession, proto.SessionParams{Session: called.Session}, nil)
	AwaitGone(t, patience, family)

	_, err := m.CallHome(freeAddr("127.0.0.1"), proto.WaitTCP)
	var e *proto.Error
	if !errors.As(err, &e) || e.Data.Stage != proto.StageTCP || !strings.Contains(e.Data.Reason, "refused") {
		t.Errorf("a refused call ended with %v", err)
	}
}

// The trigger, run by a user without rights, hands its connection over.
func TestTheManagerTakesATriggersConnection(t *testing.T) {
	t.Parallel()
	d, nms := newSite(t, "/bin/cat")
	m := startManager(t, d, "--group", netop)
	addr := freeAddr("127.0.0.1")
	station := nms.Netconf(addr)
	host, port := splitAddr(t, addr)
	cmd := exec.Command(binDir+"/callhome-trigger", "--handover", "manager", "--manager-socket", m.socket, host, port, "ticket 42")
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Credential: &unixCredential}
	start(t, "callhome-trigger", cmd).MustExit(0)
	var s proto.SessionInfo
	sandbox.Await(t, patience, "the handed-over session serving", func() error {
		list := m.Sessions()
		if len(list) != 1 || list[0].State != proto.StateServing {
			return fmt.Errorf("the sessions are %+v", list)
		}
		s = list[0]
		return nil
	})
	if s.Via != proto.ViaHandover || s.Opaque != "ticket 42" || s.Remote != addr {
		t.Errorf("the session is %+v", s)
	}
	station.echo("hello")
	m.must(proto.MethodKillUserSession, proto.SessionParams{Session: s.Session}, nil)
}

// Who may call is decided by the peer credentials of the kernel.
func TestOthersMayNotCall(t *testing.T) {
	t.Parallel()
	d := newDevice(t, "/bin/cat")
	m := startManager(t, d, "--group", "root", "--read-group", netop)
	as := func(uid uint32, args ...string) *process {
		cmd := exec.Command(binDir+"/callhome-mgr", append([]string{"--socket", m.socket}, args...)...)
		cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Credential: credential(uid)}
		return start(t, "callhome-mgr", cmd)
	}
	reader := as(netopID, "sessions")
	reader.MustExit(0)
	contains(t, "a reader's answer", reader.Stdout(), "no sessions")
	l := listen(t, "127.0.0.1:0")
	host, port := splitAddr(t, l.Addr())
	writer := as(netopID, "call", host, port)
	writer.MustExit(77)
	contains(t, "the refusal", writer.Stderr(), "netconf_ssh_call_home needs root or the group root")
	unknown := as(54321, "status")
	unknown.MustExit(77)
	l.NoCall()
}

// One message by hand, as from socat.
func TestAnyoneWhoWritesJSONCanCall(t *testing.T) {
	t.Parallel()
	sandbox.Need(t, "socat")
	d := newDevice(t, "/bin/cat")
	m := startManager(t, d)
	l := listen(t, "127.0.0.1:0")
	host, port := splitAddr(t, l.Addr())
	request := fmt.Sprintf(`{"jsonrpc":"2.0","id":7,"method":"netconf_ssh_call_home_opaque","params":{"host":%q,"port":%s,"opaque":"a\nb"}}`, host, port)
	cmd := exec.Command("socat", "-t", "10", "-", "UNIX-CONNECT:"+m.socket)
	cmd.Stdin = strings.NewReader(request + "\n")
	p := start(t, "socat", cmd)
	c := l.Accept()
	c.Banner()
	sandbox.Await(t, patience, "the answer", func() error {
		var r proto.Response
		if err := json.Unmarshal([]byte(p.Stdout()), &r); err != nil {
			return err
		}
		var s proto.SessionInfo
		if err := json.Unmarshal(r.Result, &s); err != nil {
			return err
		}
		if r.ID != 7 || s.Opaque != "a\nb" || s.Session == 0 {
			return fmt.Errorf("the answer is %s", p.Stdout())
		}
		return nil
	})
	c.Close()
	m.AwaitNone()
}
