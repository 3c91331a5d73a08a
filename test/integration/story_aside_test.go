//go:build integration

package integration

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"callhome/internal/proto"
)

// Of a client with an endpoint of TLS, as Netopeer2 stores it, the SSH endpoint is
// served. What is left aside is in the event, the status and check.
func TestAnEndpointWithTLSIsReportedAsNotServed(t *testing.T) {
	t.Parallel()
	s := newStandingSite(t, "/bin/cat")
	nms := s.nms.Station(freeAddr("127.0.0.1"))
	tls := object{"name": "secure", "tls": object{"tcp-client-parameters": object{"remote-address": "192.0.2.1"}}}
	doc := document(persistent("nms", tls, quickAlive(s.At(nms.Addr))))
	put(doc, object{"endpoints": object{}}, "ietf-netconf-server:netconf-server", "listen")
	k := s.Keep(doc)
	if session := k.AwaitServing(patience, "nms"); session.Endpoint != nms.Addr {
		t.Errorf("the session is %+v", session)
	}
	const tlsSays = "endpoint[name='secure']/tls: this endpoint is not served: OpenSSH has no TLS"
	const listenSays = "/listen: not used: callhome does not listen"
	warnings := k.Status().Config.Warnings
	if len(warnings) != 2 {
		t.Fatalf("warnings %q", warnings)
	}
	contains(t, "the status", strings.Join(warnings, "\n"), tlsSays, listenSays)
	contains(t, "the event", k.AwaitPublished(patience, "", proto.EventConfigApplied, 1).Text, "clients: 1; left aside: ", tlsSays, listenSays)
	out, _ := k.Ask(0, "status")
	contains(t, "status", out, "left aside:", tlsSays, listenSays)
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	out, _ = k.Ask(0, "check", writeFile(t, filepath.Join(s.dir(), "tls.json"), string(data), 0o600))
	contains(t, "check", out, "warning: line 1: ", tlsSays, listenSays, "users: those that sshd_config allows")
}

// check FILE finds a user whose account sshd refuses because it is locked: without PAM.
func TestCheckOfADocumentFindsALockedAccount(t *testing.T) {
	t.Parallel()
	for pam, says := range map[string]string{
		"no":  "warning: user locked cannot log in: the account is locked",
		"yes": "user locked, with ssh-ed25519",
	} {
		s := newStandingSite(t, "/bin/cat")
		e := putSSH(s.At(freeAddr("127.0.0.1")), object{"user": []object{user(t, locked, s.nms)}}, "client-authentication", "users")
		data, err := json.Marshal(document(persistent("nms", e)))
		if err != nil {
			t.Fatal(err)
		}
		s.options = append(s.options, "--sshd-option", "UsePAM="+pam)
		check := start(t, "callhome-mgr", s.Manager("check", writeFile(t, filepath.Join(s.dir(), "locked.json"), string(data), 0o600)))
		check.MustExit(0)
		contains(t, "check with UsePAM "+pam, check.Stdout(), says)
		if pam == "yes" && strings.Contains(check.Stdout(), "locked:") {
			t.Errorf("with PAM: %s", check.Stdout())
		}
	}
}
