//go:build integration

package clients

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"

	"callhome/test/sandbox"

	sshkeys "golang.org/x/crypto/ssh"
)

// documentFor is a configuration of three clients: one at each port, and one
// that is disabled.
func documentFor(t *testing.T, ports ...string) string {
	t.Helper()
	pem, err := os.ReadFile(runDir + "/host_key")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := sshkeys.ParseRawPrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := raw.(*ed25519.PrivateKey); ok {
		raw = *key // as package x509 has it
	}
	der, err := x509.MarshalPKCS8PrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := sshkeys.NewSignerFromKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprintf(`{"name": "k", "public-key": {"inline-definition": {
		"public-key-format": "ietf-crypto-types:ssh-public-key-format", "public-key": %q,
		"private-key-format": "ietf-crypto-types:one-asymmetric-key-format", "cleartext-private-key": %q}}}`,
		base64.StdEncoding.EncodeToString(signer.PublicKey().Marshal()), base64.StdEncoding.EncodeToString(der))
	var list []string
	for i, port := range append(ports, "1") {
		enabled := i < len(ports)
		list = append(list, fmt.Sprintf(`{"name": "nms %d", "callhome:enabled": %v,
			"endpoints": {"endpoint": [{"name": "first", "ssh": {
				"tcp-client-parameters": {"remote-address": "127.0.0.1", "remote-port": %s},
				"ssh-server-parameters": {"server-identity": {"host-key": [%s]}}
			}}]},
			"connection-type": {"persistent": {}}}`, i, enabled, port, key))
	}
	return `{"ietf-netconf-server:netconf-server": {"call-home": {"netconf-client": [` + strings.Join(list, ",") + `]}}}`
}

// TestStandingClients: the clients of the configuration, as a NETCONF
// application sees them: one that is served, one that cannot be reached, one
// that is disabled; and their events.
func TestStandingClients(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c client) {
		s := startSSH(t, "user_key", "-s", "netop@nms", "netconf")
		dead := freePort(t)
		dir, err := os.MkdirTemp(runDir, "c")
		if err != nil {
			t.Fatal(err)
		}
		file := dir + "/callhome.json"
		if err := os.WriteFile(file, []byte(documentFor(t, s.port, dead)), 0o600); err != nil {
			t.Fatal(err)
		}
		d := startDaemon(t, nil, "--config", file, "--clients-dir", dir+"/clients", "--data-dir", dir+"/data")
		s.echo(t, "hello")
		var answers []answer
		sandbox.Await(t, patience, "all clients", func() error {
			answers = c.ask(t, caller{}, d.socket, "clients", "then", "status")
			if states := fmt.Sprint(answers[0].all["client-state"]); states != "[serving waiting disabled]" && states != "[serving dialing disabled]" {
				return fmt.Errorf("their states are %s", states)
			}
			if len(answers[0].all["last-stage"]) != 3 || answers[0].all["last-stage"][1] == "" {
				return fmt.Errorf("nothing has failed: %v", answers[0].all)
			}
			return nil
		})
		list := answers[0]
		list.want(t, "count", "3", "client", "nms 0", "client-endpoint", "first", "connections", "1", "periodic", "0", "last-stage", "", "next-attempt", "0")
		if got := list.all; got["client"][2] != "nms 2" || got["last-stage"][1] != "tcp" || got["last-end"][1] != "no-connection" ||
			!strings.Contains(got["last-error"][1], "refused") || got["connections"][1] != "0" || got["failures"][1] == "0" {
			t.Errorf("the clients are %v", got)
		}
		answers[1].want(t, "clients", "3", "connected", "1", "applied", "1", "config-error", "")
		c.session(t, d.socket, "session", list.get("client-session")).want(t, "of-client", "nms 0", "of-endpoint", "first", "user", "netop", "state", "serving")

		for _, a := range c.ask(t, caller{}, d.socket, "restart", "then", "restart", "nms 1") {
			a.want(t, "ok", "1")
		}
		// The first client is connected, and the second one refuses.
		c.ask(t, caller{}, d.socket, "call-client", "nms 0")[0].want(t, "ok", "1")
		c.fails(t, "CALLHOME_ERR_UNAVAILABLE", d.socket, "call-client", "nms 1")
		c.fails(t, "CALLHOME_ERR_NOEXISTS", d.socket, "call-client", "nms 9")
		d.awaitLog(t, "method=restart_call_home", `nms 1`)
		c.fails(t, "CALLHOME_ERR_NOEXISTS", d.socket, "restart", "nms 9")

		// A wrong document is refused, and said so: the words of one event and
		// of the status.
		if err := os.WriteFile(file, []byte(`{"wrong": 1}`), 0o600); err != nil {
			t.Fatal(err)
		}
		c.fails(t, "CALLHOME_ERR_BAD_CONFIG", d.socket, "reload")
		status := c.ask(t, caller{}, d.socket, "status")[0]
		status.want(t, "clients", "3", "connected", "1", "applied", "1")
		status.contains(t, "config-error", "wrong")

		// The client that cannot be reached continues to fail, with an event each time.
		events := c.ask(t, caller{}, d.socket, "events", "6")[0]
		found := false
		for i, name := range events.all["event"] {
			found = found || name == "attempt-failed" && events.all["about"][i] == "nms 1"
		}
		if !found {
			t.Errorf("events %v about %v", events.all["event"], events.all["about"])
		}
	})
}
