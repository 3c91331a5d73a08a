//go:build integration

package integration

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// object is a JSON object of a configuration document.
type object = map[string]any

// document is one with these NETCONF clients; without any no host is
// called.
func document(clients ...object) object {
	server := object{}
	if len(clients) > 0 {
		server["call-home"] = object{"netconf-client": clients}
	}
	return object{"ietf-netconf-server:netconf-server": server}
}

// persistent is a client with a connection that is always there. Its pauses
// are a quarter of the defaults: a story's sessions are younger than the 30 s
// from which on a lost one is called again at once.
func persistent(name string, endpoints ...object) object {
	return object{
		"name":             name,
		"endpoints":        object{"endpoint": endpoints},
		"connection-type":  object{"persistent": object{}},
		"callhome:backoff": object{"initial": 250},
	}
}

// put sets what is below o at a path of names and returns o.
func put(o object, value any, path ...string) object {
	at := o
	for _, name := range path[:len(path)-1] {
		next, ok := at[name].(object)
		if !ok {
			next = object{}
			at[name] = next
		}
		at = next
	}
	at[path[len(path)-1]] = value
	return o
}

// Where an endpoint's parameters are.
var (
	tcpParameters = []string{"ssh", "tcp-client-parameters"}
	sshParameters = []string{"ssh", "ssh-server-parameters"}
)

func putTCP(o object, value any, path ...string) object {
	return put(o, value, append(tcpParameters[:2:2], path...)...)
}

func putSSH(o object, value any, path ...string) object {
	return put(o, value, append(sshParameters[:2:2], path...)...)
}

// quickAlive are SSH keepalives that notice a dead peer within 5 s: max-wait ×
// (max-attempts + 1) + 1 s.
func quickAlive(o object) object {
	return putSSH(o, object{"max-wait": 1, "max-attempts": 3}, "keepalives")
}

// hostKey is one that a document has inline. The file of its public part is in
// the device's directory.
type hostKey struct {
	private, public []byte
	file            string
}

func newHostKey(t *testing.T, dir string) hostKey {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	// RFC 8709 section 4: two strings.
	var blob []byte
	for _, s := range [][]byte{[]byte("ssh-ed25519"), public} {
		blob = append(binary.BigEndian.AppendUint32(blob, uint32(len(s))), s...)
	}
	line := "ssh-ed25519 " + base64.StdEncoding.EncodeToString(blob) + "\n"
	return hostKey{der, blob, writeFile(t, filepath.Join(dir, "inline.pub"), line, 0o644)}
}

func (k hostKey) entry() object {
	return object{"name": "inline", "public-key": object{"inline-definition": object{
		"public-key-format":     "ietf-crypto-types:ssh-public-key-format",
		"public-key":            k.public, // base64 in JSON
		"private-key-format":    "ietf-crypto-types:one-asymmetric-key-format",
		"cleartext-private-key": k.private,
	}}}
}

// endpoint is where a station is, with a host key.
func (k hostKey) endpoint(t *testing.T, addr string) object {
	t.Helper()
	host, port := splitAddr(t, addr)
	return object{
		"name": addr,
		"ssh": object{
			"tcp-client-parameters": object{"remote-address": host, "remote-port": atoi(t, port)},
			"ssh-server-parameters": object{"server-identity": object{"host-key": []object{k.entry()}}},
		},
	}
}

// user is one of client-authentication's, with the public key of a station.
func user(t *testing.T, name string, stations ...*nms) object {
	t.Helper()
	var keys []object
	for _, n := range stations {
		keys = append(keys, object{
			"name":              filepath.Base(n.dir),
			"public-key-format": "ietf-crypto-types:ssh-public-key-format",
			"public-key":        strings.Fields(publicKey(t, n.key))[1],
		})
	}
	return object{"name": name, "public-keys": object{"inline-definition": object{"public-key": keys}}}
}

// replace puts a document in a file as configuration management does: by
// rename.
func replace(t *testing.T, file string, doc any) {
	t.Helper()
	text, ok := doc.(string)
	if !ok {
		data, err := json.MarshalIndent(doc, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		text = string(data)
	}
	if err := os.Rename(writeFile(t, file+".new", text, 0o600), file); err != nil {
		t.Fatal(err)
	}
}
