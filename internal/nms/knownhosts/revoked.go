package knownhosts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"callhome/internal/sysexits"

	"golang.org/x/crypto/ssh"
)

// revokedError says where a key is revoked.
type revokedError struct{ place string }

func (e *revokedError) Error() string { return "revoked in " + e.place }

// revocations is one revocation list. A list that cannot be read revokes every key,
// as with ssh's RevokedHostKeys.
type revocations struct{ file string }

// krlMagic begins a KRL (PROTOCOL.krl of OpenSSH). ssh-keygen reads the rest: serial
// numbers, key ids, hashes, ranges.
var krlMagic = []byte("SSHKRL\n\x00")

func openRevocations(file string) (*revocations, error) {
	r := &revocations{file}
	text, err := r.read()
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(text, krlMagic) {
		if _, err := exec.LookPath("ssh-keygen"); err != nil {
			return nil, sysexits.New(sysexits.NoInput, "install openssh-client", fmt.Errorf("reading the revocation list %s: it is a KRL, and ssh-keygen, which reads KRLs, is not installed", file))
		}
		return r, nil
	}
	_, err = parseKeys(file, text)
	return r, err
}

func (r *revocations) read() ([]byte, error) {
	text, err := os.ReadFile(r.file)
	if err != nil {
		return nil, sysexits.New(sysexits.NoInput, "without it every key counts as revoked", fmt.Errorf("reading the revocation list: %w", err))
	}
	return text, nil
}

// check looks for a key, and with a certificate for its key and its CA.
func (r *revocations) check(key ssh.PublicKey) error {
	return r.look(key, r.askKeygen)
}

// checkLines is check for a list of public keys; it skips a KRL.
func (r *revocations) checkLines(key ssh.PublicKey) error {
	return r.look(key, func(ssh.PublicKey) error { return nil })
}

func (r *revocations) look(key ssh.PublicKey, inKRL func(ssh.PublicKey) error) error {
	text, err := r.read()
	if err != nil {
		return err
	}
	if bytes.HasPrefix(text, krlMagic) {
		return inKRL(key)
	}
	listed, err := parseKeys(r.file, text)
	if err != nil {
		return err
	}
	shown := []ssh.PublicKey{plain(key)}
	if cert, ok := key.(*ssh.Certificate); ok {
		shown = append(shown, cert.SignatureKey)
	}
	for _, k := range listed {
		for _, s := range shown {
			if equal(plain(k), s) {
				return &revokedError{r.file}
			}
		}
	}
	return nil
}

// keygenTime bounds ssh-keygen, which takes milliseconds.
const keygenTime = 10 * time.Second

// askKeygen has ssh-keygen look a key up in a KRL. ssh-keygen reads keys from files
// only, so askKeygen writes the key to one.
func (r *revocations) askKeygen(key ssh.PublicKey) error {
	failed := func(err error) error {
		return fmt.Errorf("looking a key up with ssh-keygen in the revocation list %s: %w", r.file, err)
	}
	dir, err := os.MkdirTemp("", "callhome-nms-")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "key.pub")
	if err := os.WriteFile(file, ssh.MarshalAuthorizedKey(key), 0o600); err != nil {
		return failed(err)
	}
	list, err := filepath.Abs(r.file)
	if err != nil {
		return failed(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), keygenTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ssh-keygen", "-Q", "-f", list, file).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit) && bytes.HasSuffix(bytes.TrimSpace(out), []byte("REVOKED")):
		return &revokedError{r.file}
	}
	return failed(fmt.Errorf("%w: %.200q", err, out))
}
