//go:build integration

package clients

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCallHome: the calls that MAAPI has, and how far each wait waits.
func TestCallHome(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c client) {
		d, n := startDaemon(t, nil), listen(t, nil)
		answers := c.ask(t, caller{}, d.socket,
			"wait_start",
			"then", "call", "127.0.0.1", n.port, "default",
			"then", "call", "127.0.0.1", n.port, "default", "ticket 42",
			"then", "call", "127.0.0.1", n.port, "none",
			"then", "call", "127.0.0.1:"+n.port, "0", "tcp")
		for _, a := range answers[:3] {
			a.want(t, "ok", "1")
		}
		answers[3].want(t, "session", "3")
		answers[4].want(t, "session", "4")
		for range 4 {
			n.awaitBanner(t)
		}
		answers = c.ask(t, caller{}, d.socket, "sessions", "then", "session", "2", "then", "session", "4", "then", "status")
		answers[0].want(t, "count", "4")
		if ids := fmt.Sprint(answers[0].all["id"]); ids != "[1 2 3 4]" {
			t.Errorf("the sessions are %s", ids)
		}
		s := answers[1]
		s.want(t, "host", "127.0.0.1", "port", n.port, "remote", "127.0.0.1:"+n.port, "opaque", "ticket 42", "via", "manager", "user", "", "stats", "1")
		s.contains(t, "local", "127.0.0.1:")
		if !alive(s.number(t, "pid")) {
			t.Errorf("sshd, process %s, does not run", s.get("pid"))
		}
		answers[2].want(t, "opaque", "", "host", "127.0.0.1", "port", n.port)
		answers[3].want(t, "pid", fmt.Sprint(d.cmd.Process.Pid), "started", "1", "sessions", "4", "calls", "4", "failed", "0")
	})
}

// TestWholeCallHome: with the stock ssh at the other end, a call home is
// awaited up to the login and up to the session, and killed.
func TestWholeCallHome(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c client) {
		d := startDaemon(t, nil)
		for _, wait := range []string{"ssh", "netconf"} {
			s := startSSH(t, "user_key", "-s", "netop@nms", "netconf")
			a := c.session(t, d.socket, "call", "127.0.0.1", s.port, wait)
			s.echo(t, "hello through "+wait)
			id := a.get("session")
			d.awaitLog(t, "subsystem: session="+id+" ") // the login is proven before it
			session := c.session(t, d.socket, "session", id)
			session.want(t, "user", "netop", "method", "publickey", "state", "serving", "stats", "1")
			session.contains(t, "key", "SHA256:")
			if session.number(t, "bytes-received") == 0 {
				t.Errorf("the session has received nothing: %v", session.all)
			}
			c.session(t, d.socket, "kill", id).want(t, "ok", "1")
			if pid := session.number(t, "pid"); alive(pid) {
				t.Errorf("sshd, process %d, is not gone", pid)
			}
			if line, err := s.lines.ReadString('\n'); err == nil {
				t.Errorf("after the kill the session said %q", line)
			}
			c.fails(t, "CALLHOME_ERR_NOEXISTS", d.socket, "kill", id).want(t, "stage", "", "retry", "0")
		}
		d.awaitLog(t, "method=kill_user_session", "uid=0")
	})
}

// TestASocketIsHandedOver: a connected socket is served, and no longer belongs to the
// caller.
func TestASocketIsHandedOver(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c client) {
		d, n := startDaemon(t, nil), listen(t, nil)
		conn, err := net.Dial("tcp", "127.0.0.1:"+n.port)
		if err != nil {
			t.Fatal(err)
		}
		f, err := conn.(*net.TCPConn).File()
		conn.Close()
		if err != nil {
			t.Fatal(err)
		}
		a := c.ask(t, caller{stdin: f}, d.socket, "handover", "nms.example", n.port, "ticket \"7\"")[0]
		f.Close()
		n.awaitBanner(t)
		s := c.session(t, d.socket, "session", a.get("session"))
		s.want(t, "via", "handover", "host", "nms.example", "port", n.port, "remote", "127.0.0.1:"+n.port, "opaque", `ticket "7"`)

		if conn, err = net.Dial("tcp", "127.0.0.1:"+n.port); err != nil {
			t.Fatal(err)
		}
		if f, err = conn.(*net.TCPConn).File(); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		c.ask(t, caller{stdin: f}, d.socket, "handover", "nms.example", "0", "then", "session", "2")[1].want(t, "port", "4334", "opaque", "")
		f.Close()

		// What is no connected TCP socket is refused; the connection stays.
		null, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		answers := c.ask(t, caller{stdin: null}, d.socket, "handover", "nms", "1", "then", "sessions")
		answers[0].want(t, "error", "CALLHOME_ERR_BADTYPE", "rpc", "9")
		answers[1].want(t, "count", "2")
	})
}

// TestHousekeeping: reload, reopen and stop.
func TestHousekeeping(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c client) {
		d, n := startDaemon(t, nil), listen(t, nil)
		for _, a := range c.ask(t, caller{}, d.socket, "reload", "then", "reopen", "then", "call", "127.0.0.1", n.port, "default") {
			a.want(t, "ok", "1")
		}
		d.awaitLog(t, "call:", "method=reload_config")
		n.awaitBanner(t)
		s := c.session(t, d.socket, "session", "1")
		stop(t, c, d)
		if pid := s.number(t, "pid"); !alive(pid) {
			t.Errorf("sshd, process %d, ended with the manager", pid)
		}
		c.fails(t, "CALLHOME_ERR_NOMANAGER", d.socket, "status")
	})
}

// stop ends the daemon by its API.
func stop(t *testing.T, c client, d *daemon) {
	t.Helper()
	a := c.ask(t, caller{}, d.socket, "stop")[0]
	a.want(t, "ok", "1")
	if code := d.awaitEnd(t); code != 0 {
		t.Errorf("callhome-mgr ended with status %d", code)
	}
}

// TestInterrupted: signals that arrive all the time change nothing.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c client) {
		d := startDaemon(t, nil)
		s := startSSH(t, "user_key", "-s", "netop@nms", "netconf")
		answers := c.ask(t, caller{env: []string{"ASK_INTERRUPTED=1"}}, d.socket, "call", "127.0.0.1", s.port, "netconf", "then", "session", "1", "then", "kill", "1", "then", "sessions")
		answers[0].want(t, "session", "1")
		answers[1].want(t, "state", "serving")
		answers[2].want(t, "ok", "1")
		answers[3].want(t, "count", "0")
	})
}

// TestTimeout: a caller that has waited long enough gets an error; the call home
// goes on, and so does the manager.
func TestTimeout(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c client) {
		d, n := startDaemon(t, nil), listen(t, nil)
		answers := c.ask(t, caller{env: []string{"ASK_TIMEOUT_MS=700"}}, d.socket, "call", "127.0.0.1", n.port, "ssh", "then", "sessions")
		answers[0].want(t, "error", "CALLHOME_ERR_TIMEOUT", "rpc", "0")
		answers[1].want(t, "error", "CALLHOME_ERR_CLOSED")
		n.awaitBanner(t)
		c.session(t, d.socket, "session", "1").want(t, "state", "key-exchange")
	})
}

// TestAccess: a user without a group may call no method, a member of the read
// group may not call home, and a member of the group may.
func TestAccess(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c client) {
		d, n := startDaemon(t, nil), listen(t, nil)
		home := []string{"call", "127.0.0.1", n.port, "tcp"}
		a := c.ask(t, caller{uid: outsider, gid: outsider}, d.socket, "status")[0]
		a.want(t, "error", "CALLHOME_ERR_ACCESS_DENIED", "rpc", "8")

		answers := c.ask(t, caller{uid: outsider, gid: readers}, d.socket, append([]string{"status", "then", "sessions", "then", "kill", "1", "then", "stop", "then"}, home...)...)
		answers[0].want(t, "sessions", "0")
		answers[1].want(t, "count", "0")
		for _, a := range answers[2:] {
			a.want(t, "error", "CALLHOME_ERR_ACCESS_DENIED", "rpc", "8", "retry", "0")
		}

		a = c.ask(t, caller{uid: outsider, gid: members}, d.socket, home...)[0]
		a.want(t, "session", "1")
		n.awaitBanner(t)
		d.awaitLog(t, "method=netconf_ssh_call_home", fmt.Sprintf("uid=%d", outsider))
	})
}

// TestEvents: a subscriber gets the events of a session, in order, while calls
// are made beside it; and sees the end of the manager.
func TestEvents(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c client) {
		d := startDaemon(t, nil)
		events := c.start(t, caller{}, d.socket, "events", "100")
		events.until(t, "subscribed")
		s := startSSH(t, "user_key", "-s", "netop@nms", "netconf")
		c.session(t, d.socket, "call", "127.0.0.1", s.port, "netconf", "word")
		s.echo(t, "hello")
		c.session(t, d.socket, "kill", "1")

		var seen []string
		last := answer{}
		for len(seen) == 0 || seen[len(seen)-1] != "closed" {
			last = events.until(t, "bytes-received") // the last line of an event
			if e := last.get("event"); e != "log" {
				seen = append(seen, e)
			}
			last.want(t, "session", "1", "host", "127.0.0.1", "opaque", "word")
			last.contains(t, "time", "T")
			if last.get("event") == "authenticated" {
				last.want(t, "user", "netop")
				last.contains(t, "words", "netop logged in (publickey)")
			}
		}
		if got := strings.Join(seen, " "); got != "calling connected key-exchange authenticated subsystem closed" {
			t.Errorf("the events were %s", got)
		}
		last.want(t, "state", "closed", "stage", "session", "end", "killed", "graceful", "1")
		last.contains(t, "cause", "ended by uid 0 pid ")

		refusing := refusingPort(t)
		c.fails(t, "CALLHOME_ERR_UNAVAILABLE", d.socket, "call", "127.0.0.1", refusing, "tcp")
		events.until(t, "bytes-received").want(t, "event", "calling", "session", "2", "port", refusing)
		failed := events.until(t, "bytes-received")
		failed.want(t, "event", "failed", "session", "2", "stage", "tcp", "end", "no-connection", "graceful", "0")
		failed.contains(t, "cause", "refused")

		if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		events.until(t, "code").want(t, "error", "CALLHOME_ERR_CLOSED", "code", "102")
	})
}

// TestQuietEvents: no event in time is no failure, and costs nothing.
func TestQuietEvents(t *testing.T) {
	t.Parallel()
	for _, s := range []struct{ name, before string }{
		{"after the answer", ""},
		{"before the answer", `{"jsonrpc":"2.0","method":"event","params":{"time":"T","event":"early","session":{"session":9}}}` + "\n"},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			socket := fakeManager(t, func(f *fake) {
				if request := f.receive(); !strings.Contains(request, `"subscribe"`) {
					f.say(`{"jsonrpc":"2.0","id":1,"result":{}}` + "\n")
					f.hold()
					return
				}
				f.say("%s"+`{"jsonrpc":"2.0","id":1,"result":{}}`+"\n", s.before)
				f.hold()
			})
			each(t, func(t *testing.T, c client) {
				answers := c.ask(t, caller{env: []string{"ASK_TIMEOUT_MS=400"}}, socket, "events", "2")
				answers[0].want(t, "subscribed", "1", "error", "CALLHOME_ERR_TIMEOUT")
			})
		})
	}
}

// TestHalfAnEvent: when the time is up in the middle of an event, the C client,
// which keeps nothing, gives the connection up.
func TestHalfAnEvent(t *testing.T) {
	t.Parallel()
	socket := fakeManager(t, func(f *fake) {
		f.receive()
		f.say(`{"jsonrpc":"2.0","id":1,"result":{}}` + "\n" + `{"jsonrpc":"2.0","method":"ev`)
		f.hold()
	})
	each(t, func(t *testing.T, c client) {
		if c.name == "python" {
			return // it keeps the half: TestPythonAlone
		}
		answers := c.ask(t, caller{env: []string{"ASK_TIMEOUT_MS=400"}}, socket, "events", "1", "then", "status")
		answers[0].want(t, "subscribed", "1", "error", "CALLHOME_ERR_TIMEOUT")
		answers[1].want(t, "error", "CALLHOME_ERR_CLOSED")
	})
}
