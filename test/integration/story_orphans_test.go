//go:build integration

package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"callhome/internal/proto"
	"callhome/test/sandbox"

	"golang.org/x/sys/unix"
)

// SIGKILL to sshd's monitor, by an operator or the OOM killer, leaves the user's
// sshd, shell and subsystem alive and the connection open. The manager ends them
// with the session, so that the NMS has one session and not two.
func TestAKilledMonitorLeavesNothing(t *testing.T) {
	t.Parallel()
	onOpenSSHs(t, trees, func(t *testing.T, _, root string) {
		for _, user := range []string{netop, "root"} {
			t.Run(user, func(t *testing.T) {
				t.Parallel()
				// A subsystem that ignores the end of its input and SIGTERM.
				d, nms := newSite(t, `/bin/sh -c "trap : TERM; while :; do sleep 0.1; done"`)
				d.root = root
				d.options = append(d.options, "--sshd-option", "PermitRootLogin=yes")
				nms.user = user
				m := startManager(t, d)
				addr := freeAddr("127.0.0.1")
				ssh := nms.Ssh(addr, []string{"-s"}, "netconf")
				s := m.MustCallHome(addr, proto.WaitNetconf)
				all := family(s.PID)
				if len(all) < 2 {
					t.Fatalf("the session has the processes %v", all)
				}
				if err := unix.Kill(s.PID, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				ssh.MustExit(255)
				if last := m.AwaitNone(); last.Graceful || last.Stage != proto.StageSession {
					t.Errorf("it ended as %+v", last)
				}
				AwaitGone(t, patience, all)
			})
		}
	})
}

// The order in which a session ended is the kernel's: the subsystem before sshd's line
// about the connection is a close in good order, the connection first is a loss.
// Clients that close the connection the moment <ok/> is there leave an order only
// where the server is done with the session before sshd is done with the connection:
// of those a quarter may be missed, on a busy machine. CALLHOME_CLOSES sets the number of sessions of
// each client and version.
func TestAnOrderlyCloseIsRecognised(t *testing.T) {
	t.Parallel()
	count := 2
	if n, err := strconv.Atoi(os.Getenv("CALLHOME_CLOSES")); err == nil {
		count = n
	}
	onOpenSSHs(t, trees, func(t *testing.T, name, root string) {
		for i, c := range clients {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				var missed []string
				for range count {
					var m *manager
					holdManaged(t, i, root, &m)
					if last := m.AwaitNone(); !last.Graceful || last.Stage != proto.StageSession {
						missed = append(missed, fmt.Sprintf("it ended as %+v", last))
					}
				}
				t.Logf("%s: of %d sessions of %s, %d were closed in order", name, count, c.name, count-len(missed))
				allowed := 0
				if c.name == "ncclient" || c.name == "libnetconf2" {
					allowed = max(1, count/4) // the others send SSH_MSG_DISCONNECT
				}
				if len(missed) > allowed {
					t.Error(strings.Join(missed, "\n"))
				}
			})
		}
		for _, how := range []string{"while idle", "after a reply"} {
			t.Run("dropped "+how, func(t *testing.T) {
				t.Parallel()
				for range count {
					dropped(t, root, how == "after a reply")
				}
			})
		}
	})
}

// dropped has a client end without <close-session>, and wants that to be a loss.
func dropped(t *testing.T, root string, replied bool) {
	t.Helper()
	server := startNetconfd(t)
	subsystem := server.Subsystem()
	if root != "" {
		subsystem = abroad(t, subsystem)
	}
	d, nms := newSite(t, subsystem)
	d.root = root
	d.options = append(d.options, "--ssh-connection-port", yumaPort)
	m := startManager(t, d)
	addr := freeAddr("127.0.0.1")
	station := nms.Netconf(addr)
	m.MustCallHome(addr, proto.WaitNetconf)
	station.Hello(server)
	if replied {
		station.Ask("get-config", `<get-config><source><running/></source></get-config>`, "<data")
	}
	station.Signal(unix.SIGKILL)
	if last := m.AwaitNone(); last.Graceful {
		t.Errorf("it ended as %+v", last)
	}
}

// holdManaged holds a session of a client with netconfd through a manager, and
// returns when the client has closed it.
func holdManaged(t *testing.T, client int, root string, m **manager) {
	t.Helper()
	c := clients[client]
	for try := 1; ; try++ {
		server := startNetconfd(t)
		subsystem := server.Subsystem()
		if root != "" {
			subsystem = abroad(t, subsystem)
		}
		d, nms := newSite(t, subsystem)
		d.root = root
		d.options = append(d.options, "--ssh-connection-port", yumaPort)
		*m = startManager(t, d)
		addr := freeAddr("127.0.0.1")
		waiting := c.wait(nms, server, addr, fmt.Sprintf("%s-%d", c.name, try))
		if _, err := (*m).CallHome(addr, proto.WaitSSH); err != nil {
			t.Fatal(err)
		}
		err := waiting.Finish()
		switch {
		case err == nil:
			return
		case try == 3 || !server.Forgot():
			t.Fatal(err)
		}
		t.Logf("netconfd forgot a request of %s's (%v); once more", c.name, err)
		waiting.end()
		(*m).AwaitNone()
	}
}

// Two managers on one state directory would end each other's sessions: the second
// one is refused, whatever its socket.
func TestAStateDirectoryHasOneManager(t *testing.T) {
	t.Parallel()
	d := newDevice(t, "/bin/cat")
	m := startManager(t, d)
	second := start(t, "callhome-mgr", d.Manager("--socket", filepath.Join(tempDir(t), "other.sock"), "run", "--state-dir", m.state, "--state-size", "0"))
	second.MustExit(69)
	contains(t, "the second manager", second.Stderr(), "another callhome-mgr has the sessions in "+m.state, "--state-dir")
}

// Whatever becomes of a state file, its session is found again with its owner, is
// not called a second time, and its number is not used again.
func TestASessionOutlivesItsStateFile(t *testing.T) {
	t.Parallel()
	digit := func(name string) func(string) string {
		return func(s string) string {
			i := strings.Index(s, `"`+name+`":`) + len(name) + 3
			return s[:i] + string('0'+('9'-s[i])%10) + s[i+1:]
		}
	}
	for name, spoil := range map[string]func(string) string{
		"a wrong process": digit("pid"), "a wrong start": digit("start-time"), "a wrong session": digit("session"), "a wrong version": digit("version"),
		"another owner": func(s string) string { return strings.Replace(s, `"client":"nms"`, `"client":"xyz"`, 1) },
		"unreadable":    func(string) string { return "\x00\xff{" }, "removed": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStandingSite(t, "/bin/cat")
			nms := s.nms.Station(freeAddr("127.0.0.1"))
			k := s.Keep(document(persistent("nms", s.At(nms.Addr))))
			before := k.AwaitServing(patience, "nms")
			k.Kill9()
			file := filepath.Join(k.state, fmt.Sprint(before.Session)+".json")
			if spoil != nil {
				writeFile(t, file, spoil(readFile(t, file)), 0o600)
			} else if err := errors.Join(os.Remove(file), os.Remove(filepath.Join(k.state, "last"))); err != nil {
				t.Fatal(err)
			}
			k.begin()
			sandbox.Await(t, patience, "the session found again", func() error {
				after := k.Sessions()
				if len(after) != 1 || after[0].Session != before.Session || after[0].PID != before.PID || after[0].Client != "nms" || after[0].State != proto.StateServing {
					return fmt.Errorf("before %+v\nafter %+v", before, after)
				}
				return nil
			})
			if n := len(nms.Calls()); n != 1 {
				t.Errorf("the station was called %d times", n)
			}
			l := listen(t, "127.0.0.1:0")
			if made, err := k.CallHome(l.Addr(), proto.WaitTCP); err != nil || made.Session <= before.Session {
				t.Errorf("the next session is %+v, %v", made, err)
			}
		})
	}
}
