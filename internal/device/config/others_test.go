package config

import (
	"strings"
	"testing"
)

// theirs is written in the shape of the example that Netopeer2 publishes for
// call home in this revision of the model (example_configuration/
// ssh_callhome.xml, here in JSON): a key that its keystore generated itself, and
// users that are taken over from another endpoint.
const theirs = `{
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

// Of another implementation's document there are two things to change, and each
// sentence says how. Changed so, it works.
func TestDocumentOfAnotherImplementation(t *testing.T) {
	_, errs := Parse([]byte(theirs), all, Defaults{})
	want := []struct{ path, says string }{
		{"/server-identity/host-key[name='default-key']/public-key/central-keystore-reference", `for a file of that name in /etc/ssh it has this one entry: {"name": "genkey", "hidden-private-key": [null]}`},
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
	).Replace(theirs)
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

// Its listening side and its passwords, too, say what to use instead.
func TestNodesOfAnotherImplementation(t *testing.T) {
	for _, tt := range []struct{ node, says string }{
		{`"libnetconf2-netconf-server:keyboard-interactive": {"use-system-auth": [null]}`, "allow it in callhome's sshd_config"},
		{`"password": {"hashed-password": "$0$pass"}`, "for the account's own password leave users out"},
		{`"public-keys": {"libnetconf2-netconf-server:use-system-keys": [null]}`, "leave users out"},
	} {
		_, errs := Parse(with(t, edit{inSSH + "client-authentication/users/user", `[{"name": "u", ` + tt.node + `}]`}), all, Defaults{})
		if len(errs) != 1 || !strings.Contains(errs[0].Message, tt.says) {
			t.Errorf("%s: %v", tt.node, errs)
		}
	}
}
