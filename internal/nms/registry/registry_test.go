package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/sshtest"

	"golang.org/x/crypto/ssh"
)

// certificate is a host certificate of key by ca; change makes it another.
func certificate(t testing.TB, ca, key ssh.Signer, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	c := &ssh.Certificate{
		Key: key.PublicKey(), CertType: ssh.HostCert, KeyId: "edge", Serial: 7, ValidPrincipals: []string{"edge7.example"},
		ValidAfter: uint64(noon.Add(-time.Hour).Unix()), ValidBefore: uint64(noon.Add(time.Hour).Unix()),
	}
	if change != nil {
		change(c)
	}
	if err := c.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	return c
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func pinned(id string, k ssh.PublicKey) string {
	return fmt.Sprintf(`{"id": %q, "host-keys": [%q]}`, id, sshtest.Line(k))
}

func mustReload(t testing.TB, r *Registry) Change {
	t.Helper()
	c, err := r.Reload()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustOpen(t testing.TB, dir string) *Registry {
	t.Helper()
	r, _, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wants looks a key up and expects that device, or an error with that text.
func wants(t *testing.T, r *Registry, k ssh.PublicKey, id, text string) {
	t.Helper()
	e, err := r.Lookup(k, noon)
	switch {
	case text == "" && (err != nil || e.ID != id):
		t.Errorf("got %v, %v, want %s", e, err, id)
	case text != "" && (err == nil || !strings.Contains(err.Error(), text)):
		t.Errorf("got %v, %v, want %q", e, err, text)
	}
}

func TestADeviceIsFoundByItsKey(t *testing.T) {
	dir := t.TempDir()
	a, b, none := sshtest.NewSigner(t), sshtest.NewSigner(t), sshtest.NewSigner(t)
	write(t, dir, "edge7.json", pinned("edge7", a.PublicKey()))
	write(t, dir, "edge8.json", pinned("edge8", b.PublicKey()))
	r := mustOpen(t, dir)
	wants(t, r, a.PublicKey(), "edge7", "")
	wants(t, r, b.PublicKey(), "edge8", "")
	if _, err := r.Lookup(none.PublicKey(), noon); err != ErrUnknown {
		t.Errorf("an unknown key: %v", err)
	}
	// A certificate of an unknown CA proves its key alone.
	wants(t, r, certificate(t, none, a, nil), "edge7", "")
	if _, err := r.Lookup(certificate(t, a, none, nil), noon); err != ErrUnknown {
		t.Errorf("a certificate by a device: %v", err)
	}
}

func TestADeviceIsFoundByItsCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, other, host := sshtest.NewSigner(t), sshtest.NewSigner(t), sshtest.NewSigner(t)
	write(t, dir, "edge7.json", fmt.Sprintf(`{"id": "edge7", "cas": [%q], "principals": ["edge7.example", "edge7"]}`, sshtest.Line(ca.PublicKey())))
	write(t, dir, "edge8.json", fmt.Sprintf(`{"id": "edge8", "cas": [%q], "principals": ["edge8.example"]}`, sshtest.Line(ca.PublicKey())))
	r := mustOpen(t, dir)
	for _, tt := range []struct {
		name     string
		ca       ssh.Signer
		change   func(*ssh.Certificate)
		id, text string
	}{
		{"as it should be", ca, nil, "edge7", ""},
		{"another principal of the same", ca, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"x", "edge7"} }, "edge7", ""},
		{"another device", ca, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"edge8.example"} }, "edge8", ""},
		{"a principal that no entry has", ca, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"edge9.example\n"} }, "", `certificate "edge" (serial 7): no device has its principals edge9.example?`},
		{"no principal is not every principal", ca, func(c *ssh.Certificate) { c.ValidPrincipals = nil }, "", "names no principal"},
		{"two devices", ca, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"edge7", "edge8.example"} }, "", "belong to two devices, edge7 and edge8"},
		{"expired", ca, func(c *ssh.Certificate) { c.ValidBefore = uint64(noon.Add(-time.Minute).Unix()) }, "", "cert has expired"},
		{"of tomorrow", ca, func(c *ssh.Certificate) { c.ValidAfter = uint64(noon.Add(time.Minute).Unix()) }, "", "cert is not yet valid"},
		{"a user's", ca, func(c *ssh.Certificate) { c.CertType = ssh.UserCert }, "", "not valid for a host"},
		{"a critical option", ca, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x": "y"} }, "", "unsupported critical option"},
		{"another CA", other, nil, "", "unknown host key"},
	} {
		t.Run(tt.name, func(t *testing.T) { wants(t, r, certificate(t, tt.ca, host, tt.change), tt.id, tt.text) })
	}
	t.Run("changed after it was signed", func(t *testing.T) {
		c := certificate(t, ca, host, nil)
		c.ValidPrincipals = []string{"edge8.example"}
		wants(t, r, c, "", "certificate signature does not verify")
	})
	t.Run("the CA's key is no device's", func(t *testing.T) { wants(t, r, ca.PublicKey(), "", "unknown host key") })
	if got := r.Algorithms()[0]; got != ssh.CertAlgoED25519v01 {
		t.Errorf("asks for %s first, though there is a CA", got)
	}
}

// ssh and the console refuse it too.
func TestACertificateSignedWithSHA1IsRefused(t *testing.T) {
	ca := sshtest.NewRSA(t, 2048)
	dir := t.TempDir()
	write(t, dir, "edge7.json", fmt.Sprintf(`{"id": "edge7", "cas": [%q], "principals": ["edge7.example"]}`, sshtest.Line(ca.PublicKey())))
	r := mustOpen(t, dir)
	for algorithm, text := range map[string]string{ssh.KeyAlgoRSA: `certificate "edge" (serial 7): it is signed with SHA-1`, ssh.KeyAlgoRSASHA512: ""} {
		wants(t, r, certificate(t, sshtest.SigningAs(t, ca, algorithm), sshtest.NewSigner(t), nil), "edge7", text)
	}
}

func TestARevokedKeyIsRefused(t *testing.T) {
	dir := t.TempDir()
	ca, a, b := sshtest.NewSigner(t), sshtest.NewSigner(t), sshtest.NewSigner(t)
	write(t, dir, "a.json", pinned("a", a.PublicKey()))
	write(t, dir, "b.json", fmt.Sprintf(`{"id": "b", "cas": [%q], "principals": ["edge7.example"]}`, sshtest.Line(ca.PublicKey())))
	r := mustOpen(t, dir)
	cert := certificate(t, ca, b, nil)
	wants(t, r, a.PublicKey(), "a", "")
	wants(t, r, cert, "b", "")
	for _, tt := range []struct {
		name, list string
		new        bool   // other keys than before
		a, cert    string // text of the refusal
	}{
		{"a key", "# lost\n\n" + sshtest.Line(a.PublicKey()) + " comment\n", true, "is revoked", ""},
		{"its fingerprint", ssh.FingerprintSHA256(a.PublicKey()) + " lost in the post\n", false, "is revoked", ""},
		{"the key of a certificate", sshtest.Line(b.PublicKey()), true, "", "is revoked"},
		{"the CA", sshtest.Line(ca.PublicKey()), true, "", "its CA is revoked"},
		{"a wrong line leaves what was", "SHA256:short\n", false, "", "its CA is revoked"},
		{"an empty list", "", true, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			write(t, dir, RevokedFile, tt.list)
			c := mustReload(t, r)
			if wrong := strings.Contains(tt.list, "short"); wrong != (len(r.Problems()) == 1) || c.Revoked != tt.new {
				t.Errorf("change %+v, problems %v", c, r.Problems())
			}
			wants(t, r, a.PublicKey(), "a", tt.a)
			wants(t, r, cert, "b", tt.cert)
		})
	}
}

// A list that has never been readable can revoke any key, so every key is refused.
func TestABrokenListOfRevokedKeysRevokesAllAtTheStart(t *testing.T) {
	dir := t.TempDir()
	a, b, none := sshtest.NewSigner(t).PublicKey(), sshtest.NewSigner(t).PublicKey(), sshtest.NewSigner(t).PublicKey()
	write(t, dir, "a.json", pinned("a", a))
	write(t, dir, "b.json", pinned("b", b))
	write(t, dir, RevokedFile, sshtest.Line(a)+"\n"+sshtest.Line(b)[:40])
	r := mustOpen(t, dir)
	check := func() {
		t.Helper()
		for _, k := range []ssh.PublicKey{a, b, none} {
			wants(t, r, k, "", "revoked_keys cannot be read")
		}
		if p := r.Problems(); len(p) != 1 || !strings.HasPrefix(p[0].Error, "line 2: ") || !strings.Contains(p[0].Error, "every key counts as revoked") {
			t.Errorf("problems %v", p)
		}
	}
	check()
	if c := mustReload(t, r); c.Any() {
		t.Errorf("change %+v", c)
	}
	check()
	write(t, dir, RevokedFile, "# no key\n")
	if c := mustReload(t, r); !c.Revoked || len(r.Problems()) != 0 {
		t.Errorf("change %+v, problems %v", c, r.Problems())
	}
	wants(t, r, a, "a", "")
	write(t, dir, RevokedFile, sshtest.Line(a))
	if c := mustReload(t, r); !c.Revoked || len(r.Problems()) != 0 {
		t.Errorf("change %+v, problems %v", c, r.Problems())
	}
	wants(t, r, a, "", "is revoked")
	wants(t, r, b, "b", "")
}

// A file that cannot be parsed leaves the entry as it was, and its problem names the
// line.
func TestAHalfWrittenFileChangesNothing(t *testing.T) {
	dir := t.TempDir()
	a, b := sshtest.NewSigner(t), sshtest.NewSigner(t)
	write(t, dir, "edge7.json", pinned("edge7", a.PublicKey()))
	r := mustOpen(t, dir)
	whole := fmt.Sprintf("{\n\t\"id\": \"edge7\",\n\t\"host-keys\": [\n\t\t%q\n\t]\n}\n", sshtest.Line(b.PublicKey()))
	for end := range len(whole) - 2 {
		write(t, dir, "edge7.json", whole[:end])
		mustReload(t, r)
		p := r.Problems()
		if len(p) != 1 || p[0].File != "edge7.json" || !strings.HasPrefix(p[0].Error, "line ") {
			t.Fatalf("%q: problems %v", whole[:end], p)
		}
		wants(t, r, a.PublicKey(), "edge7", "")
		wants(t, r, b.PublicKey(), "", "unknown")
	}
	write(t, dir, "edge7.json", whole)
	if c := mustReload(t, r); !slices.Equal(c.Changed, []string{"edge7"}) || len(r.Problems()) != 0 {
		t.Errorf("change %+v, problems %v", c, r.Problems())
	}
	wants(t, r, b.PublicKey(), "edge7", "")
	wants(t, r, a.PublicKey(), "", "unknown")
	// Without changes Reload returns no change.
	if c := mustReload(t, r); c.Any() {
		t.Errorf("change %+v", c)
	}
	if err := os.Remove(filepath.Join(dir, "edge7.json")); err != nil {
		t.Fatal(err)
	}
	if c := mustReload(t, r); !slices.Equal(c.Removed, []string{"edge7"}) {
		t.Errorf("change %+v", c)
	}
	wants(t, r, b.PublicKey(), "", "unknown")
}

func TestAKeyBelongsToOneEntry(t *testing.T) {
	dir := t.TempDir()
	a, b := sshtest.NewSigner(t), sshtest.NewSigner(t)
	write(t, dir, "m.json", pinned("m", a.PublicKey()))
	r := mustOpen(t, dir)
	for _, second := range []string{"a", "z"} { // read before and after it
		write(t, dir, second+".json", pinned(second, a.PublicKey()))
		mustReload(t, r)
		wants(t, r, a.PublicKey(), "m", "")
		if p := r.Problems(); len(p) == 0 || !strings.Contains(p[0].Error, "belongs to device m") {
			t.Errorf("problems %v", p)
		}
	}
	// When the entry no longer has the key, the first of the others gets it.
	write(t, dir, "m.json", pinned("m", b.PublicKey()))
	mustReload(t, r)
	wants(t, r, a.PublicKey(), "a", "")
	wants(t, r, b.PublicKey(), "m", "")
}

func TestOnlyFilesOfEntriesAreRead(t *testing.T) {
	dir := t.TempDir()
	k := sshtest.NewSigner(t).PublicKey()
	write(t, dir, ".edge7.json", pinned(".edge7", k))
	write(t, dir, "edge7.json~", pinned("edge7", k))
	write(t, dir, "README", "hello")
	if err := os.Mkdir(filepath.Join(dir, "dir.json"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "all.json", pinned("all", k))
	if err := os.Chmod(filepath.Join(dir, "all.json"), 0o666); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "other.json", pinned("edge7", k))
	r := mustOpen(t, dir)
	if e := r.Entries(); len(e) != 0 {
		t.Errorf("entries %v", e)
	}
	want := []string{"all.json: every user", "dir.json: it is not a regular file", `other.json: line 1: id "edge7", expected "other" as in the file's name`}
	for i, p := range r.Problems() {
		if i >= len(want) || !strings.HasPrefix(p.File+": "+p.Error, want[i]) {
			t.Errorf("problem %v", p)
		}
	}
	if _, _, err := Open(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory that is not there can be read")
	}
}

func TestParseNamesTheLine(t *testing.T) {
	key := sshtest.Line(sshtest.NewSigner(t).PublicKey())
	for _, tt := range []struct{ name, text, err string }{
		{"nothing", "", "line 1: the file ends in the middle"},
		{"no object", "[]", "line 1: expected an object"},
		{"an unknown member", "{\n\"id\": \"a\",\n\"hots-keys\": []}", `line 3: "hots-keys" is not a member`},
		{"a name in another case", "{\"ID\": \"a\"}", `line 1: "ID" is not a member`},
		{"twice", "{\"id\": \"a\",\n\"id\": \"a\"}", `line 2: duplicate member "id"`},
		{"another type", "{\"id\":\n7}", "line 2: id: expected a string"},
		{"null", "{\"id\": null}", "line 1: id: expected a string"},
		{"a path for an id", `{"id": "../a"}`, "line 1: id: device id"},
		{"an option for an id", `{"id": "-a"}`, "line 1: id: device id"},
		{"no key", `{"id": "a", "host-keys": ["ssh-ed25519 AAAA"]}`, "is not a public key"},
		{"two keys in one", fmt.Sprintf(`{"id": "a", "host-keys": [%q]}`, key+"\n"+key), "is not a public key"},
		{"a key with options", fmt.Sprintf(`{"id": "a", "host-keys": [%q]}`, "no-pty "+key), "is not a public key"},
		{"neither key nor CA", `{"id": "a"}`, "neither host-keys nor cas"},
		{"a CA without a principal", fmt.Sprintf(`{"id": "a", "cas": [%q]}`, key), "cas without principals"},
		{"a principal without a CA", fmt.Sprintf(`{"id": "a", "host-keys": [%q], "principals": ["a"]}`, key), "principals without cas"},
		{"two credentials", fmt.Sprintf(`{"id": "a", "host-keys": [%q], "key-file": "/a", "password-file": "/b"}`, key), "expected one of them"},
		{"a relative path", `{"id": "a", "key-file": "id"}`, "not an absolute path"},
		{"control characters", `{"id": "a", "user": "a\u001b[2J"}`, "control characters"},
		{"an unknown policy", `{"id": "a", "duplicate": "both"}`, "expected refuse or replace"},
		{"data after the object", fmt.Sprintf("{\"id\": \"a\", \"host-keys\": [%q]}\n{}", key), "line 2: unexpected data after the object"},
		{"too long", "{" + strings.Repeat(" ", maxFile) + "}", "the maximum is 65536"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.err) || !strings.HasPrefix(err.Error(), "line ") {
				t.Errorf("got %v, want %q", err, tt.err)
			}
		})
	}
}

func TestAddIsWholeAndOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	r := mustOpen(t, dir)
	e := &Entry{ID: "edge7", HostKeys: []ssh.PublicKey{sshtest.NewSigner(t).PublicKey()}, User: "netconf", Labels: map[string]string{"site": "x"}}
	if c, err := r.Add(e); err != nil || !slices.Equal(c.Added, []string{"edge7"}) {
		t.Fatalf("%+v, %v", c, err)
	}
	wants(t, r, e.HostKeys[0], "edge7", "")
	before, err := os.ReadFile(filepath.Join(dir, "edge7.json"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Add(&Entry{ID: "edge7", HostKeys: []ssh.PublicKey{sshtest.NewSigner(t).PublicKey()}}); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second one: %v", err)
	}
	if _, err := r.Add(&Entry{ID: "../x", HostKeys: e.HostKeys}); err == nil {
		t.Error("an entry outside the directory")
	}
	after, _ := os.ReadFile(filepath.Join(dir, "edge7.json"))
	files, _ := os.ReadDir(dir)
	if !bytes.Equal(before, after) || len(files) != 1 {
		t.Errorf("files %v, the entry changed: %v", files, !bytes.Equal(before, after))
	}
}

// The keys of other entries do not change which key a device shows.
func TestAnEntryChangesNothingForOtherDevices(t *testing.T) {
	dir := t.TempDir()
	r := mustOpen(t, dir)
	before := r.Algorithms()
	write(t, dir, "a.json", pinned("a", sshtest.NewRSA(t, 2048).PublicKey()))
	write(t, dir, "b.json", fmt.Sprintf(`{"id": "b", "cas": [%q], "principals": ["b"]}`, sshtest.Line(sshtest.NewRSA(t, 2048).PublicKey())))
	if c := mustReload(t, r); len(c.Added) != 2 {
		t.Fatalf("read %+v", c)
	}
	if after := r.Algorithms(); !slices.Equal(before, after) {
		t.Errorf("asked for %v, and now for %v", before, after)
	}
}

func TestWatchReportsEachChangeOfAFile(t *testing.T) {
	dir := t.TempDir()
	r := mustOpen(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	changes, done := make(chan Change, 16), make(chan error, 1)
	// The first file is older than the watch.
	write(t, dir, "a.json", pinned("a", sshtest.NewSigner(t).PublicKey()))
	go func() {
		done <- r.Watch(ctx, func(c Change, err error) {
			if err == nil {
				changes <- c
			}
		})
	}()
	await := func(what string, is func(Change) bool) {
		t.Helper()
		for {
			select {
			case c := <-changes:
				if is(c) {
					return
				}
			case <-time.After(20 * time.Second):
				t.Fatalf("no report of %s", what)
			}
		}
	}
	await("the first", func(c Change) bool { return slices.Equal(c.Added, []string{"a"}) })
	write(t, dir, "a.json", pinned("a", sshtest.NewSigner(t).PublicKey()))
	await("a change", func(c Change) bool { return slices.Equal(c.Changed, []string{"a"}) })
	write(t, dir, "a.json", "{")
	await("a fault", func(c Change) bool { return len(c.Problems) == 1 })
	if err := os.Remove(filepath.Join(dir, "a.json")); err != nil {
		t.Fatal(err)
	}
	await("its end", func(c Change) bool { return slices.Equal(c.Removed, []string{"a"}) })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Parse accepts what Format returns for each entry, and an entry's id is safe as a
// file name.
func FuzzParse(f *testing.F) {
	key := sshtest.Line(sshtest.NewSigner(f).PublicKey())
	f.Add([]byte(fmt.Sprintf(`{"id": "edge7", "host-keys": [%q], "user": "u", "key-file": "/k", "labels": {"a": "b"}}`, key)))
	f.Add([]byte(fmt.Sprintf(`{"id": "edge7", "cas": [%q], "principals": ["p"], "duplicate": "replace"}`, key)))
	f.Add([]byte("{\"id\": \"edge7\",\n"))
	f.Add([]byte(`{"id": {"id": ["\ud800"]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := Parse(text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "line ") || strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Fatalf("the error is %q", err)
			}
			return
		}
		if e.ID != filepath.Base(e.ID) || e.ID[0] == '.' || e.ID[0] == '-' {
			t.Fatalf("id %q", e.ID)
		}
		again, err := Parse(e.Format())
		if err != nil || !bytes.Equal(again.Format(), e.Format()) {
			t.Fatalf("%s is not accepted again: %v", e.Format(), err)
		}
	})
}
