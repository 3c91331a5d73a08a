//go:build integration

package integration

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"callhome/test/sandbox"

	"callhome/internal/device/api"
	"callhome/internal/proto"

	"golang.org/x/sys/unix"
)

// keeper is callhome-mgr with a configuration, and the events that it publishes.
type keeper struct {
	*manager
	file string // the configuration

	mu     sync.Mutex
	events []proto.Event // guarded by mu
}

// site is a device with a host key of its own for documents, and a station
// that knows it by that key.
type site struct {
	*device
	nms *nms
	key hostKey
}

// newStandingSite is newSite for a device with a configuration. The document
// need not name users: the daemon's own settings let the station in.
func newStandingSite(t *testing.T, subsystem string) *site {
	t.Helper()
	d, n := newSite(t, subsystem)
	s := &site{d, n, newHostKey(t, d.dir())}
	s.Introduce(n)
	return s
}

// newStubSite has a stub for sshd, so that sshd's cost does not hide ours: it
// says what sshd says of a login, and stays until the station hangs up.
func newStubSite(t *testing.T) *site {
	t.Helper()
	s := newStandingSite(t, "/bin/cat")
	s.options = append(s.options, "--sshd", writeFile(t, filepath.Join(s.dir(), "sshd"), `#!/bin/bash
if [ "$1" = -V ]; then
	echo OpenSSH_9.9p1
	exit
fi
exec 3>&1 >&2
# The socket's peer: these stories call 127.0.0.1 only.
inode=$(readlink /proc/self/fd/3)
port=
while [ -z "$port" ]; do # a table that changes while it is read may lack a line, or have it twice
	port=$(awk -v i="${inode//[!0-9]/}" '$10 == i { split($3, a, ":"); print a[2]; exit }' /proc/net/tcp)
done
from="127.0.0.1 port $((16#$port))"
echo "Connection from $from on 127.0.0.1 port 1 rdomain \"\""
echo "Accepted publickey for netop from $from ssh2: ED25519 SHA256:stub"
echo "Starting session: subsystem 'netconf' for netop from $from id 0"
echo SSH-2.0-stub >&3
# The processes that sshd has after a login: one with the user's rights and
# title that holds the connection, and the subsystem below it.
setpriv --reuid=4830 --regid=4830 --clear-groups bash -c \
	'exec -a "sshd: netop@notty" bash -c "cat > /dev/null; :"'
echo "Connection closed by $from"
exit 255
`, 0o755))
	return s
}

// Introduce gives a station the document's host key, and no other.
func (s *site) Introduce(n *nms) {
	s.t.Helper()
	n.hostKey = s.key.file
	writeFile(s.t, n.knownHosts, alias+" "+readFile(s.t, s.key.file), 0o600)
}

// At is an endpoint of a document for the site's device.
func (s *site) At(addr string) object { s.t.Helper(); return s.key.endpoint(s.t, addr) }

// Crowd is n clients with one endpoint each, all at that address: "nms-0" and
// so on.
func (s *site) Crowd(n int, addr string) []object {
	s.t.Helper()
	list := make([]object, n)
	for i := range list {
		list[i] = persistent(fmt.Sprintf("nms-%d", i), s.At(addr))
	}
	return list
}

// Keep runs the daemon with that document.
func (s *site) Keep(doc any, args ...string) *keeper {
	t := s.t
	t.Helper()
	dir := tempDir(t)
	k := &keeper{file: filepath.Join(dir, "callhome.json")}
	replace(t, k.file, doc)
	k.manager = &manager{device: s.device, socket: filepath.Join(dir, "mgr.sock"), state: filepath.Join(dir, "sessions"),
		args: append([]string{"--config", k.file, "--clients-dir", filepath.Join(dir, "clients"), "--data-dir", filepath.Join(dir, "data")}, args...)}
	k.begin()
	return k
}

// begin starts the daemon, or the one after it, and records its events.
// At the end of the story no call is made any more, and no session is left.
func (k *keeper) begin() {
	t := k.device.t
	t.Helper()
	k.manager.begin()
	c, err := api.Dial(k.socket)
	if err != nil {
		t.Fatal(err)
	}
	var last proto.EventList
	if err := c.Call(t.Context(), proto.MethodSubscribe, nil, &last); err != nil {
		t.Fatal(err)
	}
	k.note(last.Events...)
	var wg sync.WaitGroup
	wg.Go(func() {
		for e := range c.Events() {
			k.note(e)
		}
	})
	p := k.process
	t.Cleanup(func() {
		if !p.over(0) {
			replace(t, k.file, document())
			_ = k.ask(proto.MethodReloadConfig, nil, nil) // a story may have killed it
			k.AwaitNone()
		}
		c.Close()
		wg.Wait()
	})
}

func (k *keeper) note(events ...proto.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.events = append(k.events, events...)
}

// Published returns the events of a name about a client so far; "" for any client.
func (k *keeper) Published(client, name string) []proto.Event {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []proto.Event
	for _, e := range k.events {
		of := e.Session.Client
		if e.Client != nil {
			of = e.Client.Client
		}
		if e.Event == name && (client == "" || of == client) {
			out = append(out, e)
		}
	}
	return out
}

// AwaitPublished waits for number n, from 1, of those events.
func (k *keeper) AwaitPublished(limit time.Duration, client, name string, n int) proto.Event {
	t := k.device.t
	t.Helper()
	var list []proto.Event
	sandbox.Await(t, limit, fmt.Sprintf("event %s of %s, number %d", name, client, n), func() error {
		if list = k.Published(client, name); len(list) < n {
			return fmt.Errorf("published %d, the client is %+v", len(list), k.client(client))
		}
		return nil
	})
	return list[n-1]
}

// Status returns the manager's own state.
func (k *keeper) Status() (st proto.Status) {
	k.device.t.Helper()
	k.must(proto.MethodStatus, nil, &st)
	return st
}

// client returns the status of a client, the zero value where there is none.
func (k *keeper) client(name string) proto.ClientStatus {
	k.device.t.Helper()
	for _, c := range k.Status().Clients {
		if c.Client == name {
			return c
		}
	}
	return proto.ClientStatus{}
}

// AwaitClient waits until what is known of a client is as ready wants it.
func (k *keeper) AwaitClient(limit time.Duration, name string, ready func(proto.ClientStatus) error) proto.ClientStatus {
	k.device.t.Helper()
	var c proto.ClientStatus
	sandbox.Await(k.device.t, limit, "client "+name, func() error {
		c = k.client(name)
		if err := ready(c); err != nil {
			return fmt.Errorf("%w: it is %+v, last error %+v", err, c, c.LastError)
		}
		return nil
	})
	return c
}

// AwaitState waits for one of the states.
func (k *keeper) AwaitState(limit time.Duration, name string, states ...proto.ClientState) proto.ClientStatus {
	k.device.t.Helper()
	return k.AwaitClient(limit, name, func(c proto.ClientStatus) error {
		if !slices.Contains(states, c.State) {
			return fmt.Errorf("not %v", states)
		}
		return nil
	})
}

// AwaitServing waits until a client is served and returns its session.
func (k *keeper) AwaitServing(limit time.Duration, name string) proto.SessionInfo {
	t := k.device.t
	t.Helper()
	id := k.AwaitState(limit, name, proto.ClientServing).Session
	for _, s := range k.Sessions() {
		if s.Session == id {
			return s
		}
	}
	t.Fatalf("there is no session %d of client %s", id, name)
	return proto.SessionInfo{}
}

// awaitGood waits until a client's session is so old, 30 s, that its loss is
// answered by a call at once.
func (k *keeper) awaitGood(name string) {
	k.device.t.Helper()
	k.AwaitClient(40*time.Second, name, func(c proto.ClientStatus) error {
		if on := time.Since(c.Since); c.State != proto.ClientServing || on < 30*time.Second {
			return fmt.Errorf("%s for %v", c.State, on)
		}
		return nil
	})
}

// Reload puts another document in the place of the one in force.
func (k *keeper) Reload(doc any) {
	k.device.t.Helper()
	replace(k.device.t, k.file, doc)
	k.must(proto.MethodReloadConfig, nil, nil)
}

// Refused is a reload that must be refused; it returns why.
func (k *keeper) Refused(doc any) string {
	t := k.device.t
	t.Helper()
	replace(t, k.file, doc)
	err := k.ask(proto.MethodReloadConfig, nil, nil)
	var e *proto.Error
	if !errors.As(err, &e) || e.Code != proto.CodeBadConfig {
		t.Fatalf("the reload ended with %v", err)
	}
	return err.Error()
}

// Undisturbed fails the story unless a session is what it was.
func (k *keeper) Undisturbed(was proto.SessionInfo) {
	k.device.t.Helper()
	for _, s := range k.Sessions() {
		if s.Session == was.Session {
			if s.PID != was.PID || !s.Since.Equal(was.Since) || s.Remote != was.Remote || s.Local != was.Local {
				k.device.t.Errorf("the session was %+v and is %+v", was, s)
			}
			return
		}
	}
	k.device.t.Errorf("session %d of client %s is gone", was.Session, was.Client)
}

// Ask runs callhome-mgr as a person does and returns what it prints.
func (k *keeper) Ask(want int, args ...string) (stdout, stderr string) {
	k.device.t.Helper()
	p := start(k.device.t, "callhome-mgr", k.device.Manager(append([]string{"--socket", k.socket}, args...)...))
	p.MustExit(want)
	return p.Stdout(), p.Stderr()
}

func (k *keeper) Hup() { k.device.t.Helper(); k.Signal(unix.SIGHUP) }
