package config

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"callhome/internal/device/settings"
	"callhome/internal/sshdexec"

	"golang.org/x/crypto/ssh"
)

// The installed sshd accepts an endpoint's options, and sshd -T prints each with its
// value.
func TestSshdAcceptsTheOptionsOfAnEndpoint(t *testing.T) {
	const sshd = "/usr/sbin/sshd"
	features, err := sshdexec.Probe(sshd)
	if err != nil {
		if os.Getenv("CALLHOME_NO_SKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	e := endpoint(t, features,
		edit{inPair, `{"private-key-format": "ietf-crypto-types:one-asymmetric-key-format", "cleartext-private-key": ` + b64(pkcs8(edKey)) +
			`, "public-key-format": "ietf-crypto-types:ssh-public-key-format", "public-key": ` + b64(certificate(t, ssh.HostCert)) + `}`},
		edit{inSSH + "client-authentication", `{"users": {"user": [` + user("netconf", wire(edKey2.Public())) + `, {"name": "by-cert.2"}]},
			"callhome:user-ca-keys": {"inline-definition": {"public-key": [` + publicKeyEntry("ca", wire(edKey.Public())) + `]}}}`},
		edit{inSSH + "transport-params", `{"host-key": {"host-key-alg": ["ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519"]}, "key-exchange": {"key-exchange-alg": ["curve25519-sha256"]},
			"encryption": {"encryption-alg": ["AEAD_AES_256_GCM", "aes256-ctr"]}, "mac": {"mac-alg": ["hmac-sha2-512-etm@openssh.com", "hmac-sha2-512"]}}`},
		edit{inSSH + "keepalives", `{"max-wait": 20, "max-attempts": 2}`},
		edit{inSSH + "callhome:device-id", `"device-1"`},
		edit{inNetconf, `{"callhome:subsystem": "/bin/cat", "callhome:ssh-connection-port": 830}`},
		edit{inClient + "connection-type", `{"periodic": {"idle-timeout": 300}}`},
		edit{inClient + "callhome:re-call-home-no-ssh-timer", `45`},
	)
	top := t.TempDir()
	dir := filepath.Join(top, "ssh")
	for _, f := range e.Files(dir) {
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.Path, f.Data, f.Mode); err != nil {
			t.Fatal(err)
		}
	}
	empty := filepath.Join(top, "sshd_config")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := e.Call(settings.Call{Sshd: sshdexec.Command{Sshd: sshd, Config: empty}}, dir)
	if err := sshdexec.MakePrivsepDir(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(sshd, append([]string{"-T"}, s.Sshd.TestArgs()...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := strings.ToLower(string(out))
	want := []string{
		"hostkey " + s.Sshd.HostKeys[0], "hostcertificate " + s.Sshd.HostCertificates[0],
		"allowusers netconf", "allowusers by-cert.2", "authorizedkeysfile " + e.Dir(dir) + "/keys/%u", "authorizedkeyscommand none",
		"authenticationmethods publickey", "trustedusercakeys " + e.Dir(dir) + "/user_ca",
		"authorizedprincipalsfile " + e.Dir(dir) + "/principals/%u", "authorizedprincipalscommand none",
		"hostkeyalgorithms ssh-ed25519-cert-v01@openssh.com,ssh-ed25519", "kexalgorithms curve25519-sha256",
		"ciphers aes256-gcm@openssh.com,aes256-ctr", "macs hmac-sha2-512-etm@openssh.com,hmac-sha2-512",
		"logingracetime 45", "clientaliveinterval", "clientalivecountmax 2", "versionaddendum device-1",
	}
	if features.ChannelTimeout {
		want = append(want, "channeltimeout session:*=300", "unusedconnectiontimeout 10")
	}
	for _, line := range want {
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(strings.ToLower(line)) + `\b`).MatchString(got) {
			t.Errorf("sshd -T does not print %q:\n%s", line, got)
		}
	}
}
