package main

import (
	"bytes"
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
	"callhome/internal/hook"
	"callhome/internal/proto"
	"callhome/internal/sysexits"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// noCalls is a manager that takes no calls.
type noCalls struct {
	mu   sync.Mutex // guards told
	told []proto.Event
}

func (*noCalls) Keep(*settings.Call, session.Owner) (reconnect.Session, error) {
	return nil, proto.NewError(proto.CodeShutdown, "callhome-mgr is stopping")
}
func (*noCalls) Kept() []reconnect.Session { return nil }

func (n *noCalls) Tell(e proto.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = append(n.told, e)
}

// of returns the events of that name.
func (n *noCalls) of(name string) (out []proto.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.told {
		if e.Event == name {
			out = append(out, e)
		}
	}
	return out
}

// device is a machine with an sshd that says its version, and a configuration
// whose file is not there yet.
type device struct {
	*configuration
	t       *testing.T
	base    *settings.Call
	manager *noCalls
}

func newDevice(t *testing.T, explicit bool) *device {
	t.Helper()
	dir := t.TempDir()
	d := &device{t: t, base: &settings.Call{}, manager: &noCalls{}}
	d.base.Sshd.Sshd = program(t, "sshd", "echo OpenSSH_9.8p1 >&2")
	d.configuration = &configuration{
		file: filepath.Join(dir, "callhome.json"), explicit: explicit, dir: filepath.Join(dir, "clients"), log: hclog.NewNullLogger(),
		keeper: reconnect.New(d.manager, reconnect.Options{Dir: filepath.Join(dir, "clients")}, hclog.NewNullLogger()), hooks: make(map[string]*hook.Hook),
	}
	t.Cleanup(d.keeper.Close)
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

// document is one with a client that has these extras, JSON members of the
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
	if err := os.WriteFile(d.file, []byte(document), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) applies() {
	d.t.Helper()
	if err := d.apply(d.base); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) refuses(part string) {
	d.t.Helper()
	before := d.keeper.Status()
	n := len(d.manager.of(proto.EventConfigRefused))
	err := d.apply(d.base)
	if err == nil || !strings.Contains(err.Error(), part) {
		d.t.Errorf("it says %v, expected %q", err, part)
	}
	after := d.keeper.Status()
	if len(before) != len(after) {
		d.t.Errorf("%d clients became %d", len(before), len(after))
	}
	if st := d.Status(); !strings.Contains(st.Error, part) {
		d.t.Errorf("status says %q", st.Error)
	}
	if told := d.manager.of(proto.EventConfigRefused); len(told) != n+1 || !strings.Contains(told[n].Words, part) {
		d.t.Errorf("told %v", told)
	}
}

func TestAConfigurationIsAppliedAndAnother(t *testing.T) {
	d := newDevice(t, true)
	d.has(document(""))
	d.applies()
	st := d.Status()
	if st.File != d.file || st.Applied == nil || st.Clients != 1 || st.Error != "" {
		t.Errorf("status is %+v", st)
	}
	if list := d.keeper.Status(); len(list) != 1 || list[0].Client != "nms" {
		t.Errorf("the clients are %+v", list)
	}
	keys, err := filepath.Glob(filepath.Join(d.dir, "*", "keys", "netop"))
	if err != nil || len(keys) != 1 {
		t.Fatalf("the user's keys are in %v, %v", keys, err)
	}
	d.has(`{"ietf-netconf-server:netconf-server": {}}`)
	d.applies() // running sessions may yet read the keys
	if _, err := os.Stat(keys[0]); err != nil {
		t.Errorf("after one more configuration: %v", err)
	}
	d.applies()
	if _, err := os.Stat(keys[0]); err == nil {
		t.Error("after two more configurations the keys are there")
	}
	if told := d.manager.of(proto.EventConfigApplied); len(told) != 3 || told[0].Words != "1 clients" {
		t.Errorf("told %v", told)
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
		"too large":       {strings.Repeat(" ", maxConfig+1), "more than"},
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
		t.Errorf("status says %q of a good one", st.Error)
	}
}

// A file that is not there is no configuration at the start, where nobody named
// it. Where there are clients it was lost, or is being replaced.
func TestAFileThatIsNotThere(t *testing.T) {
	d := newDevice(t, false)
	dir := d.dir
	d.dir = "/nonexistent/clients" // needed by nobody
	d.applies()
	if st := d.Status(); st.Applied == nil || st.Clients != 0 {
		t.Errorf("status is %+v", st)
	}
	d.dir = dir
	d.has(document(""))
	d.applies()
	if err := os.Remove(d.file); err != nil {
		t.Fatal(err)
	}
	d.refuses("no such file")

	d = newDevice(t, true)
	d.refuses("no such file")
	if code := sysexits.Code(d.apply(d.base)); code != sysexits.NoInput {
		t.Errorf("exit status %d", code)
	}
}

// A document can have a fault in each line; who reads them all asks check.
func TestManyFaultsAreCutShort(t *testing.T) {
	d := newDevice(t, true)
	d.has(`{"ietf-netconf-server:netconf-server": {` + strings.Repeat("\"x\": 1,\n", 5000) + `"y": 1}}`)
	err := d.apply(d.base)
	if err == nil || len(err.Error()) < 2*maxFaults {
		t.Fatalf("the caller is told %d bytes", len(fmt.Sprint(err)))
	}
	if n := len(d.Status().Error); n > maxFaults+100 {
		t.Errorf("status has %d bytes", n)
	}
	if told := d.manager.of(proto.EventConfigRefused); len(told) != 1 || len(told[0].Words) > maxFaults+100 {
		t.Errorf("the event has %d bytes", len(told[0].Words))
	}
}

// Who asks is answered while a document is read, however long sshd takes to
// say what it can do.
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
	go func() { applied <- d.apply(&slow) }()
	begun, err := os.OpenFile(fifo+".go", os.O_WRONLY, 0) // returns when sshd reads
	if err != nil {
		t.Fatal(err)
	}
	if st := d.Status(); st.Clients != 1 {
		t.Errorf("status is %+v", st)
	}
	d.handle(proto.Event{Event: proto.EventLost, Client: &proto.ClientStatus{Client: "nms"}})
	select {
	case err := <-applied:
		t.Fatalf("it was applied before sshd had answered: %v", err)
	default:
	}
	fmt.Fprintln(begun)
	begun.Close()
	if err := <-applied; err != nil {
		t.Error(err)
	}
}

func TestAClientsHook(t *testing.T) {
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
		d.handle(e)
	}
	deadline := time.Now().Add(20 * time.Second)
	for first.Counts().OK < 2 && time.Now().Before(deadline) {
		<-time.After(5 * time.Millisecond)
	}
	text, err := os.ReadFile(out)
	got := strings.Fields(string(text))
	slices.Sort(got)
	if err != nil || !slices.Equal(got, []string{proto.EventClosed, proto.EventLost}) {
		t.Errorf("it was run on %v, %v", got, err)
	}
	d.applies()
	if d.hooks["nms"] != first {
		t.Error("the same hook was begun anew")
	}
	d.has(document(`"callhome:hook": "` + two + `",`))
	d.applies()
	if d.hooks["nms"] == first || d.hooks["nms"] == nil {
		t.Error("another hook is the same")
	}
	d.has(document(""))
	d.applies()
	if len(d.hooks) != 0 {
		t.Errorf("left are %v", d.hooks)
	}
}

func TestCheckDocument(t *testing.T) {
	d := newDevice(t, true)
	d.has(document(""))
	var out bytes.Buffer
	if err := checkDocument(&out, d.file, true, &settings.Settings{Call: *d.base}); err != nil {
		t.Fatal(err)
	}
	want := "client nms: persistent, 192.0.2.1 port 4334\n" + d.file + ": 1 client\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	d.has(strings.Replace(document(`"colour": "red",`), `"persistent": {}`, `"periodic": {"period": 0}`, 1))
	err := checkDocument(&out, d.file, true, &settings.Settings{Call: *d.base})
	if sysexits.Code(err) != sysexits.Config || !strings.Contains(err.Error(), "colour") || !strings.Contains(err.Error(), "period") {
		t.Errorf("it says %v", err)
	}
}

// What the document names must be on this machine: check and reload say so, and
// where.
func TestWhatIsMissingIsRefused(t *testing.T) {
	for name, c := range map[string]config.Client{
		"/callhome:hook: looking at the hook: stat /nonexistent":                             {Name: "noc", Hook: "/nonexistent"},
		"/endpoints/endpoint[name='east']: host key nokey: stat /nonexistent/nokey: no such": {Name: "noc", Endpoints: []config.Endpoint{{Name: "east", HostKeys: []config.HostKey{{Name: "nokey", Path: "/nonexistent/nokey"}}}}},
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

func TestUserOf(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys")
	text := "# comment\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJnW1VXG0Vw0Vxmzn7PfNOPcF2zmM4sQBMHzhs8tkQW me\n"
	if err := os.WriteFile(keys, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(t.TempDir(), "none")
	if err := os.WriteFile(none, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for word, code := range map[string]int{
		"netop=" + keys: sysexits.OK, "netop": sysexits.Usage, "=" + keys: sysexits.Usage, "netop=": sysexits.Usage,
		"netop=/nonexistent": sysexits.NoInput, "netop=" + none: sysexits.NoInput,
	} {
		u, err := userOf(word)
		if got := sysexits.Code(err); err == nil && code != sysexits.OK || err != nil && got != code {
			t.Errorf("%s: %+v, %v", word, u, err)
		}
		if code == sysexits.OK && (u.Name != "netop" || len(u.Keys) != 1 || !strings.HasPrefix(u.Keys[0], "ssh-ed25519 ")) {
			t.Errorf("%s is %+v", word, u)
		}
	}
}

func TestClientTable(t *testing.T) {
	soon := time.Now().Add(90 * time.Second)
	var out bytes.Buffer
	clientTable(&out, []proto.ClientStatus{
		{Client: "n\x1b[2Jms", State: proto.ClientServing, Since: time.Now(), Endpoint: "a", Address: "192.0.2.1:4334", User: "netop", Session: 7, Connections: 3},
		{Client: "b", State: proto.ClientWaiting, Since: time.Now(), Endpoint: "x", Failures: 4, NextAttempt: &soon,
			LastError: &proto.LastError{Time: time.Now(), Stage: proto.StageTCP, Message: "connection\nrefused"}},
	})
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 7 || strings.Contains(out.String(), "\x1b") {
		t.Fatalf("got %q", out.String())
	}
	for i, want := range []string{"CLIENT STATE FOR ENDPOINT ADDRESS USER SESSION FAILED NEXT",
		`n\x1b[2Jms serving 0s a 192.0.2.1:4334 netop 7 0`, `b waiting 0s x 4 in 1m30s`, "", "last errors:", `b, 0s ago, tcp: connection\nrefused`} {
		if got := strings.Join(strings.Fields(lines[i]), " "); got != want {
			t.Errorf("line %d is %q, want %q", i, got, want)
		}
	}
}

func TestConfigurationInWords(t *testing.T) {
	now := time.Now()
	for want, s := range map[string]proto.ConfigStatus{
		"no configuration, so no standing connections":                                                  {},
		"configuration f with 2 clients, applied 0s ago":                                                {File: "f", Applied: &now, Clients: 2},
		"configuration f with 2 clients, applied 0s ago\nthe one read last was refused:\n  a\n  b\\x1b": {File: "f", Applied: &now, Clients: 2, Error: "a\nb\x1b"},
		"no configuration, so no standing connections\nthe one read last was refused:\n  line 1: no":    {Error: "line 1: no"},
	} {
		if got := configurationInWords(s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// What init makes is what check takes, in the order that was given.
func TestInitMakesWhatCheckTakes(t *testing.T) {
	d := newDevice(t, true)
	doc, err := config.Init(config.InitOptions{NMS: []string{"nms.example.net", "[2001:db8::1]:830"}, HostKeys: []string{"ssh_host_ed25519_key"}})
	if err != nil {
		t.Fatal(err)
	}
	d.has(string(doc))
	var out bytes.Buffer
	if err := checkDocument(&out, d.file, true, &settings.Settings{Call: *d.base}); err != nil {
		t.Fatal(err)
	}
	if want := "client nms: persistent, nms.example.net port 4334, 2001:db8::1 port 830\n"; !strings.HasPrefix(out.String(), want) {
		t.Errorf("got %q", out.String())
	}
}
