package registry

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"callhome/internal/atomicfile"

	"golang.org/x/crypto/ssh"
)

// RevokedFile is the list of revoked keys in the directory: on each line a public
// key, its fingerprint (SHA256:...), or a comment after #. A revoked CA revokes its
// certificates.
const RevokedFile = "revoked_keys"

// parseRevoked returns the list's fingerprints. A line that cannot be parsed makes the
// whole list an error: any key can be the one it revokes.
func parseRevoked(text []byte) (map[string]bool, error) {
	out := make(map[string]bool)
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fingerprint, err := Fingerprint(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w, nor a fingerprint", i+1, err)
		}
		out[fingerprint] = true
	}
	return out, nil
}

// Fingerprint returns the fingerprint of a line of the list: a fingerprint or a public
// key, either with a comment after it.
func Fingerprint(line string) (string, error) {
	first, comment, _ := strings.Cut(line, " ")
	if strings.HasPrefix(first, "SHA256:") && len(first) == len("SHA256:")+43 && !strings.ContainsAny(comment, "\r\n") {
		return first, nil
	}
	k, err := ParseKey(line)
	if err != nil {
		return "", err
	}
	return ssh.FingerprintSHA256(k), nil
}

// Revoke adds lines to the list of revoked keys, less those whose key is on it, and
// brings it in force. A list that is not valid stays as it is: a new line in it would
// have no effect.
func (r *Registry) Revoke(lines ...string) (Change, error) {
	return r.editRevoked("adding to", func(text []byte) ([]byte, error) { return AddRevoked(text, lines...) })
}

// Unrevoke removes a key from the list of revoked keys, and brings the list in force. The
// error is ErrNotRevoked where the list does not have it.
func (r *Registry) Unrevoke(fingerprint string) (Change, error) {
	return r.editRevoked("removing from", func(text []byte) ([]byte, error) { return WithoutRevoked(text, fingerprint) })
}

func (r *Registry) editRevoked(what string, edit func([]byte) ([]byte, error)) (Change, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	if err := editList(filepath.Join(r.dir, RevokedFile), edit); err != nil {
		return Change{}, fmt.Errorf("%s %s: %w", what, RevokedFile, err)
	}
	return r.update([]string{RevokedFile}, true)
}

func editList(path string, edit func([]byte) ([]byte, error)) error {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	mode := os.FileMode(0o640)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	next, err := edit(text)
	switch {
	case errors.Is(err, ErrNotRevoked):
		return err
	case err != nil:
		return fmt.Errorf("%w; correct that line first", err)
	case bytes.Equal(next, text):
		return nil
	}
	return atomicfile.Write(path, next, atomicfile.Options{Mode: mode, Sync: true})
}
