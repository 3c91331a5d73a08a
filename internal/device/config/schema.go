package config

import "sync"

// rowKind is the YANG statement of a row.
type rowKind string

const (
	container rowKind = "container" // exists with its defaults even where the document has none
	presence  rowKind = "presence"  // a presence container
	list      rowKind = "list"      // its first row is the key
	choice    rowKind = "choice"    // its rows are the cases, of one node each
	leaf      rowKind = "leaf"
	leafList  rowKind = "leaf-list" // ordered by the user
	refused   rowKind = "refused"   // why is the fault's message, with what to use instead
	ignored   rowKind = "ignored"   // valid, and not callhome's; why is the warning
)

// unused reports whether the document is not to have the row.
func (r *row) unused() bool { return r.kind == refused || r.kind == ignored }

// row is one node of the schema. Its name is that of the document: qualified by the
// module where that differs from the parent's.
type row struct {
	kind rowKind
	name string
	typ  leafType
	def  string // default as JSON; "": none
	must bool   // mandatory; of a list: at least one entry
	why  string
	in   []row
}

// Messages of several nodes.
const (
	noX509     = "OpenSSH has no X.509 certificates (RFC 6187): use public-key with an OpenSSH host certificate as its public-key, and callhome:user-ca-keys for clients"
	noState    = "this is state, not configuration: leave it out"
	noEncKey   = "sshd cannot decrypt it: use hidden-private-key with the key in a file of the key directory, or cleartext-private-key"
	noHosts    = "host-based authentication is not supported with call home: give the user public-keys"
	noNone     = "a user without a key cannot log in: give the user public-keys"
	unusedX509 = "not used: OpenSSH has no X.509 certificates (RFC 6187)"
	noPassword = "sshd checks passwords with the system only: give the user public-keys; for the account's password leave users out and allow it in callhome's sshd_config"
)

// schema is the covered part of ietf-netconf-server 2025-04-24, ietf-keystore
// and ietf-truststore 2024-10-10, and of the module callhome. It is made when it is first
// used: most commands read no document.
var schema = sync.OnceValue(func() *row {
	return &row{kind: container, in: []row{
		{kind: container, name: "ietf-netconf-server:netconf-server", in: []row{
			{kind: ignored, name: "listen", why: "not used: callhome does not listen; the NETCONF server or a separate sshd does"},
			{kind: presence, name: "call-home", in: []row{
				{kind: list, name: "netconf-client", must: true, in: clientRows()},
			}},
		}},
		{kind: container, name: "ietf-keystore:keystore", in: []row{
			{kind: container, name: "asymmetric-keys", in: []row{
				{kind: list, name: "asymmetric-key", in: append([]row{{kind: leaf, name: "name", typ: name, must: true}}, keyPair()...)},
			}},
			{kind: container, name: "symmetric-keys", in: []row{
				{kind: ignored, name: "symmetric-key", why: "not used: no host key is symmetric"},
			}},
		}},
		{kind: ignored, name: "libnetconf2-netconf-server:ln2-netconf-server", why: "not used: settings of libnetconf2's own server"},
		{kind: container, name: "ietf-truststore:truststore", in: []row{
			{kind: container, name: "certificate-bags", in: []row{
				{kind: ignored, name: "certificate-bag", why: unusedX509},
			}},
			{kind: container, name: "public-key-bags", in: []row{
				{kind: list, name: "public-key-bag", in: []row{
					{kind: leaf, name: "name", typ: name, must: true},
					{kind: leaf, name: "description", typ: text(0, 1024)},
					publicKeyList(),
				}},
			}},
		}},
	}}
})

func clientRows() []row {
	return []row{
		{kind: leaf, name: "name", typ: name, must: true},
		{kind: leaf, name: "callhome:enabled", typ: boolean, def: "true"},
		{kind: container, name: "endpoints", in: []row{
			{kind: list, name: "endpoint", must: true, in: []row{
				{kind: leaf, name: "name", typ: name, must: true},
				{kind: choice, name: "transport", must: true, in: []row{
					{kind: container, name: "ssh", in: []row{tcpRow(), sshRow(), netconfRow()}},
					{kind: ignored, name: "tls", why: "this endpoint is not served: OpenSSH has no TLS"},
				}},
			}},
		}},
		{kind: container, name: "connection-type", in: []row{
			{kind: choice, name: "connection-type", must: true, in: []row{
				{kind: presence, name: "persistent"},
				{kind: presence, name: "periodic", in: []row{
					// The model also allows 0.
					{kind: leaf, name: "period", typ: number(1, 65535), def: "60"},
					{kind: leaf, name: "anchor-time", typ: fullMinute},
					{kind: leaf, name: "idle-timeout", typ: number(0, 65535), def: "180"},
				}},
			}},
		}},
		{kind: container, name: "reconnect-strategy", in: []row{
			{kind: leaf, name: "start-with", typ: oneOf(string(FirstListed), string(LastConnected), string(RandomSelection)), def: `"first-listed"`},
			{kind: leaf, name: "max-wait", typ: number(1, 65535), def: "5"},
			{kind: leaf, name: "max-attempts", typ: number(1, 255), def: "3"},
		}},
		{kind: container, name: "callhome:backoff", in: []row{
			{kind: leaf, name: "initial", typ: number(1, maxBackoff), def: "1000"},
			{kind: leaf, name: "maximum", typ: number(1, maxBackoff), def: "60000"},
			{kind: leaf, name: "jitter", typ: number(0, 100), def: "50"},
		}},
		{kind: leaf, name: "callhome:re-call-home-no-ssh-timer", typ: number(0, 65535), def: "60"},
		{kind: leaf, name: "callhome:max-call-home-attempts", typ: number(0, 20)},
		{kind: leaf, name: "callhome:hook", typ: path},
		{kind: refused, name: "callhome:state", why: noState},
	}
}

// maxBackoff is a day, in milliseconds.
const maxBackoff = 24 * 60 * 60 * 1000

func tcpRow() row {
	return row{kind: container, name: "tcp-client-parameters", in: []row{
		{kind: leaf, name: "remote-address", typ: host, must: true},
		{kind: leaf, name: "remote-port", typ: number(1, 65535), def: "4334"},
		{kind: leaf, name: "local-address", typ: address},
		{kind: leaf, name: "local-port", typ: number(0, 65535), def: "0"},
		{kind: presence, name: "proxy-server", in: []row{
			{kind: choice, name: "proxy-type", must: true, in: []row{
				{kind: container, name: "socks4-parameters", in: []row{
					{kind: leaf, name: "remote-address", typ: address, must: true},
					{kind: leaf, name: "remote-port", typ: number(1, 65535), def: "1080"},
				}},
				{kind: container, name: "socks4a-parameters", in: []row{
					{kind: leaf, name: "remote-address", typ: host, must: true},
					{kind: leaf, name: "remote-port", typ: number(1, 65535), def: "1080"},
				}},
				{kind: container, name: "socks5-parameters", in: []row{
					{kind: leaf, name: "remote-address", typ: host, must: true},
					{kind: leaf, name: "remote-port", typ: number(1, 65535), def: "1080"},
					{kind: presence, name: "authentication-parameters", in: []row{
						{kind: choice, name: "auth-type", must: true, in: []row{
							{kind: refused, name: "gss-api", why: "GSS-API is not supported with a proxy: use username-password"},
							{kind: container, name: "username-password", in: []row{
								{kind: leaf, name: "username", typ: text(1, maxSocksField), must: true},
								{kind: choice, name: "password-type", must: true, in: []row{
									{kind: leaf, name: "cleartext-password", typ: secret("a string of 1 to 255 bytes without control characters", text(1, maxSocksField))},
									{kind: refused, name: "encrypted-password", why: "callhome has no key to decrypt it: use cleartext-password"},
								}},
							}},
						}},
					}},
				}},
			}},
		}},
		{kind: presence, name: "keepalives", in: []row{
			// tcp(7) allows less than the model.
			{kind: leaf, name: "idle-time", typ: number(1, 32767), def: "7200"},
			{kind: leaf, name: "max-probes", typ: number(1, 127), def: "9"},
			{kind: leaf, name: "probe-interval", typ: number(1, 32767), def: "75"},
		}},
		{kind: leaf, name: "callhome:interface", typ: interfaceName},
		{kind: leaf, name: "callhome:dscp", typ: number(0, 63)},
	}}
}

func sshRow() row {
	return row{kind: container, name: "ssh-server-parameters", in: []row{
		{kind: container, name: "server-identity", in: []row{
			{kind: refused, name: "libnetconf2-netconf-server:banner", why: "set Banner to a file with this text in callhome's sshd_config"},
			{kind: list, name: "host-key", must: true, in: []row{
				{kind: leaf, name: "name", typ: name, must: true},
				{kind: choice, name: "host-key-type", must: true, in: []row{
					{kind: container, name: "public-key", in: []row{
						{kind: choice, name: "inline-or-keystore", must: true, in: []row{
							{kind: container, name: "inline-definition", in: keyPair()},
							{kind: leaf, name: "central-keystore-reference", typ: name},
						}},
					}},
					{kind: refused, name: "certificate", why: noX509},
				}},
			}},
		}},
		{kind: container, name: "client-authentication", in: []row{
			{kind: container, name: "users", in: []row{
				{kind: list, name: "user", in: []row{
					{kind: leaf, name: "name", typ: account, must: true},
					{kind: presence, name: "public-keys", in: []row{publicKeys(),
						{kind: refused, name: "libnetconf2-netconf-server:use-system-keys", why: "list the keys here; or leave users out, then callhome's sshd_config sets where each account's keys are"},
					}},
					{kind: container, name: "password", in: []row{
						{kind: refused, name: "hashed-password", why: noPassword},
						{kind: refused, name: "last-modified", why: noState},
					}},
					{kind: refused, name: "hostbased", why: noHosts},
					{kind: refused, name: "none", why: noNone},
					{kind: refused, name: "libnetconf2-netconf-server:keyboard-interactive", why: noPassword},
				}},
			}},
			{kind: refused, name: "ca-certs", why: noX509},
			{kind: refused, name: "ee-certs", why: noX509},
			{kind: presence, name: "callhome:user-ca-keys", in: []row{publicKeys()}},
			{kind: refused, name: "libnetconf2-netconf-server:auth-timeout", why: "use callhome:re-call-home-no-ssh-timer of the client: callhome-mgr and sshd limit the login to it"},
			{kind: refused, name: "libnetconf2-netconf-server:max-auth-attempts", why: "set MaxAuthTries in callhome's sshd_config"},
			{kind: refused, name: "libnetconf2-netconf-server:lockout", why: "sshd locks no account: leave it out, or set up pam_faillock(8) for passwords"},
			{kind: refused, name: "libnetconf2-netconf-server:endpoint-reference", why: "users cannot be copied from another endpoint: repeat users here, with a central-truststore-reference to a bag of keys that both have"},
		}},
		{kind: container, name: "transport-params", in: []row{
			{kind: container, name: "host-key", in: []row{{kind: leafList, name: "host-key-alg", typ: algorithm}}},
			{kind: container, name: "key-exchange", in: []row{{kind: leafList, name: "key-exchange-alg", typ: algorithm}}},
			{kind: container, name: "encryption", in: []row{{kind: leafList, name: "encryption-alg", typ: algorithm}}},
			{kind: container, name: "mac", in: []row{{kind: leafList, name: "mac-alg", typ: algorithm}}},
		}},
		{kind: presence, name: "keepalives", in: []row{
			{kind: leaf, name: "max-wait", typ: number(1, 65535), def: "30"},
			// The model also allows 0, with which sshd never ends a connection.
			{kind: leaf, name: "max-attempts", typ: number(1, 255), def: "3"},
		}},
		{kind: leaf, name: "callhome:announce", typ: boolean},
		{kind: leaf, name: "callhome:device-id", typ: deviceID},
	}}
}

func netconfRow() row {
	return row{kind: container, name: "netconf-server-parameters", in: []row{
		{kind: container, name: "client-identity-mappings", in: []row{
			{kind: refused, name: "cert-to-name", why: noX509},
			{kind: refused, name: "mapping-required", why: noX509},
		}},
		{kind: leaf, name: "callhome:netconf-server", typ: oneOf("yuma", "confd", "clixon")},
		{kind: leaf, name: "callhome:subsystem", typ: text(1, 1024)},
		{kind: leaf, name: "callhome:ssh-connection-port", typ: number(1, 65535)},
	}}
}

// keyPair is ct:asymmetric-key-pair-with-certs-grouping.
func keyPair() []row {
	return []row{
		{kind: leaf, name: "public-key-format", typ: sshPublicKey},
		{kind: leaf, name: "public-key", typ: binary},
		{kind: leaf, name: "private-key-format", typ: identity(map[string]string{
			"libnetconf2-netconf-server:private-key-info-format":    "write " + cryptoTypes + "one-asymmetric-key-format, which is PKCS #8, too (RFC 5958)",
			"libnetconf2-netconf-server:openssh-private-key-format": "convert the key with ssh-keygen -p -m PKCS8 -f FILE, and write " + cryptoTypes + "one-asymmetric-key-format",
		}, "rsa-private-key-format", "ec-private-key-format", "one-asymmetric-key-format")},
		{kind: choice, name: "private-key-type", must: true, in: []row{
			{kind: leaf, name: "cleartext-private-key", typ: secret("the key as base64 (RFC 4648 section 4) in a string", binary)},
			{kind: leaf, name: "hidden-private-key", typ: empty},
			{kind: refused, name: "encrypted-private-key", why: noEncKey},
		}},
		{kind: container, name: "certificates", in: []row{
			{kind: ignored, name: "certificate", why: unusedX509},
		}},
	}
}

// sshPublicKey is public-key-format as the models' must statements restrict it for
// keys of SSH.
var sshPublicKey = identity(map[string]string{
	"subject-public-key-info-format": "SSH needs ssh-public-key-format: ssh-keygen -i -m PKCS8 -f FILE turns the key into it",
}, "ssh-public-key-format")

func publicKeyList() row {
	return row{kind: list, name: "public-key", in: []row{
		{kind: leaf, name: "name", typ: name, must: true},
		{kind: leaf, name: "public-key-format", typ: sshPublicKey, must: true},
		{kind: leaf, name: "public-key", typ: binary, must: true},
	}}
}

// publicKeys is ts:inline-or-truststore-public-keys-grouping.
func publicKeys() row {
	return row{kind: choice, name: "inline-or-truststore", must: true, in: []row{
		{kind: container, name: "inline-definition", in: []row{publicKeyList()}},
		{kind: leaf, name: "central-truststore-reference", typ: name},
	}}
}
