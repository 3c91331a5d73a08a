package station

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"callhome/internal/nms/handshake"
	"callhome/internal/nms/registry"

	"golang.org/x/crypto/ssh"
)

// Credential is how to log in to a device whose entry does not say.
type Credential struct {
	User, KeyFile, PasswordFile string
}

// maxSecret bounds a key or password file, in bytes.
const maxSecret = 64 << 10

// loginFor reads what an entry names. The files are read at each login, so that
// a new one needs no restart and no secret stays in memory.
func (c Credential) loginFor(e *registry.Entry) (*handshake.Login, error) {
	user, keyFile, passwordFile := e.User, e.KeyFile, e.PasswordFile
	if user == "" {
		user = c.User
	}
	if keyFile == "" && passwordFile == "" {
		keyFile, passwordFile = c.KeyFile, c.PasswordFile
	}
	switch {
	case user == "":
		return nil, fmt.Errorf("no user: the entry of %s names none and the station has no default", e.ID)
	case keyFile != "":
		auth, err := withKey(keyFile)
		return &handshake.Login{User: user, Auth: auth}, err
	case passwordFile != "":
		auth, err := withPassword(passwordFile)
		return &handshake.Login{User: user, Auth: auth}, err
	}
	return nil, fmt.Errorf("no credential: the entry of %s names none and the station has no default", e.ID)
}

func withKey(path string) ([]ssh.AuthMethod, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("reading the key %s: it has a passphrase, expected one without", path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the key %s: %s", path, strings.TrimPrefix(err.Error(), "ssh: "))
	}
	signers := []ssh.Signer{signer}
	// As stock ssh does: a certificate beside the key is offered first.
	text, err = readSecret(path + "-cert.pub")
	if errors.Is(err, os.ErrNotExist) {
		return []ssh.AuthMethod{ssh.PublicKeys(signers...)}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate %s-cert.pub: %s", path, strings.TrimPrefix(err.Error(), "ssh: "))
	}
	cert, ok := public.(*ssh.Certificate)
	if !ok {
		return nil, fmt.Errorf("reading the certificate %s-cert.pub: it is a plain key", path)
	}
	certified, err := ssh.NewCertSigner(cert, signer)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate %s-cert.pub: %s", path, strings.TrimPrefix(err.Error(), "ssh: "))
	}
	return []ssh.AuthMethod{ssh.PublicKeys(certified, signer)}, nil
}

func withPassword(path string) ([]ssh.AuthMethod, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, fmt.Errorf("reading the password: %w", err)
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" || strings.ContainsAny(password, "\r\n") {
		return nil, fmt.Errorf("reading the password %s: expected one line", path)
	}
	// A question that is shown is not the one for the password.
	answer := func(_, _ string, questions []string, shown []bool) ([]string, error) {
		if len(questions) == 0 {
			return nil, nil
		}
		if len(questions) > 1 || shown[0] {
			return nil, errors.New("the device asks for more than a password")
		}
		return []string{password}, nil
	}
	return []ssh.AuthMethod{ssh.Password(password), ssh.KeyboardInteractive(answer)}, nil
}

// readSecret reads a small file that others may neither read nor write.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	case !strings.HasSuffix(path, ".pub") && info.Mode()&0o007 != 0:
		return nil, fmt.Errorf("%s can be read by every user of this machine", path)
	}
	return io.ReadAll(io.LimitReader(f, maxSecret))
}
