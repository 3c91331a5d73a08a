//go:build integration

package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"callhome/test/sandbox"
)

// newKey makes an ed25519 key pair in dir and returns the private file's name;
// the public one has .pub behind it.
func newKey(t *testing.T, dir, name string) string {
	t.Helper()
	sandbox.Need(t, "ssh-keygen")
	file := filepath.Join(dir, name)
	keygen(t, "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file)
	return file
}

// certify signs key.pub with a CA for one principal; the certificate lands
// beside it as key-cert.pub.
func certify(t *testing.T, ca, key, id, principal string, host bool) string {
	t.Helper()
	args := []string{"-q", "-s", ca, "-I", id, "-n", principal, "-V", "-1h:+1h"}
	if host {
		args = append(args, "-h")
	}
	keygen(t, append(args, key+".pub")...)
	return key + "-cert.pub"
}

func keygen(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ssh-keygen", args...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// publicKey returns type and key, without the comment.
func publicKey(t *testing.T, key string) string {
	t.Helper()
	f := strings.Fields(readFile(t, key+".pub"))
	return f[0] + " " + f[1]
}

// fingerprintOf returns a key's fingerprint as ssh-keygen prints it.
func fingerprintOf(t *testing.T, key string) string {
	t.Helper()
	out, err := exec.Command("ssh-keygen", "-lf", key+".pub").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))[1]
}
