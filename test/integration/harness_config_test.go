//go:build integration

package integration

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"callhome/internal/device/config"
	"callhome/internal/device/provision"
	"callhome/internal/device/settings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// blob is a public key as a document has it: the second field of the .pub file.
func blob(t *testing.T, file string) string {
	t.Helper()
	return strings.Fields(readFile(t, file))[1]
}

// der is an Ed25519 private key as one-asymmetric-key-format has it.
func der(t *testing.T, file string) string {
	t.Helper()
	key, err := ssh.ParseRawPrivateKey([]byte(readFile(t, file)))
	ed, ok := key.(*ed25519.PrivateKey)
	if err != nil || !ok {
		t.Fatalf("%s: %T, %v", file, key, err)
	}
	out, err := x509.MarshalPKCS8PrivateKey(*ed)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(out)
}

// configured is what a device does by a document with one endpoint.
func (d *device) configured(doc string) {
	d.t.Helper()
	slow := regexp.MustCompile(`^OpenSSH_9\.[234](p|$)`).MatchString(sshdVersion(d.t, d))
	c, faults := config.Parse([]byte(doc), config.Features{SlowClientAlive: slow}, config.Defaults{})
	if len(faults) > 0 {
		d.t.Fatal(faults)
	}
	e := &c.Clients[0].Endpoints[0]
	// sshd reads a user's keys with that user's rights.
	dir := filepath.Join(d.dir(), "ssh")
	if err := provision.Write(dir, e.Files(dir)); err != nil {
		d.t.Fatal(err)
	}
	s := e.Call(settings.Call{}, dir)
	d.options = []string{"--subsystem", s.Sshd.Subsystem, "--ssh-keepalive", fmt.Sprintf("%d,%d", s.Sshd.KeepAlive.Interval, s.Sshd.KeepAlive.CountMax)}
	for flag, values := range map[string][]string{"--host-key": s.Sshd.HostKeys, "--host-certificate": s.Sshd.HostCertificates, "--sshd-option": s.Sshd.Options} {
		for _, v := range values {
			d.options = append(d.options, flag, v)
		}
	}
}

// A document says who may log in, by key or by certificate, and no other user
// does, whatever else the machine would allow; and the device shows the key and
// the certificate that the document has.
func configuredEndpoint(t *testing.T, move func(*device)) {
	t.Parallel()
	for _, who := range []struct {
		name, user    string
		certified, in bool
		refusal       string // in sshd's log
		options       []string
	}{
		{"by key", netop, false, true, "", nil},
		{"by certificate", netop, true, true, "", nil},
		{"a user who is not named", bashful, true, false, "not allowed because not listed in AllowUsers", nil},
		{"a user whom sshd would allow", bashful, true, false, "Failed publickey for " + bashful, []string{"--sshd-option", "AllowUsers=" + bashful}},
	} {
		t.Run(who.name, func(t *testing.T) {
			t.Parallel()
			d, n := configuredSite(t, move, who.user, who.certified)
			addr := freeAddr("127.0.0.1")
			client := n.Ssh(addr, []string{"-v", "-s"}, "netconf")
			call := d.Call(addr, who.options...)
			if !who.in {
				client.MustExit(255)
				contains(t, "ssh", client.Stderr(), "Permission denied (publickey)")
				contains(t, "sshd", call.Stderr(), who.refusal)
				return
			}
			client.MustExit(0)
			contains(t, "ssh's output", client.Stdout(), "probe speaks")
			contains(t, "sshd", call.Stderr(), "Accepted publickey for "+who.user)
			if got := strings.Contains(call.Stderr(), "ED25519-CERT SHA256"); got != who.certified {
				t.Errorf("logged in by a certificate: %v, want %v\n%s", got, who.certified, call.Stderr())
			}
			contains(t, "ssh", client.Stderr(), "aes256-gcm@openssh.com", "curve25519-sha256", `Host '`+alias+`' is known and matches the ED25519-CERT host certificate`)
		})
	}
}

// A station that vanishes in mid-session is noticed within max-wait times
// max-attempts and one, and a second, by every OpenSSH: also by those that take
// twice the ClientAliveInterval.
func configuredAliveness(t *testing.T, move func(*device)) {
	t.Parallel()
	// Promised are aliveWait*(aliveAttempts+1) and a second. An OpenSSH that takes twice the
	// ClientAliveInterval would need twice that.
	const bound = aliveWait * (aliveAttempts + 1) * 3 / 2
	d, n := configuredSite(t, move, netop, false)
	addr := freeAddr("127.0.0.1")
	client := n.Netconf(addr)
	call := d.Call(addr)
	session := call.AwaitFamily("cat")
	client.Signal(unix.SIGSTOP)
	begun := time.Now()
	AwaitGone(t, patience, session)
	if took := time.Since(begun); took > bound {
		t.Errorf("%s noticed it after %v, expected less than %v", sshdVersion(t, d), took, bound)
	}
	contains(t, "sshd's log", call.Stderr(), "Timeout, client not responding from user "+netop)
	client.Signal(unix.SIGCONT)
}

// The keepalives of a configuredSite.
const (
	aliveWait     = 6 * time.Second
	aliveAttempts = 1
)

// configuredSite is a station that has user's key or certificate, and a device
// whose document names netop alone.
func configuredSite(t *testing.T, move func(*device), user string, certified bool) (*device, *nms) {
	t.Helper()
	probe := newProbe(t)
	d, n := newDevice(t, probe.Command), newNMS(t)
	move(d)
	n.user = user
	hostCA, userCA, other := newKey(t, d.dir(), "host_ca"), newKey(t, n.dir, "user_ca"), newKey(t, n.dir, "other")
	certificate := certify(t, hostCA, d.hostKey, "device-1", alias, true)
	writeFile(t, n.knownHosts, "@cert-authority "+alias+" "+publicKey(t, hostCA)+"\n", 0o600)
	key := n.key
	if certified {
		certify(t, userCA, n.key, "nms-1", user, false)
		key = other
	}
	const format = `"public-key-format": "ietf-crypto-types:ssh-public-key-format"`
	d.configured(fmt.Sprintf(`{"ietf-netconf-server:netconf-server": {"call-home": {"netconf-client": [{
		"name": "nms", "connection-type": {"persistent": {}},
		"endpoints": {"endpoint": [{"name": "e1", "ssh": {
			"tcp-client-parameters": {"remote-address": "127.0.0.1"},
			"ssh-server-parameters": {
				"server-identity": {"host-key": [{"name": "device", "public-key": {"inline-definition": {
					%[1]s, "public-key": %[2]q, "private-key-format": "ietf-crypto-types:one-asymmetric-key-format", "cleartext-private-key": %[3]q}}}]},
				"client-authentication": {
					"users": {"user": [{"name": %[4]q, "public-keys": {"inline-definition": {"public-key": [{"name": "k", %[1]s, "public-key": %[5]q}]}}}]},
					"callhome:user-ca-keys": {"inline-definition": {"public-key": [{"name": "ca", %[1]s, "public-key": %[6]q}]}}},
				"transport-params": {"encryption": {"encryption-alg": ["AEAD_AES_256_GCM"]}, "key-exchange": {"key-exchange-alg": ["curve25519-sha256"]}},
				"keepalives": {"max-wait": %[8]d, "max-attempts": %[9]d}},
			"netconf-server-parameters": {"callhome:subsystem": %[7]q}}}]}}]}}}`,
		format, blob(t, certificate), der(t, d.hostKey), netop, blob(t, key+".pub"), blob(t, userCA+".pub"), probe.Command, int(aliveWait/time.Second), aliveAttempts))
	return d, n
}
