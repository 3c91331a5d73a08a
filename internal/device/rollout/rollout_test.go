package rollout

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/reconnect"
	"callhome/internal/device/session"
	"callhome/internal/device/settings"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// noCalls is a manager that refuses each call home.
type noCalls struct {
	mu        sync.Mutex // guards published
	published []proto.Event
}

func (*noCalls) Keep(*settings.Call, session.Owner) (reconnect.Session, error) {
	return nil, proto.NewError(proto.CodeShutdown, "callhome-mgr is stopping")
}
func (*noCalls) Kept() []reconnect.Session { return nil }

func (n *noCalls) Publish(e proto.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.published = append(n.published, e)
}

// of returns the events of that name.
func (n *noCalls) of(name string) (out []proto.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.published {
		if e.Event == name {
			out = append(out, e)
		}
	}
	return out
}

// device is a machine with an sshd that prints its version, and a configuration
// whose file does not exist yet.
type device struct {
	*Rollout
	t       *testing.T
	base    *settings.Call
	manager *noCalls
}

func newDevice(t *testing.T, explicit bool) *device {
	t.Helper()
	dir := t.TempDir()
	d := &device{t: t, base: &settings.Call{}, manager: &noCalls{}}
	d.base.Sshd.Sshd = program(t, "sshd", "echo OpenSSH_9.8p1 >&2")
	o := Options{File: filepath.Join(dir, "callhome.json"), Explicit: explicit, Dir: filepath.Join(dir, "clients")}
	d.Rollout = New(o, reconnect.New(d.manager, reconnect.Options{Dir: o.Dir}, hclog.NewNullLogger()), hclog.NewNullLogger())
	t.Cleanup(d.Close)
	return d
}

// program makes an executable script.
func program(t *testing.T, name, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// document returns a document with one client; extras are JSON members of the
// netconf-client.
func document(extras string) string {
	return `{"ietf-netconf-server:netconf-server": {"call-home": {"netconf-client": [{
		"name": "nms", ` + extras + `
		"endpoints": {"endpoint": [{"name": "a", "ssh": {
			"tcp-client-parameters": {"remote-address": "192.0.2.1"},
			"ssh-server-parameters": {
				"server-identity": {"host-key": [{"name": "ssh_host_ed25519_key", "public-key": {"inline-definition": {"hidden-private-key": [null]}}}]},
				"client-authentication": {"users": {"user": [{"name": "netop", "public-keys": {"inline-definition": {"public-key": [
					{"name": "1", "public-key-format": "ietf-crypto-types:ssh-public-key-format", "public-key": "AAAAC3NzaC1lZDI1NTE5AAAAIGJnW1VXG0Vw0Vxmzn7PfNOPcF2zmM4sQBMHzhs8tkQW"}]}}}]}}
			}}}]},
		"connection-type": {"persistent": {}}
	}]}}}`
}

func (d *device) has(document string) {
	d.t.Helper()
	if err := os.WriteFile(d.File, []byte(document), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) applies() {
	d.t.Helper()
	if err := d.Apply(d.base); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) refuses(part string) {
	d.t.Helper()
	before := d.clients.Status()
	n := len(d.manager.of(proto.EventConfigRefused))
	err := d.Apply(d.base)
	if err == nil || !strings.Contains(err.Error(), part) {
		d.t.Errorf("it says %v, expected %q", err, part)
	}
	after := d.clients.Status()
	if len(before) != len(after) {
		d.t.Errorf("%d clients became %d", len(before), len(after))
	}
	if st := d.Status(); !strings.Contains(st.Error, part) {
		d.t.Errorf("status says %q", st.Error)
	}
	if got := d.manager.of(proto.EventConfigRefused); len(got) != n+1 || !strings.Contains(got[n].Text, part) {
		d.t.Errorf("published %v", got)
	}
}

func TestAConfigurationIsAppliedAndReplaced(t *testing.T) {
	d := newDevice(t, true)
	d.has(document(""))
	d.applies()
	st := d.Status()
	if st.File != d.File || st.Applied == nil || st.Clients != 1 || st.Error != "" {
		t.Errorf("status is %+v", st)
	}
	if list := d.clients.Status(); len(list) != 1 || list[0].Client != "nms" {
		t.Errorf("the clients are %+v", list)
	}
	keys, err := filepath.Glob(filepath.Join(d.Dir, "*", "keys", "netop"))
	if err != nil || len(keys) != 1 {
		t.Fatalf("the user's keys are in %v, %v", keys, err)
	}
	d.has(`{"ietf-netconf-server:netconf-server": {}}`)
	d.applies() // running sessions may still read the keys
	if _, err := os.Stat(keys[0]); err != nil {
		t.Errorf("after one more configuration: %v", err)
	}
	d.applies()
	if _, err := os.Stat(keys[0]); err == nil {
		t.Error("after two more configurations the keys are there")
	}
	if got := d.manager.of(proto.EventConfigApplied); len(got) != 3 || got[0].Text != "clients: 1" {
		t.Errorf("published %v", got)
	}
}

func TestAWrongConfigurationChangesNothing(t *testing.T) {
	d := newDevice(t, true)
	d.has(document(""))
	d.applies()
	applied := d.Status().Applied
	for name, tt := range map[string]struct{ document, part string }{
		"no JSON":         {`{"ietf`, "line 1"},
		"an unknown leaf": {document(`"colour": "red",`), "colour"},
		"a missing hook":  {document(`"callhome:hook": "/nonexistent/hook",`), "hook"},
		"too large":       {strings.Repeat(" ", config.MaxDocument+1), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			d.t = t
			d.has(tt.document)
			d.refuses(tt.part)
		})
	}
	d.t = t
	if st := d.Status(); st.Applied != applied || st.Clients != 1 {
		t.Errorf("status is %+v", st)
	}
	d.has(document(""))
	d.applies()
	if st := d.Status(); st.Error != "" {
		t.Errorf("status has the error %q of a good document", st.Error)
	}
}

// At the start a missing default file is a document without clients. A missing named
// file is an error, and so is a missing file where there are clients.
func TestAMissingFileIsAnErrorWhereItIsNeeded(t *testing.T) {
	d := newDevice(t, false)
	dir := d.Dir
	d.Dir = "/nonexistent/clients" // not used
	d.applies()
	if st := d.Status(); st.Applied == nil || st.Clients != 0 {
		t.Errorf("status is %+v", st)
	}
	d.Dir = dir
	d.has(document(""))
	d.applies()
	if err := os.Remove(d.File); err != nil {
		t.Fatal(err)
	}
	d.refuses("no such file")

	d = newDevice(t, true)
	d.refuses("no such file")
	if code := sysexits.Code(d.Apply(d.base)); code != sysexits.NoInput {
		t.Errorf("exit status %d", code)
	}
}

// A document can have a fault in each line. The caller of Apply gets all of them,
// status and events the first maxFaults bytes.
func TestStatusAndEventsHaveABoundedNumberOfFaults(t *testing.T) {
	d := newDevice(t, true)
	d.has(`{"ietf-netconf-server:netconf-server": {` + strings.Repeat("\"x\": 1,\n", 5000) + `"y": 1}}`)
	err := d.Apply(d.base)
	if err == nil || len(err.Error()) < 2*maxFaults {
		t.Fatalf("Apply returned %d bytes", len(fmt.Sprint(err)))
	}
	if n := len(d.Status().Error); n > maxFaults+100 {
		t.Errorf("status has %d bytes", n)
	}
	if got := d.manager.of(proto.EventConfigRefused); len(got) != 1 || len(got[0].Text) > maxFaults+100 {
		t.Errorf("the event has %d bytes", len(got[0].Text))
	}
}

// Status returns while a document is read, however long sshd takes to print its
// version.
func TestStatusWaitsForNoDocument(t *testing.T) {
	d := newDevice(t, true)
	d.has(document(""))
	d.applies()
	fifo := program(t, "sshd", `read line < "$0.go"; echo OpenSSH_9.8p1 >&2`)
	if err := unix.Mkfifo(fifo+".go", 0o600); err != nil {
		t.Fatal(err)
	}
	slow := *d.base
	slow.Sshd.Sshd = fifo
	applied := make(chan error)
	go func() { applied <- d.Apply(&slow) }()
	begun, err := os.OpenFile(fifo+".go", os.O_WRONLY, 0) // returns when sshd reads
	if err != nil {
		t.Fatal(err)
	}
	if st := d.Status(); st.Clients != 1 {
		t.Errorf("status is %+v", st)
	}
	d.Handle(proto.Event{Event: proto.EventLost, Client: &proto.ClientStatus{Client: "nms"}})
	select {
	case err := <-applied:
		t.Fatalf("it was applied before sshd answered: %v", err)
	default:
	}
	fmt.Fprintln(begun)
	begun.Close()
	if err := <-applied; err != nil {
		t.Error(err)
	}
}

func TestAClientsHookRunsOnItsEvents(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	one := program(t, "hook", "echo $CALLHOME_EVENT >> "+out)
	two := program(t, "hook", "exit 0")
	d := newDevice(t, true)
	d.has(document(`"callhome:hook": "` + one + `",`))
	d.applies()
	first := d.hooks["nms"]
	for _, e := range []proto.Event{
		{Event: proto.EventLost, Client: &proto.ClientStatus{Client: "nms"}},
		{Event: proto.EventClosed, Session: proto.SessionInfo{Client: "nms"}},
		{Event: proto.EventLog, Session: proto.SessionInfo{Client: "nms"}},
		{Event: proto.EventFailed, Session: proto.SessionInfo{Client: "another"}},
		{Event: proto.EventFailed},
	} {
		d.Handle(e)
	}
	deadline := time.Now().Add(20 * time.Second)
	for first.Counts().OK < 2 && time.Now().Before(deadline) {
		<-time.After(5 * time.Millisecond)
	}
	text, err := os.ReadFile(out)
	got := strings.Fields(string(text))
	slices.Sort(got)
	if err != nil || !slices.Equal(got, []string{proto.EventClosed, proto.EventLost}) {
		t.Errorf("it ran on %v, %v", got, err)
	}
	d.applies()
	if d.hooks["nms"] != first {
		t.Error("the unchanged hook was restarted")
	}
	d.has(document(`"callhome:hook": "` + two + `",`))
	d.applies()
	if d.hooks["nms"] == first || d.hooks["nms"] == nil {
		t.Error("the changed hook was not replaced")
	}
	d.has(document(""))
	d.applies()
	if len(d.hooks) != 0 {
		t.Errorf("left are %v", d.hooks)
	}
}

// A file that the document names and this machine lacks is refused, with its path in
// the document.
func TestMissingFilesAreRefused(t *testing.T) {
	for name, c := range map[string]config.Client{
		"/callhome:hook: checking the hook: stat /nonexistent":                                   {Name: "noc", Hook: "/nonexistent"},
		"/endpoints/endpoint[name='east']: host key \"nokey\": stat /nonexistent/nokey: no such": {Name: "noc", Endpoints: []config.Endpoint{{Name: "east", HostKeys: []config.HostKey{{Name: "nokey", Path: "/nonexistent/nokey"}}}}},
	} {
		err := missing(&config.Config{Clients: []config.Client{c}})
		want := "/ietf-netconf-server:netconf-server/call-home/netconf-client[name='noc']" + name
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	here := config.Client{Name: "noc", Hook: "/bin/true", Endpoints: []config.Endpoint{{HostKeys: []config.HostKey{{Path: "/bin/sh"}, {Private: []byte("x")}}}}}
	if err := missing(&config.Config{Clients: []config.Client{here}}); err != nil {
		t.Error(err)
	}
}
