package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// all is an sshd that supports the algorithms of the tests, and no other.
var all = Features{
	Version:           "OpenSSH_9.9p2",
	ChannelTimeout:    true,
	HostKeyAlgorithms: []string{"ssh-ed25519", "rsa-sha2-512"},
	KexAlgorithms:     []string{"curve25519-sha256", "sntrup761x25519-sha512@openssh.com"},
	Ciphers:           []string{"aes256-ctr", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com"},
	MACs:              []string{"hmac-sha2-256", "hmac-sha2-512-etm@openssh.com"},
}

// The places that tests change.
const (
	inClient  = "ietf-netconf-server:netconf-server/call-home/netconf-client/0/"
	inEnd     = inClient + "endpoints/endpoint/0/"
	inTCP     = inEnd + "ssh/tcp-client-parameters/"
	inSSH     = inEnd + "ssh/ssh-server-parameters/"
	inKey     = inSSH + "server-identity/host-key/0/"
	inPair    = inKey + "public-key/inline-definition/"
	inNetconf = inEnd + "ssh/netconf-server-parameters/"

	pathClient = "/ietf-netconf-server:netconf-server/call-home/netconf-client[name='nms']"
	pathEnd    = pathClient + "/endpoints/endpoint[name='e1']"
	pathTCP    = pathEnd + "/ssh/tcp-client-parameters"
	pathSSH    = pathEnd + "/ssh/ssh-server-parameters"
	pathKey    = pathSSH + "/server-identity/host-key[name='hk']"
)

// minimal has a client nms with an endpoint e1 and a host key hk.
const minimal = `{"ietf-netconf-server:netconf-server": {"call-home": {"netconf-client": [{
	"name": "nms",
	"endpoints": {"endpoint": [{"name": "e1", "ssh": {
		"tcp-client-parameters": {"remote-address": "192.0.2.1"},
		"ssh-server-parameters": {"server-identity": {"host-key": [
			{"name": "hk", "public-key": {"inline-definition": {"hidden-private-key": [null]}}}]}}}}]},
	"connection-type": {"persistent": {}}}]}}}`

// edit sets the JSON value at a place; "" removes it.
type edit struct{ at, value string }

// with returns the minimal document with edits. Missing parents of a place are
// created.
func with(t testing.TB, edits ...edit) []byte {
	t.Helper()
	root := decode(t, minimal)
	for _, e := range edits {
		place(t, root, strings.Split(strings.TrimSuffix(e.at, "/"), "/"), e.value)
	}
	out, err := json.MarshalIndent(root, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func decode(t testing.TB, text string) any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func place(t testing.TB, at any, way []string, value string) {
	t.Helper()
	for ; len(way) > 1; way = way[1:] {
		if list, ok := at.([]any); ok {
			i, err := strconv.Atoi(way[0])
			if err != nil {
				t.Fatal(err)
			}
			at = list[i]
			continue
		}
		m := at.(map[string]any)
		if m[way[0]] == nil {
			m[way[0]] = map[string]any{}
		}
		at = m[way[0]]
	}
	m := at.(map[string]any)
	if value == "" {
		delete(m, way[0])
		return
	}
	m[way[0]] = decode(t, value)
}

// parse fails the test if the document has a fault.
func parse(t testing.TB, f Features, doc []byte) *Config {
	t.Helper()
	c, faults := Parse(doc, f, Defaults{})
	if len(faults) > 0 {
		t.Fatalf("%v\n%s", faults, doc)
	}
	return c
}

// endpoint returns the endpoint of the minimal document with edits.
func endpoint(t testing.TB, f Features, edits ...edit) *Endpoint {
	t.Helper()
	c := parse(t, f, with(t, edits...))
	return &c.Clients[0].Endpoints[0]
}

// Generated keys for all tests.
var (
	edKey  = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	edKey2 = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize))
	ecKey  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func b64(b []byte) string { return strconv.Quote(base64.StdEncoding.EncodeToString(b)) }

func wire(key any) []byte { return must(ssh.NewPublicKey(key)).Marshal() }

// certificate returns a certificate of edKey, signed by edKey2.
func certificate(t testing.TB, kind uint32) []byte {
	t.Helper()
	c := &ssh.Certificate{Key: must(ssh.NewPublicKey(edKey.Public())), CertType: kind, KeyId: "x", ValidPrincipals: []string{"x"}, ValidBefore: ssh.CertTimeInfinity}
	if err := c.SignCert(rand.Reader, must(ssh.NewSignerFromKey(edKey2))); err != nil {
		t.Fatal(err)
	}
	return c.Marshal()
}

func pkcs8(key any) []byte { return must(x509.MarshalPKCS8PrivateKey(key)) }

func publicKeyEntry(name string, blob []byte) string {
	return `{"name": ` + strconv.Quote(name) + `, "public-key-format": "ietf-crypto-types:ssh-public-key-format", "public-key": ` + b64(blob) + `}`
}

// user returns a user with one inline key.
func user(name string, blob []byte) string {
	return `{"name": ` + strconv.Quote(name) + `, "public-keys": {"inline-definition": {"public-key": [` + publicKeyEntry("k", blob) + `]}}}`
}

const (
	yang     = "../../../packaging/yang/"
	validate = yang + "validate"
)

// needYanglint skips the test where yanglint is not installed.
func needYanglint(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("yanglint"); err != nil {
		if os.Getenv("CALLHOME_NO_SKIP") == "1" {
			t.Fatal("yanglint is not installed, and CALLHOME_NO_SKIP is set")
		}
		t.Skip("yanglint (libyang2-tools) is not installed")
	}
}

// yanglint returns its output for a document, and an error where the models refuse
// the document.
func yanglint(t *testing.T, doc []byte, options ...string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "doc.json")
	if err := os.WriteFile(file, doc, 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(validate, append([]string{file}, options...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	return out.String() + errs.String(), err
}

// documents writes each document to a file and returns the names, which are options
// of yanglint.
func documents(t *testing.T, docs [][]byte) []string {
	t.Helper()
	dir := t.TempDir()
	var names []string
	for i, doc := range docs {
		names = append(names, filepath.Join(dir, strconv.Itoa(i)+".json"))
		if err := os.WriteFile(names[i], doc, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// example is a JSON block of docs/config.md. Its kind is the text after "json" at the
// fence.
type example struct {
	kind, text string
	line       int
}

var fence = regexp.MustCompile("(?ms)^```json *([a-z]*)\n(.*?)^```$")

func examples(t testing.TB) []example {
	t.Helper()
	doc, err := os.ReadFile("../../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []example
	for _, m := range fence.FindAllSubmatchIndex(doc, -1) {
		out = append(out, example{string(doc[m[2]:m[3]]), string(doc[m[4]:m[5]]), bytes.Count(doc[:m[4]], []byte("\n")) + 1})
	}
	if len(out) < 5 || !slices.ContainsFunc(out, func(e example) bool { return e.kind == "state" }) {
		t.Fatalf("found %d examples in docs/config.md", len(out))
	}
	return out
}

// marshal returns the JSON at a place of doc.
func marshal(t testing.TB, doc []byte, at string) []byte {
	t.Helper()
	v := decode(t, string(doc))
	for _, part := range strings.Split(strings.TrimSuffix(at, "/"), "/") {
		if list, ok := v.([]any); ok {
			v = list[must(strconv.Atoi(part))]
		} else {
			v = v.(map[string]any)[part]
		}
	}
	return must(json.Marshal(v))
}
