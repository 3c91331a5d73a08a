package config

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// model says whether the YANG modules refuse a document too that Parse refuses.
type model string

const (
	modelToo model = "the models refuse it too"
	modelNot model = "the models take it"
)

// fault is a document with one fault.
type fault struct {
	name  string
	edits []edit
	path  string
	says  string
	model model
}

func one(name, at, value, path, says string, m model) fault {
	return fault{name, []edit{{at, value}}, path, says, m}
}

const bag = `{"public-key-bags": {"public-key-bag": [{"name": "bag", "public-key": []}]}}`

func faults(t *testing.T) []fault {
	ed, ed2 := wire(edKey.Public()), wire(edKey2.Public())
	pair := func(format string, der []byte) string {
		return `{"private-key-format": "ietf-crypto-types:` + format + `", "cleartext-private-key": ` + b64(der) + `}`
	}
	users := inSSH + "client-authentication/users"
	oneUser := func(u string) string { return `{"user": [` + u + `]}` }
	pathUser := pathSSH + "/client-authentication/users/user[name='u']"
	pathInlineKey := pathUser + "/public-keys/inline-definition/public-key[name='k']/public-key"
	return []fault{
		// RFC 7951 and the tree.
		one("unknown member", inTCP+"remote-addres", `"x"`, pathTCP+"/remote-addres", "unknown node; expected one of: remote-address, remote-port", modelToo),
		one("unknown top", "ietf-system:system", `{}`, "/ietf-system:system", "unknown node; expected one of: ietf-netconf-server:netconf-server, ietf-keystore:keystore, ietf-truststore:truststore", modelToo),
		one("module missing", inTCP+"dscp", `1`, pathTCP+"/dscp", "write the name with its module, as callhome:dscp", modelToo),
		one("module too much", inTCP+"ietf-netconf-server:remote-port", `1`, pathTCP+"/ietf-netconf-server:remote-port", "write the name without its module, as remote-port", modelNot),
		one("number in quotes", inTCP+"remote-port", `"4334"`, pathTCP+"/remote-port", "without quotes (RFC 7951 section 6.1)", modelToo),
		one("number too large", inTCP+"remote-port", `70000`, pathTCP+"/remote-port", `found "70000"; expected a number from 1 to 65535`, modelToo),
		one("number negative", inTCP+"remote-port", `-1`, pathTCP+"/remote-port", `found "-1"; expected a number`, modelToo),
		one("number broken", inTCP+"remote-port", `1.5`, pathTCP+"/remote-port", `found "1.5"; expected a number`, modelToo),
		one("string bare", inTCP+"remote-address", `5`, pathTCP+"/remote-address", `found a number "5"; expected a name or an IP address`, modelToo),
		one("boolean in quotes", inClient+"callhome:enabled", `"true"`, pathClient+"/callhome:enabled", `expected true or false, without quotes`, modelToo),
		one("null", inClient+"callhome:enabled", `null`, pathClient+"/callhome:enabled", `found null`, modelToo),
		one("empty leaf", inPair+"hidden-private-key", `true`, pathKey+"/public-key/inline-definition/hidden-private-key", `a leaf without a value is written [null]`, modelToo),
		one("empty leaf, two", inPair+"hidden-private-key", `[null, null]`, pathKey+"/public-key/inline-definition/hidden-private-key", `a leaf without a value is written [null]`, modelToo),
		one("array for object", inEnd+"ssh/tcp-client-parameters", `[]`, pathTCP, "found an array; expected an object", modelToo),
		one("leaf-list without array", inSSH+"transport-params/mac/mac-alg", `"hmac-sha2-256"`, pathSSH+"/transport-params/mac/mac-alg", "expected an array of values", modelToo),
		one("leaf-list, twice the same", inSSH+"transport-params/mac/mac-alg", `["hmac-sha2-256", "hmac-sha2-256"]`, pathSSH+"/transport-params/mac/mac-alg[2]", `duplicate value "hmac-sha2-256", first in line`, modelToo),
		one("list empty", inClient+"endpoints/endpoint", `[]`, pathClient+"/endpoints/endpoint", "at least one entry is needed", modelToo),
		one("list with a string", inClient+"endpoints/endpoint", `["x"]`, pathClient+"/endpoints/endpoint[1]", "expected an object", modelToo),
		one("container missing", inClient+"endpoints", ``, pathClient+"/endpoints/endpoint", "endpoint is missing", modelToo),
		one("key missing", inEnd+"name", ``, pathClient+"/endpoints/endpoint[1]/name", "name is missing", modelToo),
		one("mandatory leaf missing", inTCP+"remote-address", ``, pathTCP+"/remote-address", "remote-address is missing", modelToo),
		one("mandatory choice missing", inClient+"connection-type", `{}`, pathClient+"/connection-type", "persistent or periodic is missing", modelToo),
		one("two cases", inClient+"connection-type", `{"persistent": {}, "periodic": {}}`, pathClient+"/connection-type", "persistent and periodic cannot be combined", modelToo),
		one("two entries of a name", users, oneUser(user("u", ed)+","+user("u", ed)), pathUser, "duplicate name, first in line", modelToo),
		one("enumeration", inClient+"reconnect-strategy/start-with", `"first"`, pathClient+"/reconnect-strategy/start-with", `unknown value "first"; expected one of first-listed, last-connected, random-selection`, modelToo),
		one("identity without its module", users, oneUser(strings.Replace(user("u", ed), "ietf-crypto-types:", "", 1)), pathUser+"/public-keys/inline-definition/public-key[name='k']/public-key-format", "write ietf-crypto-types:ssh-public-key-format", modelToo),
		one("base64", users, oneUser(strings.Replace(user("u", ed), "AAAA", "A*AA", 1)), pathInlineKey, "not base64", modelToo),

		// TCP.
		one("name", inTCP+"remote-address", `"-nms"`, pathTCP+"/remote-address", "neither a name nor an IP address", modelToo),
		one("multicast", inTCP+"remote-address", `"224.0.0.1"`, pathTCP+"/remote-address", "is a multicast address", modelNot),
		one("local address", inTCP+"local-address", `"eth0"`, pathTCP+"/local-address", `"eth0" is not an IP address`, modelToo),
		one("family", inTCP+"local-address", `"2001:db8::1"`, pathTCP+"/local-address", "2001:db8::1 and 192.0.2.1 are not of one family", modelNot),
		one("a zone as in a URL", inTCP+"remote-address", `"fe80::1%25eth0"`, pathTCP+"/remote-address", "the zone of fe80::1%25eth0 is written as in a URL: write fe80::1%eth0", modelNot),
		one("a local zone as in a URL", inTCP+"local-address", `"fe80::1%25eth0"`, pathTCP+"/local-address", "write fe80::1%eth0", modelNot),
		one("link-local", inTCP+"remote-address", `"fe80::1"`, pathTCP+"/remote-address", "is a link-local address: add its zone", modelNot),
		one("interface", inTCP+"callhome:interface", `"a/b"`, pathTCP+"/callhome:interface", `"a/b": not an interface name`, modelToo),
		one("DSCP", inTCP+"callhome:dscp", `64`, pathTCP+"/callhome:dscp", "expected a number from 0 to 63", modelToo),
		one("keepalive probes", inTCP+"keepalives/max-probes", `128`, pathTCP+"/keepalives/max-probes", "expected a number from 1 to 127", modelNot),
		one("keepalive time", inTCP+"keepalives/idle-time", `40000`, pathTCP+"/keepalives/idle-time", "expected a number from 1 to 32767", modelNot),
		{"SOCKS4 to a name", []edit{{inTCP + "remote-address", `"nms.example"`}, {inTCP + "proxy-server", `{"socks4-parameters": {"remote-address": "192.0.2.9"}}`}},
			pathTCP + "/proxy-server/socks4-parameters", "the NETCONF client is nms.example, and SOCKS4 carries only IPv4 addresses: use socks5-parameters", modelNot},
		{"SOCKS4a to IPv6", []edit{{inTCP + "remote-address", `"2001:db8::1"`}, {inTCP + "proxy-server", `{"socks4a-parameters": {"remote-address": "192.0.2.9"}}`}},
			pathTCP + "/proxy-server/socks4a-parameters", "SOCKS4a carries no IPv6 addresses: use socks5-parameters", modelNot},
		one("SOCKS4 by a name", inTCP+"proxy-server", `{"socks4-parameters": {"remote-address": "p.example"}}`, pathTCP+"/proxy-server/socks4-parameters/remote-address", "not an IP address", modelToo),
		one("SOCKS4 proxy at 0.0.0.0", inTCP+"proxy-server", `{"socks4-parameters": {"remote-address": "0.0.0.0"}}`, pathTCP+"/proxy-server/socks4-parameters/remote-address", `"0.0.0.0" is not an address to connect to`, modelNot),
		one("no proxy in proxy-server", inTCP+"proxy-server", `{}`, pathTCP+"/proxy-server", "socks4-parameters or socks4a-parameters or socks5-parameters is missing", modelToo),
		one("colon in a user", inTCP+"proxy-server", `{"socks5-parameters": {"remote-address": "p.example", "authentication-parameters": {"username-password": {"username": "a:b", "cleartext-password": "x"}}}}`,
			pathTCP+"/proxy-server/socks5-parameters/authentication-parameters/username-password/username", "the user name of a proxy must not have a colon", modelNot),
		one("line in a password", inTCP+"proxy-server", `{"socks5-parameters": {"remote-address": "p.example", "authentication-parameters": {"username-password": {"username": "a", "cleartext-password": "x\ny"}}}}`,
			pathTCP+"/proxy-server/socks5-parameters/authentication-parameters/username-password/cleartext-password", "a string of 1 to 255 bytes without control characters", modelNot),
		one("long password", inTCP+"proxy-server", `{"socks5-parameters": {"remote-address": "p.example", "authentication-parameters": {"username-password": {"username": "a", "cleartext-password": "`+strings.Repeat("ä", 128)+`"}}}}`,
			pathTCP+"/proxy-server/socks5-parameters/authentication-parameters/username-password", "SOCKS5 allows at most 255 bytes", modelNot),

		// Host keys.
		one("key file elsewhere", inKey+"name", `"../../etc/shadow"`, pathSSH+"/server-identity/host-key[name='../../etc/shadow']/public-key/inline-definition", "is not a file name in the key directory", modelNot),
		one("key file hidden", inKey+"name", `".ssh"`, pathSSH+"/server-identity/host-key[name='.ssh']/public-key/inline-definition", "is not a file name in the key directory", modelNot),
		one("no private key", inPair, `{}`, pathKey+"/public-key/inline-definition", "cleartext-private-key or hidden-private-key is missing", modelToo),
		one("no format", inPair, `{"cleartext-private-key": `+b64(pkcs8(edKey))+`}`, pathKey+"/public-key/inline-definition/cleartext-private-key", "needs private-key-format beside it", modelToo),
		one("format of a hidden key", inPair+"private-key-format", `"ietf-crypto-types:rsa-private-key-format"`, pathKey+"/public-key/inline-definition/private-key-format", "a hidden-private-key has no private-key-format", modelToo),
		one("another key's public key", inPair, strings.TrimSuffix(pair("one-asymmetric-key-format", pkcs8(edKey)), "}")+`, "public-key-format": "ietf-crypto-types:ssh-public-key-format", "public-key": `+b64(ed2)+`}`,
			pathKey+"/public-key/inline-definition/public-key", "the public key does not belong to the private key", modelNot),
		one("public key of another form", inPair, `{"hidden-private-key": [null], "public-key": "AAAA", "public-key-format": "ietf-crypto-types:subject-public-key-info-format"}`, pathKey+"/public-key/inline-definition/public-key-format", "ssh-keygen -i -m PKCS8", modelToo),
		{"a user's certificate as a host's", []edit{{inPair + "public-key-format", `"ietf-crypto-types:ssh-public-key-format"`}, {inPair + "public-key", b64(certificate(t, ssh.UserCert))}},
			pathKey + "/public-key/inline-definition/public-key", "this is a user certificate", modelNot},
		one("no such key in the keystore", inKey+"public-key", `{"central-keystore-reference": "genkey"}`, pathKey+"/public-key/central-keystore-reference", `there is no asymmetric-key "genkey" in ietf-keystore:keystore; for a key file of that name in /etc/ssh add the entry {"name": "genkey", "hidden-private-key": [null]}`, modelToo),

		// Users.
		one("account", users, oneUser(user("u*", ed)), pathSSH+"/client-authentication/users/user[name='u*']/name", `"u*" is not a user name`, modelNot),
		one("account with an option", users, oneUser(user("-u", ed)), pathSSH+"/client-authentication/users/user[name='-u']/name", `"-u" is not a user name`, modelNot),
		one("account that is a directory", users, oneUser(user("..", ed)), pathSSH+"/client-authentication/users/user[name='..']/name", `is not a user name`, modelNot),
		one("user without a key", users, oneUser(`{"name": "u"}`), pathUser, "the user has no way to log in: add public-keys, or callhome:user-ca-keys", modelNot),
		one("no key in the truststore", users, oneUser(`{"name": "u", "public-keys": {"central-truststore-reference": "bag"}}`), pathUser+"/public-keys/central-truststore-reference", `there is no public-key-bag "bag" in ietf-truststore:truststore`, modelToo),
		{"an empty bag", []edit{{users, oneUser(`{"name": "u", "public-keys": {"central-truststore-reference": "bag"}}`)}, {"ietf-truststore:truststore", bag}},
			pathUser, "the user has no way to log in", modelNot},
		{"an empty bag of authorities", []edit{{inSSH + "client-authentication/callhome:user-ca-keys", `{"central-truststore-reference": "bag"}`}, {"ietf-truststore:truststore", bag}},
			pathSSH + "/client-authentication/callhome:user-ca-keys", "it has no key", modelNot},
		one("no key at all", users, oneUser(user("u", []byte("ssh-rsa"))), pathInlineKey, "not a public key in SSH's format", modelNot),
		one("a certificate for a key", users, oneUser(user("u", certificate(t, ssh.UserCert))), pathInlineKey, "put its CA's key into callhome:user-ca-keys", modelNot),

		// The rest of SSH and NETCONF.
		one("algorithm", inSSH+"transport-params/encryption/encryption-alg", `["aes128-ctr"]`, pathSSH+"/transport-params/encryption/encryption-alg[1]", "OpenSSH_9.9p2 of this machine does not support aes128-ctr; its Ciphers: aes256-ctr, aes128-gcm@openssh.com, aes256-gcm@openssh.com", modelNot),
		one("algorithm that is an operator", inSSH+"transport-params/encryption/encryption-alg", `["-aes256-ctr@x"]`, pathSSH+"/transport-params/encryption/encryption-alg[1]", "is not the name of an algorithm", modelNot),
		one("two algorithms in one", inSSH+"transport-params/encryption/encryption-alg", `["aes256-ctr,none@x"]`, pathSSH+"/transport-params/encryption/encryption-alg[1]", "is not the name of an algorithm", modelNot),
		one("algorithm as an identity", inSSH+"transport-params/mac/mac-alg", `["iana-ssh-mac-algs:hmac-sha2-256"]`, pathSSH+"/transport-params/mac/mac-alg[1]", "written without a module's name since revision 2024-10-16", modelToo),
		one("AEAD as a MAC", inSSH+"transport-params/mac/mac-alg", `["AEAD_AES_128_GCM"]`, pathSSH+"/transport-params/mac/mac-alg[1]", "list it under encryption only", modelNot),
		one("SSH keepalive never", inSSH+"keepalives/max-attempts", `0`, pathSSH+"/keepalives/max-attempts", "expected a number from 1 to 255", modelNot),
		one("announce", inSSH+"callhome:announce", `true`, pathSSH+"/callhome:announce", "add callhome:device-id", modelToo),
		one("device id", inSSH+"callhome:device-id", `"a b"`, pathSSH+"/callhome:device-id", "a device id has only letters, digits", modelToo),
		one("preset", inNetconf+"callhome:netconf-server", `"sysrepo"`, pathEnd+"/ssh/netconf-server-parameters/callhome:netconf-server", "expected one of yuma, confd, clixon", modelToo),
		one("port without a subsystem", inNetconf+"callhome:ssh-connection-port", `830`, pathEnd+"/ssh/netconf-server-parameters/callhome:ssh-connection-port", "add callhome:subsystem or callhome:netconf-server", modelToo),
		one("line in a subsystem", inNetconf+"callhome:subsystem", `"a\nb"`, pathEnd+"/ssh/netconf-server-parameters/callhome:subsystem", "contains a control character", modelToo),

		// Times.
		one("period", inClient+"connection-type", `{"periodic": {"period": 0}}`, pathClient+"/connection-type/periodic/period", "expected a number from 1 to 65535", modelNot),
		one("anchor with seconds", inClient+"connection-type", `{"periodic": {"anchor-time": "2026-01-01T00:00:01Z"}}`, pathClient+"/connection-type/periodic/anchor-time", "a time on a full minute", modelToo),
		one("anchor on no day", inClient+"connection-type", `{"periodic": {"anchor-time": "2026-02-30T00:00:00Z"}}`, pathClient+"/connection-type/periodic/anchor-time", "a time on a full minute", modelNot),
		one("anchor without a zone", inClient+"connection-type", `{"periodic": {"anchor-time": "2026-01-01T00:00:00"}}`, pathClient+"/connection-type/periodic/anchor-time", "and its zone", modelToo),
		one("max-wait", inClient+"reconnect-strategy/max-wait", `0`, pathClient+"/reconnect-strategy/max-wait", "expected a number from 1 to 65535", modelToo),
		one("max-attempts", inClient+"reconnect-strategy/max-attempts", `256`, pathClient+"/reconnect-strategy/max-attempts", "expected a number from 1 to 255", modelToo),
		one("backoff", inClient+"callhome:backoff", `{"initial": 2000, "maximum": 1000}`, pathClient+"/callhome:backoff", "initial, 2s, is longer than maximum, 1s", modelToo),
		one("O-RAN attempts", inClient+"callhome:max-call-home-attempts", `21`, pathClient+"/callhome:max-call-home-attempts", "expected a number from 0 to 20", modelToo),
		one("hook", inClient+"callhome:hook", `"hook"`, pathClient+"/callhome:hook", `"hook": expected an absolute path`, modelToo),

		// Names.
		one("name with a line", inEnd+"name", `"a\nb"`, pathClient+"/endpoints/endpoint[name='a?b']/name", "contains a control character", modelNot),
		one("no name", inEnd+"name", `""`, pathClient+"/endpoints/endpoint[name='']/name", "found 0 characters", modelNot),
		one("long name", inEnd+"name", `"`+strings.Repeat("ä", 129)+`"`, pathClient+"/endpoints/endpoint[name='"+strings.Repeat("ä", 128)+"…']/name", "found 129 characters", modelNot),
	}
}

// Each fault is reported once, at its node, with what to do. yanglint confirms
// whether the models accept the document.
func TestEachFaultIsReportedOnceAtItsNode(t *testing.T) {
	var taken [][]byte
	for _, tt := range faults(t) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			doc := with(t, tt.edits...)
			c, errs := Parse(doc, all, Defaults{})
			if c != nil || len(errs) != 1 {
				t.Fatalf("%v\n%s", errs, doc)
			}
			if errs[0].Path != tt.path || !strings.Contains(errs[0].Message, tt.says) {
				t.Errorf("%s\n  %s\nwant\n%s\n  %s", errs[0].Path, errs[0].Message, tt.path, tt.says)
			}
			if tt.model == modelNot {
				return
			}
			needYanglint(t)
			if out, err := yanglint(t, doc); err == nil {
				t.Errorf("%s, says the table; yanglint says\n%s", tt.model, out)
			}
		})
		if tt.model == modelNot {
			taken = append(taken, with(t, tt.edits...))
		}
	}
	t.Run("the models take the others", func(t *testing.T) {
		t.Parallel()
		needYanglint(t)
		if out, err := yanglint(t, taken[0], documents(t, taken[1:])...); err != nil {
			t.Error(out)
		}
	})
}

// Each node that the schema refuses is reported with its own message.
func TestEachRefusedNodeHasItsMessage(t *testing.T) {
	inUsers := inSSH + "client-authentication/users"
	pathUser := pathSSH + "/client-authentication/users/user[name='u']"
	user := func(what string) edit {
		return edit{inUsers, `{"user": [{"name": "u", "public-keys": {"inline-definition": {"public-key": [` + publicKeyEntry("k", wire(edKey.Public())) + `]}}, ` + what + `}]}`}
	}
	pathProxy := pathTCP + "/proxy-server/socks5-parameters/authentication-parameters"
	proxy := func(auth string) edit {
		return edit{inTCP + "proxy-server", `{"socks5-parameters": {"remote-address": "p.example", "authentication-parameters": ` + auth + `}}`}
	}
	tests := []struct {
		edit
		path string
		uses string // part of the message
	}{
		{edit{inSSH + "server-identity/libnetconf2-netconf-server:banner", `"hello"`}, pathSSH + "/server-identity/libnetconf2-netconf-server:banner", "set Banner"},
		{edit{inSSH + "client-authentication/libnetconf2-netconf-server:auth-timeout", `30`}, pathSSH + "/client-authentication/libnetconf2-netconf-server:auth-timeout", "use callhome:re-call-home-no-ssh-timer"},
		{edit{inSSH + "client-authentication/libnetconf2-netconf-server:max-auth-attempts", `3`}, pathSSH + "/client-authentication/libnetconf2-netconf-server:max-auth-attempts", "set MaxAuthTries"},
		{edit{inSSH + "client-authentication/libnetconf2-netconf-server:lockout", `{}`}, pathSSH + "/client-authentication/libnetconf2-netconf-server:lockout", "pam_faillock"},
		{edit{inPair, `{"private-key-format": "ietf-crypto-types:ec-private-key-format", "encrypted-private-key": {}}`}, pathKey + "/public-key/inline-definition/encrypted-private-key", "use hidden-private-key"},
		{user(`"password": {"hashed-password": "$6$x$y"}`), pathUser + "/password/hashed-password", "give the user public-keys"},
		{user(`"password": {"last-modified": "2026-01-01T00:00:00Z"}`), pathUser + "/password/last-modified", "leave it out"},
		{user(`"hostbased": {}`), pathUser + "/hostbased", "give the user public-keys"},
		{user(`"none": [null]`), pathUser + "/none", "give the user public-keys"},
		{user(`"libnetconf2-netconf-server:keyboard-interactive": {}`), pathUser + "/libnetconf2-netconf-server:keyboard-interactive", "sshd_config"},
		{edit{inUsers, `{"user": [{"name": "u", "public-keys": {"inline-definition": {"public-key": [` + publicKeyEntry("k", wire(edKey.Public())) + `]}, "libnetconf2-netconf-server:use-system-keys": [null]}}]}`},
			pathUser + "/public-keys/libnetconf2-netconf-server:use-system-keys", "leave users out"},
		{edit{inSSH + "client-authentication/ca-certs", `{}`}, pathSSH + "/client-authentication/ca-certs", "callhome:user-ca-keys"},
		{edit{inSSH + "client-authentication/ee-certs", `{}`}, pathSSH + "/client-authentication/ee-certs", "callhome:user-ca-keys"},
		{edit{inSSH + "client-authentication/libnetconf2-netconf-server:endpoint-reference", `"e2"`}, pathSSH + "/client-authentication/libnetconf2-netconf-server:endpoint-reference", "repeat users here"},
		{edit{inNetconf + "client-identity-mappings/cert-to-name", `[]`}, pathEnd + "/ssh/netconf-server-parameters/client-identity-mappings/cert-to-name", "OpenSSH has no X.509"},
		{edit{inNetconf + "client-identity-mappings/mapping-required", `true`}, pathEnd + "/ssh/netconf-server-parameters/client-identity-mappings/mapping-required", "OpenSSH has no X.509"},
		{proxy(`{"gss-api": {}}`), pathProxy + "/gss-api", "use username-password"},
		{proxy(`{"username-password": {"username": "u", "encrypted-password": {}}}`), pathProxy + "/username-password/encrypted-password", "use cleartext-password"},
		{edit{inClient + "callhome:state", `{"state": "idle"}`}, pathClient + "/callhome:state", "leave it out"},
	}
	reported := make(map[string]bool)
	refuse := func(path, uses string, edits ...edit) {
		doc := with(t, edits...)
		_, errs := Parse(doc, all, Defaults{})
		if len(errs) != 1 || errs[0].Path != path || !strings.Contains(errs[0].Message, uses) {
			t.Errorf("%s: %v\n%s", path, errs, doc)
			return
		}
		reported[path[strings.LastIndex(path, "/")+1:]+": "+errs[0].Message] = true
	}
	for _, tt := range tests {
		refuse(tt.path, tt.uses, tt.edit)
	}
	refuse(pathKey+"/certificate", "OpenSSH host certificate", edit{inKey + "public-key", ``}, edit{inKey + "certificate", `{}`})

	var rows func(in []row)
	rows = func(in []row) {
		for _, r := range in {
			if r.kind == refused && !reported[r.name+": "+r.why] {
				t.Errorf("no test covers the refusal of %s", r.name)
			}
			rows(r.in)
		}
	}
	rows(schema().in)
}
