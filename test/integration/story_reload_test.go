//go:build integration

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"callhome/internal/proto"
	"callhome/test/sandbox"
	"callhome/test/skips"
)

// A document with a fault is refused, with every fault and where it is, and
// what runs goes on.
func TestAWrongDocumentChangesNothing(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	nms := s.nms.Station(freeAddr("127.0.0.1"))
	k := s.Keep(document(persistent("nms", s.At(nms.Addr))))
	running := k.AwaitServing(patience, "nms")
	wrong := `{
 "ietf-netconf-server:netconf-server": {
  "call-home": {
   "netconf-client": [
    {
     "name": "nms",
     "endpoints": {
      "endpoint": [
       {
        "name": "it's \"one\"",
        "ssh": {
         "tcp-client-parameters": {
          "remote-address": "192.0.2.1",
          "remote-port": "4334"
         },
         "ssh-server-parameters": {
          "server-identity": {
           "host-key": [{"name": "k", "public-key": {"central-keystore-reference": "nosuch"}}]
          }
         }
        }
       }
      ]
     },
     "connection-type": {"persistent": {}},
     "reconnect-strategy": {"max-attempts": 0}
    }
   ]
  }
 }
}
`
	faults := []string{
		`line 14: /ietf-netconf-server:netconf-server/call-home/netconf-client[name='nms']/endpoints/endpoint[name=`,
		"/ssh/tcp-client-parameters/remote-port: ",
		"line 18: ", "nosuch",
		"line 26: ", "/reconnect-strategy/max-attempts: ",
	}
	contains(t, "the refusal", k.Refused(wrong), faults...)
	contains(t, "the event", k.AwaitPublished(patience, "", proto.EventConfigRefused, 1).Text, faults...)
	if st := k.Status(); st.Config.Applied == nil || st.Config.Clients != 1 || !strings.Contains(st.Config.Error, "line 14") || len(st.Clients) != 1 {
		t.Errorf("the status is %+v", st)
	}
	_, stderr := k.Ask(78, "check", k.file)
	contains(t, "check", stderr, faults...)
	k.Undisturbed(running)

	// What is no JSON at all, and a file that is not there.
	contains(t, "the refusal", k.Refused(`{"ietf-netconf-server:netconf-server": `), "line 1")
	if err := os.Remove(k.file); err != nil {
		t.Fatal(err)
	}
	if err := k.ask(proto.MethodReloadConfig, nil, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a reload without the file: %v", err)
	}
	k.Undisturbed(running)
	nms.Session().echo("still here")

	// SIGHUP reads it too, and the same document again changes no session.
	applied := len(k.Published("", proto.EventConfigApplied))
	replace(t, k.file, document(persistent("nms", s.At(nms.Addr))))
	k.Hup()
	k.AwaitPublished(patience, "", proto.EventConfigApplied, applied+1)
	k.Undisturbed(running)
	if st := k.Status(); st.Config.Error != "" {
		t.Errorf("an error is left: %s", st.Config.Error)
	}
	nms.Session().leave()
}

// The daemon follows the file by itself, where that is configured.
func TestTheConfigurationIsFollowed(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	first, second := s.nms.Station(freeAddr("127.0.0.1")), s.nms.Station(freeAddr("127.0.0.1"))
	k := s.Keep(document(persistent("first", s.At(first.Addr))), "--follow-config")
	running := k.AwaitServing(patience, "first")
	replace(t, k.file, document(persistent("first", s.At(first.Addr)), persistent("second", s.At(second.Addr))))
	k.AwaitServing(patience, "second")
	k.Undisturbed(running)
	replace(t, k.file, `{"wrong": 1}`)
	k.AwaitPublished(patience, "", proto.EventConfigRefused, 1)
	k.Undisturbed(running)
	replace(t, k.file, document(persistent("second", s.At(second.Addr))))
	sandbox.Await(t, patience, "the end of what is not configured any more", func() error {
		if list := k.Sessions(); len(list) != 1 || list[0].Client != "second" {
			return fmt.Errorf("the sessions are %+v", list)
		}
		return nil
	})
	second.Session().leave()
}

// What init writes is valid, check likes it, and the daemon connects by it: the
// machine's own host key, the user's keys from a file.
func TestInitMakesADocumentThatWorks(t *testing.T) {
	t.Parallel()
	sandbox.Need(t, "yanglint")
	s := newStandingSite(t, "/bin/cat")
	nms := s.nms.Station(freeAddr("127.0.0.1"))
	if _, err := os.Stat("/etc/ssh/ssh_host_ed25519_key"); err != nil {
		skips.Story(t, "this machine has no host key")
	}
	writeFile(t, s.nms.knownHosts, alias+" "+publicKey(t, "/etc/ssh/ssh_host_ed25519_key")+"\n", 0o600)
	file := filepath.Join(tempDir(t), "callhome.json")
	made := start(t, "callhome-mgr", s.Manager("init", "--nms", nms.Addr, "--user", netop+"="+s.nms.key+".pub", "--output", file))
	made.MustExit(0)
	validate(t, "config", readFile(t, file))
	host, port := splitAddr(t, nms.Addr)
	check := start(t, "callhome-mgr", s.Manager("check", file))
	check.MustExit(0)
	contains(t, "check", check.Stdout(), "client nms: persistent, "+host+" port "+port, ": 1 client")
	k := s.Keep(readFile(t, file))
	if session := k.AwaitServing(patience, "nms"); session.User != netop {
		t.Errorf("the session is %+v", session)
	}
	nms.Session().echo("hello")
	nms.Session().leave()
}

// validate holds a document against the YANG modules that the package has.
func validate(t *testing.T, kind, doc string) {
	t.Helper()
	file := writeFile(t, filepath.Join(tempDir(t), "document.json"), doc, 0o644)
	if out, err := exec.Command("../../packaging/yang/validate", file, "-t", kind).CombinedOutput(); err != nil {
		t.Errorf("yanglint: %v\n%s\n%s", err, out, doc)
	}
}

// Everything that the stories' documents say is valid by the modules, and so is
// what `state` prints: connected, failing, idle, stopped and disabled.
func TestTheStateTreeIsValid(t *testing.T) {
	t.Parallel()
	sandbox.Need(t, "yanglint")
	s := newStandingSite(t, "/bin/cat")
	nms := s.nms.Station(freeAddr("127.0.0.1"))
	refused, disabled, given, idle := persistent("refused & <co>", s.At(freeAddr("127.0.0.1"))), persistent("disabled", s.At(nms.Addr)), persistent("given up", s.At(freeAddr("127.0.0.1"))), persistent("idle", s.At(nms.Addr))
	disabled["callhome:enabled"] = false
	given["callhome:max-call-home-attempts"] = 1
	idle["connection-type"] = object{"periodic": object{"period": 65535, "anchor-time": "2026-01-01T00:00:00Z"}}
	doc := document(persistent("nms", quickAlive(s.At(nms.Addr))), refused, disabled, given, idle)
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	validate(t, "config", string(data))
	k := s.Keep(doc)
	k.AwaitServing(patience, "nms")
	k.AwaitState(patience, "given up", proto.ClientStopped)
	k.AwaitPublished(patience, "refused & <co>", proto.EventAttemptFailed, 2)
	k.AwaitState(patience, "disabled", proto.ClientDisabled)
	k.AwaitState(patience, "idle", proto.ClientIdle)
	out, _ := k.Ask(0, "state")
	contains(t, "the state", out, `"serving"`, `"stopped"`, `"disabled"`, `"idle"`, `"last-error"`, `"next-attempt"`, "connection refused")
	validate(t, "get", out)
	table, _ := k.Ask(0, "status")
	contains(t, "the status", table, "5 clients", "serving", "connection refused", "refused & <co>", nms.Addr)
	events, _ := k.Ask(0, "events")
	contains(t, "the events", events, "given-up", "attempt-failed", "configuration-applied")
	nms.Session().leave()
}

// Reload under load: of a hundred sessions each of fifty reloads changes one
// client, and ninety-nine notice nothing. A stub stands in for sshd.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	const crowd, reloads = 100, 50
	s := newStubSite(t)
	nms := s.nms.NewStation(freeAddr("127.0.0.1"))
	nms.serve = nms.Hold
	nms.Open()
	list := s.Crowd(crowd, nms.Addr)
	k := s.Keep(document(list...))
	before := k.awaitCrowd(crowd)
	begin := time.Now()
	for i := range reloads {
		changed := fmt.Sprintf("nms-%d", i)
		putTCP(list[i]["endpoints"].(object)["endpoint"].([]object)[0], i%60, "callhome:dscp")
		k.Reload(document(list...))
		k.AwaitClient(patience, changed, func(c proto.ClientStatus) error {
			if c.Session == 0 || c.Session == before[changed].Session {
				return errors.New("it has no session, or the one from before")
			}
			return nil
		})
		after := k.awaitCrowd(crowd)
		for name, was := range before {
			now := after[name]
			same := now.Session == was.Session && now.PID == was.PID && now.Local == was.Local && now.Since.Equal(was.Since)
			if same != (name != changed) {
				t.Fatalf("reload %d changed %s; %s was %+v and is %+v", i, changed, name, was, now)
			}
		}
		before = after
	}
	t.Logf("%d reloads took %v", reloads, time.Since(begin))
	if calls := len(nms.Calls()); calls != crowd+reloads {
		t.Errorf("%d calls, expected %d", calls, crowd+reloads)
	}
}

// awaitCrowd waits until each of n clients has one session with a
// login, and returns them by client.
func (k *keeper) awaitCrowd(n int) map[string]proto.SessionInfo {
	t := k.device.t
	t.Helper()
	var by map[string]proto.SessionInfo
	sandbox.Await(t, 3*patience, fmt.Sprintf("%d clients with a session", n), func() error {
		by = make(map[string]proto.SessionInfo)
		list := k.Sessions()
		for _, s := range list {
			if s.State == proto.StateAuthenticated || s.State == proto.StateServing {
				by[s.Client] = s
			}
		}
		if len(by) != n || len(list) != n {
			time.Sleep(20 * time.Millisecond) // a long list is work for the daemon
			for _, c := range k.Status().Clients {
				if _, ok := by[c.Client]; !ok {
					text, _ := json.Marshal(c)
					return fmt.Errorf("%d have, in %d sessions; one without is %s", len(by), len(list), text)
				}
			}
			return fmt.Errorf("%d have, in %d sessions", len(by), len(list))
		}
		return nil
	})
	return by
}

// What a change is about is all that it touches: a client's strategy is another
// one from then on, and its session goes on.
func TestAnotherStrategyKeepsTheSession(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	nms := s.nms.Station(freeAddr("127.0.0.1"))
	client := persistent("nms", quickAlive(s.At(nms.Addr)))
	k := s.Keep(document(client))
	running := k.AwaitServing(patience, "nms")
	client["reconnect-strategy"] = object{"max-attempts": 1, "start-with": "last-connected"}
	client["callhome:backoff"] = object{"initial": 100, "maximum": 200}
	k.Reload(document(client))
	if c := k.AwaitState(patience, "nms", proto.ClientServing); c.AttemptsLeft != 1 || c.Session != running.Session {
		t.Errorf("the client is %+v", c)
	}
	k.Undisturbed(running)
	nms.Session().echo("hello")
	nms.Shut()
	nms.HangUp()
	// In force: each attempt is the last one at its endpoint, and the next soon.
	k.AwaitPublished(patience, "nms", proto.EventAllExhausted, 5)
}

// NMSes that accept and stay silent make no reload wait, and no other client.
// With Netopeer2 2.7.0, measured by the project, one of them made the change
// wait for 5 s, and the new client was not called in 25 s.
func TestASilentNMSDelaysNoReload(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	silent, nms := s.nms.NewStation(freeAddr("127.0.0.1")), s.nms.Station(freeAddr("127.0.0.1"))
	silent.serve = silent.Hold
	silent.Open()
	var list []object
	for i := range 20 {
		list = append(list, persistent(fmt.Sprintf("silent-%d", i), s.At(silent.Addr)))
	}
	k := s.Keep(document(list...))
	silent.AwaitCall(patience, len(list))
	begin := time.Now()
	k.Reload(document(append(list, persistent("nms", s.At(nms.Addr)))...))
	reloaded := time.Since(begin)
	called := nms.AwaitCall(patience, 1).at.Sub(begin)
	if reloaded > patience/5 || called > patience/5 {
		t.Errorf("the reload took %v, the new client was called after %v", reloaded, called)
	}
	k.AwaitServing(patience, "nms")
	if calls := len(silent.Calls()); calls != len(list) {
		t.Errorf("%d calls to the silent one, expected %d", calls, len(list))
	}
	nms.Session().leave()
}
