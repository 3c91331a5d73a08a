package knownhosts

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/sshtest"
	"callhome/internal/sysexits"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer(t, private)
}

func newECDSA(t *testing.T) ssh.Signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer(t, private)
}

func signer(t *testing.T, private any) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// certify issues a valid certificate for edge7, which change modifies first.
func certify(t *testing.T, ca ssh.Signer, key ssh.PublicKey, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	now := time.Now()
	c := &ssh.Certificate{Key: key, Serial: 7, CertType: ssh.HostCert, KeyId: "e7", ValidPrincipals: []string{"edge7"},
		ValidAfter: uint64(now.Add(-time.Hour).Unix()), ValidBefore: uint64(now.Add(time.Hour).Unix())}
	if change != nil {
		change(c)
	}
	if err := c.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	return c
}

func write(t *testing.T, lines ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func text(key ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) }

func open(t *testing.T, o Options) *Device {
	t.Helper()
	d, err := New("edge7", o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// wants checks that a key is accepted ("") or refused for that reason.
func wants(t *testing.T, what string, d *Device, key ssh.PublicKey, want Reason) {
	t.Helper()
	err := d.Check(key)
	var r *Refusal
	switch {
	case err == nil && want == "":
	case !errors.As(err, &r):
		t.Errorf("%s: %v, want %q", what, err, want)
	case r.Reason != want:
		t.Errorf("%s: refused as %s, want %q: %v", what, r.Reason, want, err)
	case sysexits.Code(err) != sysexits.NoPerm || sysexits.Hint(err) == "" || !strings.Contains(err.Error(), "edge7") ||
		!strings.Contains(err.Error(), ssh.FingerprintSHA256(plain(key))) || r.Fingerprint != ssh.FingerprintSHA256(plain(key)):
		t.Errorf("%s: the refusal lacks the device, its key or a hint: %v; %s", what, err, sysexits.Hint(err))
	}
}

func TestADeviceIsRecognisedByItsNameInKnownHosts(t *testing.T) {
	mine, other, ca := newKey(t).PublicKey(), newKey(t).PublicKey(), newKey(t)
	certificate := certify(t, ca, mine, nil)
	for _, row := range []struct {
		name  string
		lines []string
		key   ssh.PublicKey
		want  Reason
	}{
		{"known", []string{"edge7 " + text(mine)}, mine, ""},
		{"one of two", []string{"edge7 " + text(other), "edge7 " + text(mine)}, mine, ""},
		{"a pattern", []string{"edge*,!edge8 " + text(mine)}, mine, ""},
		{"a pattern that excludes it", []string{"edge*,!edge7 " + text(mine)}, mine, Unknown},
		{"hashed", []string{knownhosts.HashHostname("edge7") + " " + text(mine)}, mine, ""},
		{"another device's", []string{"edge8 " + text(mine)}, mine, Unknown},
		{"with a port it is an address, not the name", []string{"[edge7]:830 " + text(mine)}, mine, Unknown},
		{"no entry", nil, mine, Unknown},
		{"changed", []string{"edge7 " + text(other)}, mine, Changed},
		{"revoked", []string{"edge7 " + text(mine), "@revoked * " + text(mine)}, mine, Revoked},
		{"certificate", []string{"@cert-authority edge* " + text(ca.PublicKey())}, certificate, ""},
		{"certificate, CA for others", []string{"@cert-authority core* " + text(ca.PublicKey())}, certificate, Unknown},
		{"certificate of another CA", []string{"@cert-authority * " + text(other)}, certificate, Changed},
		{"certificate of another CA, with a known key", []string{"@cert-authority * " + text(other), "edge7 " + text(mine)}, certificate, ""},
		{"certificate, CA revoked", []string{"@cert-authority * " + text(ca.PublicKey()), "@revoked * " + text(ca.PublicKey())}, certificate, Revoked},
		{"certificate, key revoked", []string{"@cert-authority * " + text(ca.PublicKey()), "@revoked * " + text(mine)}, certificate, Revoked},
		{"a key where a certificate is wanted", []string{"@cert-authority * " + text(ca.PublicKey())}, mine, Changed},
		{"the CA's own key is no device's", []string{"@cert-authority * " + text(ca.PublicKey())}, ca.PublicKey(), Changed},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := open(t, Options{Files: []string{write(t, row.lines...), filepath.Join(t.TempDir(), "none")}})
			wants(t, row.name, d, row.key, row.want)
		})
	}
}

func TestOnlyAValidCertificateOfTheDeviceIsAccepted(t *testing.T) {
	ca, key := newKey(t), newKey(t).PublicKey()
	for _, row := range []struct {
		name   string
		change func(*ssh.Certificate)
		text   string // of the refusal; "": accepted
	}{
		{"good", nil, ""},
		{"for ever", func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 0, ssh.CertTimeInfinity }, ""},
		{"several principals", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"a", "edge7"} }, ""},
		{"expired", func(c *ssh.Certificate) { c.ValidBefore = uint64(time.Now().Add(-time.Minute).Unix()) }, "expired at "},
		{"not yet", func(c *ssh.Certificate) { c.ValidAfter = uint64(time.Now().Add(time.Minute).Unix()) }, "is not valid before "},
		{"for another", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"edge8"} }, `is for ["edge8"], not for edge7`},
		{"for all", func(c *ssh.Certificate) { c.ValidPrincipals = nil }, "names no principal"},
		{"a pattern is no name", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"*"} }, "not for edge7"},
		{"for users", func(c *ssh.Certificate) { c.CertType = ssh.UserCert }, "not a host certificate"},
		{"an unknown critical option", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x": "y"} }, "is not valid: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := open(t, Options{Authorities: []ssh.PublicKey{ca.PublicKey()}})
			want := Reason("")
			if row.text != "" {
				want = Certificate
			}
			cert := certify(t, ca, key, row.change)
			wants(t, row.name, d, cert, want)
			if err := d.Check(cert); err != nil && !strings.Contains(err.Error(), row.text) {
				t.Errorf("%v, want %q", err, row.text)
			}
		})
	}
	old := sshtest.SigningAs(t, sshtest.NewRSA(t, 2048), ssh.KeyAlgoRSA)
	wants(t, "SHA-1", open(t, Options{Authorities: []ssh.PublicKey{old.PublicKey()}}), certify(t, old, key, nil), Certificate)
	forged := certify(t, ca, key, nil)
	forged.Key = newKey(t).PublicKey()
	wants(t, "a certificate that was changed", open(t, Options{Authorities: []ssh.PublicKey{ca.PublicKey()}}), forged, Certificate)
	wants(t, "another principal", open(t, Options{Authorities: []ssh.PublicKey{ca.PublicKey()}, Principal: "edge8"}), certify(t, ca, key, nil), Certificate)
}

func TestOnlyAPinnedKeyIsAccepted(t *testing.T) {
	mine, other := newKey(t).PublicKey(), newKey(t).PublicKey()
	byPrint := open(t, Options{Fingerprints: []string{ssh.FingerprintSHA256(mine) + "="}})
	wants(t, "fingerprint", byPrint, mine, "")
	wants(t, "another fingerprint", byPrint, other, Changed)
	byKey := open(t, Options{Keys: []ssh.PublicKey{mine}})
	wants(t, "key", byKey, mine, "")
	wants(t, "another key", byKey, other, Changed)
	for _, bad := range []string{"", "SHA256:", "MD5:00:11", ssh.FingerprintSHA256(mine) + "x", ssh.FingerprintLegacyMD5(mine)} {
		if _, err := New("edge7", Options{Fingerprints: []string{bad}}); sysexits.Code(err) != sysexits.Usage {
			t.Errorf("%q is taken for a fingerprint: %v", bad, err)
		}
	}
}

func TestRevocationListsAreReadForEachCheck(t *testing.T) {
	mine, other, ca := newKey(t).PublicKey(), newKey(t).PublicKey(), newKey(t)
	certificate := certify(t, ca, mine, nil)
	list := write(t, "# revoked", text(other), "")
	d := open(t, Options{Keys: []ssh.PublicKey{mine}, Authorities: []ssh.PublicKey{ca.PublicKey()}, Revoked: []string{list}})
	wants(t, "not listed", d, mine, "")
	wants(t, "not listed", d, certificate, "")
	change := func(text string) {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	change(text(mine))
	wants(t, "listed since", d, mine, Revoked)
	wants(t, "the certificate's key listed", d, certificate, Revoked)
	change(text(ca.PublicKey()))
	wants(t, "the CA listed", d, certificate, Revoked)
	wants(t, "the CA listed, but a plain key shown", d, mine, "")
	change("what is this")
	if err := d.Check(mine); err == nil || !strings.Contains(err.Error(), list+" line 1") {
		t.Errorf("with a list that cannot be read: %v", err)
	}
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	if err := d.Check(mine); sysexits.Code(err) != sysexits.NoInput {
		t.Errorf("with a list that is gone: %v", err)
	}
	if _, err := New("edge7", Options{Revoked: []string{list}}); sysexits.Code(err) != sysexits.NoInput {
		t.Errorf("a list that is not there can be opened: %v", err)
	}
}

// ssh-keygen finds keys in a KRL, and certificates by their serial number.
func TestAKRLRevokesKeysAndSerialNumbers(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("ssh-keygen is not installed")
	}
	mine, other, ca := newKey(t).PublicKey(), newKey(t).PublicKey(), newKey(t)
	krl := func(spec string) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "krl")
		args := []string{"-k", "-q", "-f", file, "-s", write(t, text(ca.PublicKey())), write(t, spec)}
		if out, err := exec.Command("ssh-keygen", args...).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
		return file
	}
	certificate := certify(t, ca, other, nil)
	d := open(t, Options{Keys: []ssh.PublicKey{mine, other}, Authorities: []ssh.PublicKey{ca.PublicKey()}, Revoked: []string{krl("key: " + text(mine))}})
	wants(t, "listed", d, mine, Revoked)
	wants(t, "not listed", d, other, "")
	wants(t, "not listed", d, certificate, "")
	d = open(t, Options{Authorities: []ssh.PublicKey{ca.PublicKey()}, Revoked: []string{krl("serial: 5-8")}})
	wants(t, "serial number listed", d, certificate, Revoked)
	wants(t, "another serial number", d, certify(t, ca, other, func(c *ssh.Certificate) { c.Serial = 9 }), "")
	broken := write(t, string(krlMagic)+"nonsense")
	if err := open(t, Options{Keys: []ssh.PublicKey{mine}, Revoked: []string{broken}}).Check(mine); err == nil || !strings.Contains(err.Error(), broken) {
		t.Errorf("with a broken KRL: %v", err)
	}
}

// A peer whose key is not the device's costs no process.
func TestAKRLIsAskedForKnownKeysOnly(t *testing.T) {
	bin := t.TempDir()
	asked := filepath.Join(bin, "asked")
	if err := os.WriteFile(filepath.Join(bin, "ssh-keygen"), []byte("#!/bin/sh\necho >> "+asked+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	mine, other, ca := newKey(t).PublicKey(), newKey(t).PublicKey(), newKey(t)
	krl := write(t, string(krlMagic))
	count := func() int {
		text, _ := os.ReadFile(asked)
		return len(text)
	}
	d := open(t, Options{Keys: []ssh.PublicKey{mine}, Authorities: []ssh.PublicKey{ca.PublicKey()}, Revoked: []string{krl}})
	expired := certify(t, ca, other, func(c *ssh.Certificate) { c.ValidBefore = 1 })
	wants(t, "another key", d, other, Changed)
	wants(t, "an expired certificate", d, expired, Certificate)
	wants(t, "an unknown device's", open(t, Options{Revoked: []string{krl}}), other, Unknown)
	if n := count(); n != 0 {
		t.Errorf("ssh-keygen was asked %d times", n)
	}
	wants(t, "the device's", d, mine, "")
	record := filepath.Join(t.TempDir(), "new")
	wants(t, "a new one", open(t, Options{AcceptNew: record, Revoked: []string{krl}}), mine, "")
	if n := count(); n != 2 {
		t.Errorf("ssh-keygen was asked %d times, want 2", n)
	}
}

func TestAcceptNewRecordsTheFirstKeyOnly(t *testing.T) {
	mine, other, ca := newKey(t).PublicKey(), newKey(t).PublicKey(), newKey(t)
	file := write(t, "edge6 "+text(other)) // without a newline at its end
	o := Options{Files: []string{file}, AcceptNew: file}
	d := open(t, o)
	wants(t, "new", d, certify(t, ca, mine, nil), "")
	wants(t, "the same in the next key exchange", d, mine, "")
	wants(t, "another one after that", d, other, Changed)
	wants(t, "on the next day", open(t, Options{Files: []string{file}}), mine, "")
	wants(t, "another one on the next day", open(t, o), other, Changed)
	got, err := os.ReadFile(file)
	if want := "edge6 " + text(other) + "\nedge7 " + text(mine) + "\n"; err != nil || string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
	o.AcceptNew = filepath.Join(t.TempDir(), "none", "known_hosts")
	if d, err := New("edge9", o); err != nil || d.Check(mine) == nil {
		t.Errorf("a key that cannot be recorded was taken: %v", err)
	}
}

func TestOnlyAlgorithmsOfKnownKeysAreOffered(t *testing.T) {
	ed, ec, ca := newKey(t).PublicKey(), newECDSA(t).PublicKey(), newKey(t).PublicKey()
	for _, row := range []struct {
		name  string
		o     Options
		first string
		not   string
	}{
		{"ed25519 known", Options{Keys: []ssh.PublicKey{ed}}, ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256},
		{"ecdsa known", Options{Keys: []ssh.PublicKey{ec}}, ssh.KeyAlgoECDSA256, ssh.KeyAlgoED25519},
		{"CA known", Options{Authorities: []ssh.PublicKey{ca}}, ssh.CertAlgoED25519v01, ssh.KeyAlgoED25519},
		{"CA and key known", Options{Authorities: []ssh.PublicKey{ca}, Keys: []ssh.PublicKey{ec}}, ssh.CertAlgoED25519v01, ssh.KeyAlgoED25519},
		{"fingerprint known", Options{Fingerprints: []string{ssh.FingerprintSHA256(ec)}}, ssh.KeyAlgoED25519, ssh.CertAlgoED25519v01},
		{"nothing known", Options{}, ssh.KeyAlgoED25519, ssh.CertAlgoED25519v01},
	} {
		got := open(t, row.o).Algorithms()
		if got[0] != row.first || slices.Contains(got, row.not) || slices.Contains(got, ssh.KeyAlgoRSA) {
			t.Errorf("%s: %v", row.name, got)
		}
	}
}

func TestANameIsNoPatternOrList(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{"edge7", "edge7"}, {"Edge-7.example_x", "edge-7.example_x"}, {"192.0.2.1", "192.0.2.1"},
		{"", ""}, {"-o", ""}, {"a b", ""}, {"a,b", ""}, {"*", ""}, {"!a", ""}, {"a\nb", ""}, {"|1|", ""}, {"[a]:1", ""}, {"@x", ""}, {"é", ""},
		{strings.Repeat("a", 254), ""},
	} {
		got, err := Name(row.in)
		if err == nil && got != row.want || (err == nil) != (row.want != "") {
			t.Errorf("Name(%q) = %q, %v", row.in, got, err)
		}
	}
}

func TestAFileThatCannotBeParsedIsAnError(t *testing.T) {
	bad := write(t, "edge7 ssh-ed25519 nonsense")
	if _, err := New("edge7", Options{Files: []string{bad}}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%s:1", bad)) || sysexits.Code(err) != sysexits.Config {
		t.Errorf("%v", err)
	}
	if _, err := ReadKeys(bad); err == nil {
		t.Error("nonsense is read as public keys")
	}
	if _, err := ReadKeys(write(t, "# nothing")); sysexits.Code(err) != sysexits.NoInput {
		t.Errorf("%v", err)
	}
	key := newKey(t).PublicKey()
	if keys, err := ReadKeys(write(t, text(key)+" comment")); err != nil || len(keys) != 1 || !equal(keys[0], key) {
		t.Errorf("%v %v", keys, err)
	}
}

// Whatever is in a file of known hosts or a revocation list, a key that it does not
// have is not accepted, and one that it lists is revoked.
func FuzzFilesOfKeys(f *testing.F) {
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBsvYoYVi9wKxHvLvjfiGSyB5LB6UWHfOY2h7y2lP7wU"
	for _, s := range []string{"edge7 " + key, "@revoked * " + key, "@cert-authority *.example " + key, "|1|c2FsdA==|aGFzaA== " + key, key, "SSHKRL\n\x00", "# comment\n\n", "edge7 ssh-rsa !"} {
		f.Add([]byte(s))
	}
	absent := sshtest.NewSigner(f).PublicKey()
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		keys, authorities, isRevoked, err := lookUp("edge7:22", []string{path})
		if err == nil {
			if in(keys, absent) || in(authorities, absent) {
				t.Errorf("%q has a key that was made now", text)
			}
			_ = isRevoked(absent)
		}
		listed, err := parseKeys(path, text)
		if err != nil || bytes.HasPrefix(text, krlMagic) {
			return
		}
		list := &revocations{path}
		for _, k := range listed {
			if list.checkLines(k) == nil {
				t.Errorf("%q: %s is not revoked", text, ssh.FingerprintSHA256(k))
			}
		}
		if err := list.checkLines(absent); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}
