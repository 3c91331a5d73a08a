//go:build integration

package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"callhome/internal/nms/nmsproto"
	"callhome/internal/proto"
	"callhome/test/sandbox"
)

// reasonsOfTheClient: the device shows why the station or the console ended a
// connection.
func reasonsOfTheClient(t *testing.T, move func(*device)) {
	t.Parallel()
	d, n := newSite(t, "/bin/cat")
	move(d)
	m := startManager(t, d)
	s := startStation(n)
	// ends makes a call that the station ends, and returns how its session ended.
	ends := func(addr string) proto.SessionInfo {
		t.Helper()
		made, err := m.CallHome(addr, proto.WaitNone)
		if err != nil {
			t.Fatal(err)
		}
		var found proto.SessionInfo
		sandbox.Await(t, patience, "the end of a session", func() error {
			var st proto.Status
			m.must(proto.MethodStatus, nil, &st)
			for _, r := range st.Recent {
				if r.Session == made.Session {
					found = r
					return nil
				}
			}
			return fmt.Errorf("%+v", st.Recent)
		})
		return found
	}
	reload := func() {
		t.Helper()
		if err := s.ask(nmsproto.MethodReload, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, info proto.SessionInfo, stage proto.Stage, cause string) {
		t.Helper()
		if stage != "" && info.Stage != stage || !strings.HasPrefix(info.Cause, "the NETCONF client ended it: "+cause) {
			t.Errorf("%s: it ended at %s: %s", what, info.Stage, info.Cause)
		}
	}
	want("unknown", ends(s.addr), proto.StageSSH, "no device has this host key")

	s.write("edge7", fmt.Sprintf(`{"id": "edge7", "user": "ghost", "host-keys": [%q]}`, publicKey(t, d.hostKey)))
	reload()
	want("login refused", ends(s.addr), proto.StageAuth, "login failed: unable to authenticate")

	s.Know("edge7", d.hostKey, "")
	reload()
	d.Call(s.addr) // not the manager's
	s.AwaitState("edge7", nmsproto.Connected)
	want("duplicate", ends(s.addr), proto.StageSSH, "edge7 is connected already")
	if e := s.AwaitEvent("duplicate", "edge7"); e.HostKey == "" || !strings.Contains(e.Software, "OpenSSH") {
		t.Errorf("the event is %+v", e)
	}

	s.Know("edge7", d.hostKey, `, "duplicate": "replace"`)
	reload()
	m.MustCallHome(s.addr, proto.WaitSSH)
	s.AwaitEvent("replaced", "edge7")
	d.Call(s.addr)
	want("replaced", m.AwaitNone(), proto.StageSubsystem, "the device called home again")

	writeFile(t, filepath.Join(s.registry, "revoked_keys"), publicKey(t, d.hostKey)+"\n", 0o644)
	reload()
	s.AwaitState("edge7", nmsproto.Lost)
	want("revoked", ends(s.addr), proto.StageSSH, "host key SHA256:")
	writeFile(t, filepath.Join(s.registry, "revoked_keys"), "", 0o644)
	reload()
	m.MustCallHome(s.addr, proto.WaitSSH)

	s.Stop()
	want("the station stops", m.AwaitNone(), proto.StageSubsystem, "the station is stopping")

	addr := freeAddr("127.0.0.1")
	console := n.Console(addr, "--hello", "--login-timeout", "2s")
	info := ends(addr)
	console.MustExit(76) // cat is no NETCONF server
	// Any stage: cat's answer can end the session before its login is proven.
	want("the console leaves", info, "", "closed by user")
}
