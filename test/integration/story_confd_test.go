//go:build integration

package integration

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"callhome/internal/proto"
	"callhome/test/sandbox"

	"golang.org/x/sys/unix"
)

// confd is a stand-in for ConfD as in Cisco's demo of an external SSH server: it runs
// as a user of its own, has neither an SSH nor a TCP transport, and is reached by
// netconf-subsys alone.
type confd struct {
	t       *testing.T
	uid     uint32
	groups  []uint32
	program string // sshCallHomeExecutable
	listen  net.Listener
	headers chan string
}

// The user and group that ConfD has here.
const confdUID, confdGroup = 4850, 4851

func startConfD(t *testing.T) *confd {
	t.Helper()
	for file, lines := range map[string]string{
		"/etc/passwd": fmt.Sprintf("confd:NP:%d:%d::/:/usr/sbin/nologin\n", confdUID, confdUID),
		"/etc/group":  fmt.Sprintf("confd:x:%d:\ncallhome-confd:x:%d:confd\n", confdUID, confdGroup),
	} {
		if err := appendFile(file, lines); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(tempDir(t), "ipc")
	l, err := net.Listen("unix", socket)
	if err == nil {
		err = unix.Chmod(socket, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &confd{t: t, uid: confdUID, groups: []uint32{confdGroup}, listen: l, headers: make(chan string, 10)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go c.serve(conn)
		}
	}()
	return c
}

// Subsystem is the command of the stand-in for netconf-subsys.
func (c *confd) Subsystem() string {
	c.t.Helper()
	sandbox.Need(c.t, "/usr/bin/python3")
	program := writeFile(c.t, filepath.Join(tempDir(c.t), "netconf-subsys"), readFile(c.t, "clients/netconf_subsys.py"), 0o755)
	return program + " " + c.listen.Addr().String()
}

// serve is one NETCONF session. ConfD does not authenticate its user: it believes
// netconf-subsys.
func (c *confd) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	header, err := r.ReadString('\n')
	if err != nil {
		return
	}
	c.headers <- strings.TrimSpace(header)
	fmt.Fprint(conn, `<hello xmlns="urn:ietf:params:xml:ns:netconf:base:1.0"><capabilities><capability>urn:ietf:params:netconf:base:1.0</capability></capabilities><session-id>7</session-id></hello>`+endOfMessage)
	message := ""
	for {
		part, err := r.ReadString('>')
		if err != nil {
			return
		}
		if message += part; !strings.HasSuffix(message, endOfMessage) {
			continue
		}
		id, answer := between(message, `message-id="`, `"`), "<data/>"
		closing := strings.Contains(message, "<close-session")
		if closing {
			answer = "<ok/>"
		}
		if id != "" {
			fmt.Fprintf(conn, `<rpc-reply xmlns="urn:ietf:params:xml:ns:netconf:base:1.0" message-id="%s">%s</rpc-reply>`+endOfMessage, id, answer)
		}
		if closing {
			return
		}
		message = ""
	}
}

// CallHome is maapi_netconf_ssh_call_home(), and with OPAQUE
// maapi_netconf_ssh_call_home_opaque(): the executable runs as ConfD's user, with
// nothing in its environment, and the values are its arguments.
func (c *confd) CallHome(args ...string) *process {
	c.t.Helper()
	cmd := &exec.Cmd{Path: c.program, Args: append([]string{c.program}, args...), Env: []string{}, Dir: "/"}
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: c.uid, Gid: c.uid, Groups: c.groups}}
	return start(c.t, "sshCallHomeExecutable", cmd)
}

// ConfD that is not root has callhome-mgr do what needs root: the executable needs
// no right but to be in the manager's group, and reads no host key.
func TestConfDCallsHome(t *testing.T) {
	t.Parallel()
	c := startConfD(t)
	d, nms := newSite(t, c.Subsystem())
	m := startManager(t, d, "--group", "callhome-confd")
	// In place of /etc/callhome/trigger.conf, which other stories have.
	defaults := writeFile(t, filepath.Join(tempDir(t), "trigger.conf"), "CALLHOME_MANAGER_SOCKET="+m.socket+"\nCALLHOME_HOST_KEY="+d.hostKey+"\n", 0o644)
	c.program = writeFile(t, filepath.Join(tempDir(t), "call-home"), "#!/bin/sh\nCALLHOME_DEFAULTS="+defaults+" exec "+binDir+"/callhome-trigger \"$@\"\n", 0o755)

	for _, opaque := range []string{"", "ticket 42; $(id) --handover=exec"} {
		addr := freeAddr("127.0.0.1")
		station := nms.Netconf(addr)
		args := splitArgs(t, addr)
		if opaque != "" {
			args = append(args, opaque)
		}
		p := c.CallHome(args...)
		p.MustExit(0)
		station.Hello(nil)
		if list := m.Sessions(); len(list) != 1 || list[0].Via != proto.ViaHandover || list[0].User != netop || list[0].Opaque != opaque {
			t.Errorf("the sessions are %+v", list)
		}
		station.Ask("get-config", "<get-config><source><running/></source></get-config>", "<data")
		station.Close()
		if last := m.AwaitNone(); !last.Graceful {
			t.Errorf("it ended as %+v", last)
		}
		if header := <-c.headers; !strings.HasPrefix(header, fmt.Sprintf("[%s;127.0.0.1;ssh;%d;", netop, netopID)) {
			t.Errorf("netconf-subsys says %q", header)
		}
	}

	t.Run("no station", func(t *testing.T) {
		p := c.CallHome(splitArgs(t, freeAddr("127.0.0.1"))...)
		p.MustExit(69)
		oneLine(t, p.Stderr(), "connection refused")
	})
	t.Run("not in the group", func(t *testing.T) {
		l := listen(t, "127.0.0.1:0")
		c.groups = nil
		p := c.CallHome(splitArgs(t, l.Addr())...)
		p.MustExit(77)
		oneLine(t, p.Stderr(), "needs root or the group callhome-confd")
	})
	t.Run("without a manager", func(t *testing.T) {
		m.Kill9()
		l := listen(t, "127.0.0.1:0")
		p := c.CallHome(splitArgs(t, l.Addr())...)
		p.MustExit(77)
		oneLine(t, p.Stderr(), d.hostKey, "permission denied")
		l.NoCall()
	})
}
