package config

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// What is valid and not callhome's is left aside with a warning at its line.
func TestWhatIsLeftAsideIsWarnedOf(t *testing.T) {
	const keystore, truststore = "/ietf-keystore:keystore/asymmetric-keys/asymmetric-key", "/ietf-truststore:truststore"
	tls := `{"name": "t", "tls": {"tcp-client-parameters": {"remote-address": "192.0.2.9"}, "tls-server-parameters": {"server-identity": {}}}}`
	ssh1 := string(marshal(t, with(t), inClient+"endpoints/endpoint/0"))
	for _, tt := range []struct {
		name  string
		edits []edit
		path  string // of the warning
		says  string
	}{
		{"listen beside call-home", []edit{{"ietf-netconf-server:netconf-server/listen", `{"endpoints": {"endpoint": [{"name": "x", "ssh": 5}]}}`}},
			"/ietf-netconf-server:netconf-server/listen", "callhome does not listen"},
		{"an endpoint with TLS", []edit{{inClient + "endpoints/endpoint", "[" + ssh1 + ", " + tls + "]"}},
			pathClient + "/endpoints/endpoint[name='t']/tls", "this endpoint is not served: OpenSSH has no TLS"},
		{"symmetric keys", []edit{{"ietf-keystore:keystore/symmetric-keys/symmetric-key", `[{"name": "s"}]`}},
			"/ietf-keystore:keystore/symmetric-keys/symmetric-key", "no host key is symmetric"},
		{"a certificate of TLS", []edit{{"ietf-keystore:keystore/asymmetric-keys/asymmetric-key", `[{"name": "k", "hidden-private-key": [null], "certificates": {"certificate": [{"name": "c"}]}}]`}},
			keystore + "[name='k']/certificates/certificate", "no X.509"},
		{"a bag of certificates", []edit{{"ietf-truststore:truststore/certificate-bags/certificate-bag", `[{"name": "b"}]`}},
			truststore + "/certificate-bags/certificate-bag", "no X.509"},
		{"a key that no endpoint uses", []edit{{"ietf-keystore:keystore/asymmetric-keys/asymmetric-key", `[{"name": "k", "private-key-format": "ietf-crypto-types:ec-private-key-format", "encrypted-private-key": {}}]`}},
			keystore + "[name='k']/encrypted-private-key", "not used by an endpoint: sshd cannot decrypt it"},
		{"a bag of keys that no endpoint uses", []edit{{"ietf-truststore:truststore/public-key-bags/public-key-bag", `[{"name": "b", "public-key": [{"name": "x", "public-key-format": "ietf-crypto-types:subject-public-key-info-format", "public-key": "AAAA"}]}]`}},
			truststore + "/public-key-bags/public-key-bag[name='b']/public-key[name='x']/public-key-format", "not used by an endpoint: subject-public-key-info-format"},
		{"libnetconf2's own settings", []edit{{"libnetconf2-netconf-server:ln2-netconf-server", `{"ignored-hello-module": ["x"]}`}},
			"/libnetconf2-netconf-server:ln2-netconf-server", "settings of libnetconf2's own server"},
		{"metadata of a leaf", []edit{{inTCP + "@remote-port", `{"ietf-netconf-with-defaults:default": true}`}}, pathTCP + "/@remote-port", "metadata (RFC 7952) is skipped, here and in 0 other places"},
		{"metadata of an entry and a leaf-list", []edit{{inClient + "@", `{"x:y": 1}`}, {inSSH + "transport-params/mac", `{"mac-alg": ["hmac-sha2-256"], "@mac-alg": [null]}`}},
			pathClient + "/@", "metadata (RFC 7952) is skipped, here and in 1 other places"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := parse(t, all, with(t, tt.edits...))
			if len(c.Warnings) != 1 || c.Warnings[0].Path != tt.path || !strings.Contains(c.Warnings[0].Message, tt.says) || c.Warnings[0].Line == 0 {
				t.Errorf("warnings %v, want %s: %s", c.Warnings, tt.path, tt.says)
			}
			if len(c.Clients) != 1 || len(c.Clients[0].Endpoints) != 1 || c.Clients[0].Endpoints[0].Name != "e1" {
				t.Errorf("clients %+v", c.Clients)
			}
		})
	}
}

// The same faults in an entry that an endpoint uses refuse the document, and so does a
// client whose endpoints are all of TLS.
func TestWhatIsUsedIsNotLeftAside(t *testing.T) {
	for _, tt := range []struct {
		name  string
		edits []edit
		path  string
		says  string
	}{
		{"a key", []edit{{"ietf-keystore:keystore/asymmetric-keys/asymmetric-key", `[{"name": "k", "private-key-format": "ietf-crypto-types:ec-private-key-format", "encrypted-private-key": {}}]`}, {inKey + "public-key", `{"central-keystore-reference": "k"}`}},
			"/ietf-keystore:keystore/asymmetric-keys/asymmetric-key[name='k']/encrypted-private-key", "sshd cannot decrypt it"},
		{"a bag", []edit{{"ietf-truststore:truststore/public-key-bags/public-key-bag", `[{"name": "b", "public-key": [{"name": "x", "public-key-format": "ietf-crypto-types:ssh-public-key-format", "public-key": "AAAA"}]}]`},
			{inSSH + "client-authentication/users/user", `[{"name": "u", "public-keys": {"central-truststore-reference": "b"}}]`}},
			"/ietf-truststore:truststore/public-key-bags/public-key-bag[name='b']/public-key[name='x']/public-key", "not a public key in SSH's format"},
		{"only TLS", []edit{{inEnd + "ssh", ``}, {inEnd + "tls", `{}`}}, pathClient + "/endpoints", "the client has only endpoints with tls, and OpenSSH has no TLS: add one with ssh"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, errs := Parse(with(t, tt.edits...), all, Defaults{})
			if len(errs) != 1 || errs[0].Path != tt.path || !strings.Contains(errs[0].Message, tt.says) {
				t.Errorf("faults %v, want %s: %s", errs, tt.path, tt.says)
			}
		})
	}
}

// Netopeer2 stores a generated key without its public key, or in PKCS #8 as
// rsa-private-key-format (openssl genpkey). The models accept both.
func TestKeysAsNetopeer2StoresThem(t *testing.T) {
	keys := map[string]string{
		"PKCS #8 as rsa-private-key-format": `"private-key-format": "ietf-crypto-types:rsa-private-key-format", "cleartext-private-key": ` + b64(pkcs8(rsaKey())),
		"PKCS #8 as ec-private-key-format":  `"private-key-format": "ietf-crypto-types:ec-private-key-format", "cleartext-private-key": ` + b64(pkcs8(ecKey())),
		"a format without a public key":     `"public-key-format": "ietf-crypto-types:ssh-public-key-format", "private-key-format": "ietf-crypto-types:one-asymmetric-key-format", "cleartext-private-key": ` + b64(pkcs8(edKey)),
		"a public key without its format":   `"public-key": ` + b64(wire(edKey.Public())) + `, "private-key-format": "ietf-crypto-types:one-asymmetric-key-format", "cleartext-private-key": ` + b64(pkcs8(edKey)),
		"a hidden key with a format":        `"public-key-format": "ietf-crypto-types:ssh-public-key-format", "hidden-private-key": [null]`,
	}
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			doc := with(t, edit{"ietf-keystore:keystore/asymmetric-keys/asymmetric-key", `[{"name": "genkey", ` + key + `}]`}, edit{inKey + "public-key", `{"central-keystore-reference": "genkey"}`})
			k := parse(t, all, doc).Clients[0].Endpoints[0].HostKeys[0]
			if k.Path == "" {
				if _, err := ssh.ParsePrivateKey(k.pem()); err != nil {
					t.Error(err)
				}
			}
			needYanglint(t)
			if out, err := yanglint(t, doc); err != nil {
				t.Error(out)
			}
		})
	}
}

// A secret is in no message, whatever stands in its place or around it.
func TestSecretsAreInNoMessage(t *testing.T) {
	const secret = "hunter2hunter2"
	var values []string
	for _, v := range []string{`%q`, `[%q]`, `{%q: 1}`, `{"x": %q}`, `[[%q]]`, `"-----BEGIN PRIVATE KEY-----%s"`} {
		values = append(values, strings.NewReplacer("%q", `"`+secret+`"`, "%s", secret).Replace(v))
	}
	auth := inTCP + "proxy-server/socks5-parameters/authentication-parameters"
	places := []string{
		auth, auth + "/username-password", auth + "/username-password/cleartext-password", inTCP + "proxy-server", inTCP + "proxy-server/socks5-parameters",
		inPair + "cleartext-private-key", inPair + "private-key-format", inPair + "public-key", inPair + "public-key-format", inPair + "hidden-private-key", inKey + "public-key", inKey + "public-key/inline-definition",
		"ietf-keystore:keystore", "ietf-keystore:keystore/asymmetric-keys", "ietf-keystore:keystore/asymmetric-keys/asymmetric-key",
		inSSH + "client-authentication/users/user", inSSH + "client-authentication/users", inSSH + "server-identity/host-key",
	}
	numbers := []string{"20261129", "-20261129", "2026.1129"}
	for _, place := range places {
		for _, v := range append(values, numbers...) {
			name := fmt.Sprintf("%s: %s", place[strings.LastIndex(place, "/")+1:], v)
			_, errs := Parse(with(t, edit{inTCP + "proxy-server/socks5-parameters/remote-address", `"p.example"`}, edit{place, v}), all, Defaults{})
			// A member's name is not a value: {"hunter2": 1} is named where it is unknown.
			if strings.Contains(v, `: 1}`) {
				continue
			}
			for _, e := range errs {
				if strings.Contains(e.Error(), secret) || strings.Contains(e.Error(), "2026") && strings.Contains(v, "2026") && !strings.Contains(v, `"`) {
					t.Errorf("%s: %v", name, e)
				}
			}
		}
	}
}

func TestOtherEncodings(t *testing.T) {
	if c := parse(t, all, append([]byte("\xef\xbb\xbf"), with(t)...)); len(c.Clients) != 1 {
		t.Errorf("with a BOM: %+v", c)
	}
	for _, tt := range []struct{ name, doc, says string }{
		{"XML", "<?xml version=\"1.0\"?>\n<netconf-server/>", "this is XML, and JSON (RFC 7951) is needed: convert it with " + Converter + " FILE, which needs yanglint"},
		{"XML without a declaration, with a BOM", "\xef\xbb\xbf \n<netconf-server/>", "this is XML"},
		{"UTF-16", "\xff\xfe{\x00}\x00", "this is not UTF-8"},
		{"nothing", "", "the document ends too early"},
	} {
		_, errs := Parse([]byte(tt.doc), all, Defaults{})
		if len(errs) != 1 || !strings.Contains(errs[0].Message, tt.says) || errs[0].Line != 1 {
			t.Errorf("%s: %v, want %s", tt.name, errs, tt.says)
		}
	}
}

// An empty list of users lets no user in; without users sshd_config decides.
func TestAnEmptyListOfUsersMeansNoUser(t *testing.T) {
	const users = inSSH + "client-authentication/users"
	ca := edit{inSSH + "client-authentication/callhome:user-ca-keys", `{"inline-definition": {"public-key": [` + publicKeyEntry("ca", wire(edKey.Public())) + `]}}`}
	for _, tt := range []struct {
		name       string
		edits      []edit
		restricted bool
	}{
		{"an empty container", []edit{{users, `{}`}}, true},
		{"an empty list", []edit{{users, `{"user": []}`}}, true},
		{"an empty list beside CAs", []edit{{users, `{"user": []}`}, ca}, true},
		{"no users", []edit{{inSSH + "client-authentication", `{}`}}, false},
		{"nothing", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := endpoint(t, all, tt.edits...)
			options := strings.Join(e.options("/"), "\n")
			denies := strings.Contains(options, "DenyUsers=*") && strings.Contains(options, "AuthenticationMethods=publickey") && !strings.Contains(options, "AllowUsers")
			if e.Restricted != tt.restricted || denies != tt.restricted || len(e.Users) != 0 {
				t.Errorf("restricted %v, options\n%s", e.Restricted, options)
			}
		})
	}
}
