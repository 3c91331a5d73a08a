package knownhosts

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"callhome/internal/sysexits"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sys/unix"
)

// nowhere is the peer's address that the library's signature needs. The library
// ignores it where it gets a name.
var nowhere = &net.TCPAddr{IP: net.IPv4zero}

// lookUp returns the keys and CAs that the files have for an address, and a test for
// revoked keys. The library matches the names (patterns, hashed names), but does not
// distinguish a CA's line from a key's, so markerOf reads the marker.
func lookUp(address string, names []string) (keys, authorities []known, isRevoked func(ssh.PublicKey) error, err error) {
	var files []string
	for _, name := range names {
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		files = append(files, name)
	}
	check, err := knownhosts.New(files...)
	if err != nil {
		return nil, nil, nil, sysexits.New(sysexits.Config, "correct or remove the line", fmt.Errorf("reading the known hosts: %w", err))
	}
	// For a fresh key the library returns all lines of the name.
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	fresh, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, nil, nil, err
	}
	var lines *knownhosts.KeyError
	if err := check(address, nowhere, fresh); !errors.As(err, &lines) {
		return nil, nil, nil, fmt.Errorf("looking %s up in the known hosts: %w", address, err)
	}
	for _, line := range lines.Want {
		marker, err := markerOf(line)
		if err != nil {
			return nil, nil, nil, err
		}
		k := known{line.Key, fmt.Sprintf("%s line %d", line.Filename, line.Line)}
		if marker == "cert-authority" {
			authorities = append(authorities, k)
		} else {
			keys = append(keys, k)
		}
	}
	return keys, authorities, func(key ssh.PublicKey) error { return revokedIn(check, address, key) }, nil
}

// markerOf reads a line again for its marker.
func markerOf(line knownhosts.KnownKey) (string, error) {
	text, err := os.ReadFile(line.Filename)
	if err != nil {
		return "", fmt.Errorf("reading the known hosts: %w", err)
	}
	all := bytes.Split(text, []byte("\n"))
	if line.Line > len(all) {
		return "", fmt.Errorf("reading the known hosts: %s changed while it was read", line.Filename)
	}
	marker, _, key, _, _, err := ssh.ParseKnownHosts(all[line.Line-1])
	if err != nil || !equal(key, line.Key) {
		return "", fmt.Errorf("reading the known hosts: %s changed while it was read", line.Filename)
	}
	return marker, nil
}

// revokedIn looks up the key, and the CA of a certificate.
func revokedIn(check ssh.HostKeyCallback, address string, key ssh.PublicKey) error {
	all := []ssh.PublicKey{key}
	if cert, ok := key.(*ssh.Certificate); ok {
		all = []ssh.PublicKey{cert.Key, cert.SignatureKey}
	}
	for _, k := range all {
		var revoked *knownhosts.RevokedError
		if errors.As(check(address, nowhere, k), &revoked) {
			return &revokedError{fmt.Sprintf("%s line %d", revoked.Revoked.Filename, revoked.Revoked.Line)}
		}
	}
	return nil
}

// record adds a key to a known_hosts file, and creates the file if necessary.
func record(file, name string, key ssh.PublicKey) error {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("recording the device's key: %w", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("recording the device's key: locking %s: %w", file, err)
	}
	line := knownhosts.Line([]string{name}, key) + "\n"
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			line = "\n" + line
		}
	}
	if _, err := f.WriteString(line); err != nil {
		return fmt.Errorf("recording the device's key: %w", err)
	}
	return f.Close()
}

// ReadKeys reads public keys, one a line, from a file such as a CA's .pub.
func ReadKeys(file string) ([]ssh.PublicKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading public keys: %w", err))
	}
	keys, err := parseKeys(file, text)
	if err == nil && len(keys) == 0 {
		err = sysexits.New(sysexits.NoInput, "", fmt.Errorf("reading public keys: no key in %s", file))
	}
	return keys, err
}

func parseKeys(file string, text []byte) (keys []ssh.PublicKey, err error) {
	for i, line := range strings.Split(string(text), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, sysexits.New(sysexits.Config, "", fmt.Errorf("reading public keys: %s line %d has no public key", file, i+1))
		}
		keys = append(keys, key)
	}
	return keys, nil
}
