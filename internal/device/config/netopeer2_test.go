package config

import (
	"strings"
	"testing"
)

// netopeer2 has the form of Netopeer2's example for call home in this revision of
// the model (example_configuration/ssh_callhome.xml, here in JSON): a key that its
// keystore generated, and the users of another endpoint.
const netopeer2 = `{
  "ietf-netconf-server:netconf-server": {
    "call-home": {
      "netconf-client": [
        {
          "name": "default-client",
          "endpoints": {
            "endpoint": [
              {
                "name": "default-ssh",
                "ssh": {
                  "tcp-client-parameters": {
                    "remote-address": "localhost"
                  },
                  "ssh-server-parameters": {
                    "server-identity": {
                      "host-key": [
                        {
                          "name": "default-key",
                          "public-key": {
                            "central-keystore-reference": "genkey"
                          }
                        }
                      ]
                    },
                    "client-authentication": {
                      "libnetconf2-netconf-server:endpoint-reference": "default-ssh"
                    }
                  }
                }
              }
            ]
          },
          "connection-type": {
            "persistent": {}
          }
        }
      ]
    }
  }
}`

// Netopeer2's document has two faults, whose messages say what to change. The changed
// document is accepted.
func TestNetopeer2sDocumentWorksAfterTwoChanges(t *testing.T) {
	_, errs := Parse([]byte(netopeer2), all, Defaults{})
	want := []struct{ path, says string }{
		{"/server-identity/host-key[name='default-key']/public-key/central-keystore-reference", `for a key file of that name in /etc/ssh add the entry {"name": "genkey", "hidden-private-key": [null]}`},
		{"/client-authentication/libnetconf2-netconf-server:endpoint-reference", "repeat users here, with a central-truststore-reference"},
	}
	if len(errs) != len(want) {
		t.Fatal(errs)
	}
	const at = "/ietf-netconf-server:netconf-server/call-home/netconf-client[name='default-client']/endpoints/endpoint[name='default-ssh']/ssh/ssh-server-parameters"
	for i, w := range want {
		if errs[i].Path != at+w.path || !strings.Contains(errs[i].Message, w.says) {
			t.Errorf("%v, want %s: %s", errs[i], w.path, w.says)
		}
	}

	changed := strings.NewReplacer(
		`{
  "ietf-netconf-server`, `{
  "ietf-keystore:keystore": {"asymmetric-keys": {"asymmetric-key": [{"name": "genkey", "hidden-private-key": [null]}]}},
  "ietf-truststore:truststore": {"public-key-bags": {"public-key-bag": [{"name": "noc", "public-key": [`+publicKeyEntry("a", wire(edKey.Public()))+`]}]}},
  "ietf-netconf-server`,
		`"libnetconf2-netconf-server:endpoint-reference": "default-ssh"`, `"users": {"user": [{"name": "netconf", "public-keys": {"central-truststore-reference": "noc"}}]}`,
	).Replace(netopeer2)
	c := parse(t, all, []byte(changed)).Clients
	if len(c) != 1 || c[0].Name != "default-client" || c[0].Periodic != nil {
		t.Fatalf("%+v", c)
	}
	e := c[0].Endpoints[0]
	if e.Host != "localhost" || e.Port != 4334 || e.HostKeys[0].Path != "/etc/ssh/genkey" || len(e.Users) != 1 || len(e.Users[0].Keys) != 1 {
		t.Errorf("%+v", e)
	}
	needYanglint(t)
	if out, err := yanglint(t, []byte(changed)); err != nil {
		t.Error(out)
	}
}

// The messages about Netopeer2's other nodes say what to use instead.
func TestNetopeer2sNodesHaveTheirMessages(t *testing.T) {
	for _, tt := range []struct{ node, says string }{
		{`"libnetconf2-netconf-server:keyboard-interactive": {"use-system-auth": [null]}`, "allow it in callhome's sshd_config"},
		{`"password": {"hashed-password": "$0$pass"}`, "for the account's password leave users out"},
		{`"public-keys": {"libnetconf2-netconf-server:use-system-keys": [null]}`, "leave users out"},
	} {
		_, errs := Parse(with(t, edit{inSSH + "client-authentication/users/user", `[{"name": "u", ` + tt.node + `}]`}), all, Defaults{})
		if len(errs) != 1 || !strings.Contains(errs[0].Message, tt.says) {
			t.Errorf("%s: %v", tt.node, errs)
		}
	}
}
